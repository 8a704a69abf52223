"""Writers of one database take turns, and so does a reader who finds it being written to.

SQLite lets whoever waits ask again and again, each time a little later, so that among many
writers some wait for seconds. A file lock wakes the next in line at once.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """A lock file beside a database, held by whose turn it is; the system frees it at any exit."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
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
        got = self.mine or self._at_once() or self._in_line()
        self._depth += got
        try:
            yield got
        finally:
            self._depth -= got
            if got and not self._depth:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _at_once(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _in_line(self) -> bool:
        """A thread waits, because a waiting flock knows no time limit."""
        waiting = _Waiting(self._path)
        threading.Thread(target=waiting.wait, daemon=True).start()
        file = waiting.result(self._seconds)
        if file is None:
            return False
        os.dup2(file, self._file)  # the lock belongs to the open file, whatever its number
        os.close(file)
        os.set_inheritable(self._file, False)
        return True


class _Waiting:
    """An open file on its way to its lock; given up, it is closed as soon as it has it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR)
        self._done, self._guard, self._given_up = threading.Event(), threading.Lock(), False

    def wait(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._guard:
            if self._given_up:
                os.close(self._file)
            self._done.set()

    def result(self, seconds: float) -> int | None:
        self._done.wait(seconds)
        with self._guard:
            if self._done.is_set():
                return self._file
            self._given_up = True
            return None
