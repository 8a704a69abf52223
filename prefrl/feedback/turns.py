"""Writers of one database take turns, and so does a reader who finds it being written to.

SQLite lets whoever waits ask again and again, each time a little later, so that among many
some wait for seconds; a file lock wakes all who wait, and any of them gets it. So each draws a
number first, locks the byte of that number, and waits for the byte of the number before (the
queue lock of Craig 1993 and Landin and Hagersten 1994, with locked bytes in the place of flags):
first come, first served. The system frees the bytes of whoever dies in the queue; then two may
be called at once, so the file lock still says whose turn it is.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_ORDER = hasattr(fcntl, "F_OFD_SETLKW")  # Linux: locks that belong to an open file
NUMBERS = struct.Struct("<Q")  # the last number drawn, at the beginning of the file
DRAWING, FIRST = 0, 2**20  # bytes to lock: while drawing, and of number 0
FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, process


class Turns:
    """A lock file beside a database, held by whose turn it is; the system frees it at any exit."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._file = self._open()
        self._depth = 0

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    @property
    def mine(self) -> bool:
        """Is it this one's turn?"""
        return self._depth > 0

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for one's turn; False if nobody gave way for `seconds`. May be nested."""
        got = self.mine or self._wait()
        self._depth += got
        try:
            yield got
        finally:
            self._depth -= got
            if got and not self._depth:
                fcntl.flock(self._file, fcntl.LOCK_UN)
                _unlock_bytes(self._file)

    def _wait(self) -> bool:
        number = _draw(self._file)
        if _is_called(self._file, number, wait=False):
            return True
        waiting = _Waiting(self._file, number)
        if waiting.is_called(self._seconds):
            return True
        self._file = self._open()  # the other one is closed once it has been called
        return False

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)


class _Waiting:
    """A thread that waits, because waiting for a lock knows no time limit."""

    def __init__(self, file: int, number: int) -> None:
        self._file, self._number = file, number
        self._done, self._guard, self._given_up = threading.Event(), threading.Lock(), False
        threading.Thread(target=self._wait, daemon=True).start()

    def is_called(self, seconds: float) -> bool:
        """Within so many seconds? Else the file is closed as soon as it is."""
        self._done.wait(seconds)
        with self._guard:
            self._given_up = not self._done.is_set()
            return not self._given_up

    def _wait(self) -> None:
        _is_called(self._file, self._number, wait=True)
        with self._guard:
            if self._given_up:
                os.close(self._file)
            self._done.set()


def _draw(file: int) -> int:
    """The next number, whose byte is locked before anybody draws the one after; 0: no number."""
    if not IN_ORDER:
        return 0
    _lock_byte(file, DRAWING, wait=True)
    try:
        drawn = os.pread(file, NUMBERS.size, 0).ljust(NUMBERS.size, b"\0")
        number = (NUMBERS.unpack(drawn)[0] + 1) % 2**40
        os.pwrite(file, NUMBERS.pack(number), 0)
        _lock_byte(file, FIRST + number, wait=True)
        return number
    except OSError:  # a full disk: out of order is better than not at all
        return 0
    finally:
        _unlock_bytes(file, DRAWING)


def _is_called(file: int, number: int, *, wait: bool) -> bool:
    """Is the number before gone, and the lock free?"""
    if number:
        if not _lock_byte(file, FIRST + number - 1, wait=wait):
            return False
        _unlock_bytes(file, FIRST + number - 1)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _lock_byte(file: int, at: int, *, wait: bool) -> bool:
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(file, command, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock_bytes(file: int, at: int | None = None) -> None:
    """One, or all that this open file has locked."""
    if IN_ORDER:
        start, length = (0, 0) if at is None else (at, 1)
        lock = FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, length, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
