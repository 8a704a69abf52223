"""What a user did wrong, in one line: got, wanted, remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The command line prints it on one line and exits with code 2."""


def nearest(given: str, known: Iterable[str]) -> str:
    """A question with the nearest known name, or "".

    >>> nearest("trian", ["train", "tasks"])
    "did you mean 'train'?"
    """
    found = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""
