"""`labels.jsonl`: every answer as one line of text, beside the database.

The database is the truth and is written first; the mirror is brought up to it after each
call and at each opening, so it may lack its last lines but never has more than the database.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefrl.feedback.errors import DamagedStore

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
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a viewer and the trainer may both append
            end, last = _last_line(file.read())
            lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows(last)]
            file.truncate(end)
            file.seek(end)
            file.write("".join(lines).encode())

    def last_seq(self) -> int:
        """The `seq` of the last whole line; 0 where there is none."""
        try:
            return _last_line(self.path.read_bytes())[1]
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


def _last_line(data: bytes) -> tuple[int, int]:
    """(where the last sound line ends, its `seq`)."""
    end = data.rfind(b"\n") + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
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
