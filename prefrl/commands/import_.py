"""`prefrl import RUN FILE`: answers from a table into a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.errors import UserError


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
    from prefrl.feedback.unpacking import is_pack, read_note

    with FeedbackStore.open(given.run) as store:
        entries = read_entries(read_table(given.file), file=given.file)
        if is_pack(given.run) and (whose := read_note(given.run).rater):
            others = sorted({entry.rater for entry in entries} - {whose})
            if others:
                raise UserError(
                    f"{given.file}: got answers by {others[0]!r}, but {given.run} is a pack for "
                    f"{whose!r}: its run would refuse them, and all others with them"
                )
        print(take_in(store, entries, file=given.file).text)
