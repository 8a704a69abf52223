"""Some disk space kept aside, so that answers can still be stored once the disk is full."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

RESERVE_BYTES = 8 * 2**20  # about 40,000 labels
FULL = {errno.ENOSPC, errno.EDQUOT}


class Reserve:
    """`reserve.bin` in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "reserve.bin"

    def fill(self) -> None:
        """Take the space, unless it is taken already or there is none."""
        if self._path.exists() and self._path.stat().st_size == RESERVE_BYTES:
            return
        try:
            with self._path.open("wb") as file:
                _allocate(file.fileno())
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise
            log.warning("no room for a reserve of %d MB: the disk is full", RESERVE_BYTES >> 20)

    def free(self) -> str:
        """Give the space back; says what happened."""
        if not self._path.exists():
            return "its reserve is used up"
        self._path.unlink()
        return f"a reserve of {RESERVE_BYTES >> 20} MB has been freed"


def _allocate(descriptor: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    else:  # macOS
        os.write(descriptor, b"\0" * RESERVE_BYTES)
