"""`prefrl import RUN FILE`: answers from a table into a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from prefrl.commands.parse import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportArgs:
    """Store the answers of a file written by `prefrl export`, or by you.

    A file with a fault in it is refused whole; answers that are stored already are left alone, so
    that an import which was cut short can be done again.
    `docs/feedback_files.md` says which columns are needed.
    """

    run: Positional[Path]
    """Run directory; it must hold the segments that the answers are about."""
    file: Positional[Path]
    """CSV, JSON lines or Parquet; its name ends in .csv, .jsonl or .parquet."""


def main(args: list[str], *, prog: str) -> None:
    """Read the whole file, then store it."""
    given = parse(ImportArgs, args, prog=prog)

    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.entries import read_entries
    from prefrl.feedback.files import read_table
    from prefrl.feedback.intake import take_in

    with FeedbackStore.open(given.run) as store:
        entries = read_entries(read_table(given.file), file=given.file)
        print(take_in(store, entries, file=given.file).text)
