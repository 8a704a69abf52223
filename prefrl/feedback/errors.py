"""What can go wrong with stored feedback; each message names the remedy."""

from __future__ import annotations

from prefrl.errors import UserError


class DamagedSegment(ValueError):  # noqa: N818
    """Bytes that are not a whole segment."""


class DamagedStore(UserError):  # noqa: N818
    """A database that is not what was written into it."""


class DiskFull(UserError):  # noqa: N818
    """No room; the message says what of the last call was stored. Everything before it was."""
