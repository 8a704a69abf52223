"""`prefrl tasks`: what can be learned, and who can answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from prefrl.commands.parse import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksArgs:
    """List the tasks, with what a rater should prefer, and the raters."""


def main(args: list[str], *, prog: str) -> None:
    """Print the two tables."""
    parse(TasksArgs, args, prog=prog)

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from envs import tasks
    from prefrl.feedback import ORACLES

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True, style="bold")
    table.add_column("domain")
    table.add_column("what to prefer")
    for task in tasks():
        table.add_row(task.id, task.domain, task.instructions)
    raters = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    raters.add_column("--rater", no_wrap=True, style="bold")
    raters.add_column("who answers")
    raters.add_row("human", "people, at `prefrl rate RUN`")
    for name, about in ORACLES.items():
        raters.add_row(name, about)
    wide = None if sys.stdout.isatty() else 120
    Console(width=wide).print(table, raters)
