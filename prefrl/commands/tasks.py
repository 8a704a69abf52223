"""`prefrl tasks`: what can be learned."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from prefrl.commands.parse import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksArgs:
    """List the tasks: id, domain, and what a rater should prefer."""


def main(args: list[str], *, prog: str) -> None:
    """Print the table."""
    parse(TasksArgs, args, prog=prog)

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from envs import tasks

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True, style="bold")
    table.add_column("domain")
    table.add_column("what to prefer")
    for task in tasks():
        table.add_row(task.id, task.domain, task.instructions)
    wide = None if sys.stdout.isatty() else 120
    Console(width=wide).print(table)
