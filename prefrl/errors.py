"""What a user did wrong, in one line: got, wanted, remedy."""


class UserError(ValueError):
    """The command line prints it on one line and exits with code 2."""
