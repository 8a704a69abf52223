"""`labels.jsonl`: every answer as one line of text, beside the database.

The database is the truth and is written first; the mirror is brought up to it after each
call and at each opening, so it may lack its last lines but never has more than the database.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from prefrl.feedback.errors import DamagedStore

TAIL_BYTES = 16 * 2**10

Rows = Callable[[int], list[dict[str, Any]]]
"""All label rows with a `seq` above the given one, in that order."""


class Mirror:
    """The file and how to bring it up to date."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def top_up(self, rows: Rows) -> None:
        """Append what the file lacks; a torn last line is written anew.

        Raises:
            DamagedStore: the file has answers that the database lacks.
        """
        with self._locked() as file:
            end, last = _last_line(file)
            lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows(last)]
            file.truncate(end)
            file.seek(end)
            file.write("".join(lines).encode())

    def rewrite(self, rows: Rows) -> None:
        """Write the file anew; cut short, it is topped up at the next opening."""
        with self._locked() as file:
            lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows(0)]
            file.truncate(0)
            file.write("".join(lines).encode())

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a viewer and the trainer may both append
            yield file

    def last_seq(self) -> int:
        """The `seq` of the last whole line; 0 where there is none."""
        try:
            with self.path.open("rb") as file:
                return _last_line(file)[1]
        except FileNotFoundError:
            return 0


def check_not_behind(mirror: Mirror, last: int, newest: int) -> None:
    """Is the database, with labels up to `newest`, as new as its mirror, up to `last`?

    Raises:
        DamagedStore: answers are missing from the database.
    """
    if last > newest:
        raise DamagedStore(
            f"{mirror.path.parent / 'labels.db'} ends at label {newest}, {mirror.path} at "
            f"{last}: the database is older than its answers; restore the newest backup"
        )


def _last_line(file: BinaryIO) -> tuple[int, int]:
    """(where the last sound line ends, its `seq`); reads the end of the file only."""
    size = file.seek(0, os.SEEK_END)
    piece = TAIL_BYTES
    while True:
        start = max(size - piece, 0)
        file.seek(start)
        end, seq = _last_sound(file.read(size - start), whole=start == 0)
        if seq or start == 0:
            return (start + end if seq else 0), seq
        piece *= 16


def _last_sound(data: bytes, *, whole: bool) -> tuple[int, int]:
    """The same within a piece, whose first line may lack its beginning."""
    end = data.rfind(b"\n") + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if start == 0 and not whole:
            break
        seq = _seq(data[start:end])
        if seq:
            return end, seq
        end = start
    return 0, 0


def _seq(line: bytes) -> int:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    seq = row.get("seq") if isinstance(row, dict) else None
    return seq if type(seq) is int and seq > 0 else 0
