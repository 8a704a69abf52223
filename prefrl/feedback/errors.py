"""What can go wrong with stored feedback; each message names the remedy."""

from __future__ import annotations

from prefrl.errors import UserError


class DamagedSegment(ValueError):  # noqa: N818
    """Bytes that are not a whole segment."""


class DamagedStore(UserError):  # noqa: N818
    """A database that is not what was written into it."""


class DiskFull(UserError):  # noqa: N818
    """Nothing of the last call was stored, everything before it was."""
