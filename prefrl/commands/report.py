"""`prefrl report RUN...`: curves and a table."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from prefrl.loop.report import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportArgs:
    """Write `report/index.html` of each run again, and print a table of them all."""

    runs: Positional[tuple[Path, ...]]
    """Run directories."""
    films: bool = True
    """Film the reward model's most certain mistakes too: some seconds for each run."""


def main(args: list[str], *, prog: str) -> None:
    """Check every run before the first is drawn."""
    given = parse(ReportArgs, args, prog=prog)
    if not given.runs:
        raise UserError("no run: wanted `prefrl report RUN...`")

    from prefrl.final_report import write_report
    from prefrl.loop.report import summarise
    from prefrl.loop.rundir import RunDir

    runs = [RunDir.existing(path) for path in given.runs]
    summaries = [summarise(run) for run in runs]
    for run in runs:
        print(write_report(run, films=given.films))
    _print_table(summaries)


def _print_table(summaries: Sequence[Summary]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "task", "rater"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "steps", "labels", "true return", "hold-out", "minutes"):
        table.add_column(name, justify="right")
    for one in summaries:
        table.add_row(
            str(one.path),
            one.task,
            one.rater,
            str(one.seed),
            f"{one.step:,} of {one.steps:,}",
            f"{one.labels:,}",
            "-" if math.isnan(one.true_return) else f"{one.true_return:.1f}",
            "-" if math.isnan(one.holdout) else f"{one.holdout:.0%}",
            f"{one.minutes:.1f}",
        )
    wide = None if sys.stdout.isatty() else 140
    Console(width=wide).print(table)
