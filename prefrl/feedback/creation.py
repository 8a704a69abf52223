"""How a store begins: its precious file is made under another name, then named."""

from __future__ import annotations

import os
from pathlib import Path

from prefrl.errors import UserError
from prefrl.feedback.database import Database, lock_of
from prefrl.feedback.rows import hashed
from prefrl.feedback.schema import LABELS


def create_labels(directory: Path, *, task: str, seed: int) -> None:
    """Make `labels.db` in `directory`, which is made if missing.

    Raises:
        UserError: there is one already, or answers whose database is missing.
    """
    path, started = directory / "labels.db", directory / "labels.db.new"
    if path.exists():
        raise UserError(f"{path} exists: open it, or give another run directory")
    if (directory / "labels.jsonl").exists():
        raise UserError(
            f"{directory} holds answers (labels.jsonl) without their labels.db: restore it, "
            "or give another run directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    for leftover in (started, Path(f"{started}-journal")):  # of a creation that was cut off
        leftover.unlink(missing_ok=True)
    _write(started, task, seed)
    os.replace(started, path)
    sync_directory(directory)


def _write(path: Path, task: str, seed: int) -> None:
    database = Database(path, LABELS, create=True, on_full=lambda: "the store was not created yet")
    try:
        with database.transaction():
            database.insert("run", hashed({"id": 1, "task": task, "seed": seed}))
    finally:
        database.close()
    Path(f"{path}-journal").unlink(missing_ok=True)  # empty, and named after the old name
    lock_of(path).unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """What was made or renamed in it survives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
