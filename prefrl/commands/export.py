"""`prefrl export RUN`: the answers of a run as a table for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from prefrl.commands.parse import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportArgs:
    """One row for each answer ever given, with all that is known of it, and nothing hidden.

    `docs/feedback_files.md` explains the columns.
    """

    run: Positional[Path]
    """Run directory."""
    to: Literal["parquet", "csv", "jsonl"]
    """Kind of file. Parquet needs `pip install 'prefrl[parquet]'`."""
    out: Path | None = None
    """File to write, which must not exist. Default: answers.csv (or .jsonl, .parquet) in the
    run directory."""


def main(args: list[str], *, prog: str) -> None:
    """Write the file and say how many rows it has."""
    given = parse(ExportArgs, args, prog=prog)

    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.export import rows_of
    from prefrl.feedback.files import write_table

    out = given.out or given.run / f"answers.{given.to}"
    with FeedbackStore.open(given.run) as store:
        count = write_table(rows_of(store), out, to=given.to)
    print(f"{out}: {count:,} answers")
