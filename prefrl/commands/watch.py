"""`prefrl watch RUN`: a window in which a run's newest policy plays."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.config import refuse_unbounded
from prefrl.errors import UserError

DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchArgs:
    """See a run's newest policy play. Keys: space pauses, Esc or q closes."""

    run: Positional[Path]
    """Run directory; it may still be training."""
    record: Path | None = None
    """Write an MP4 here instead of opening a window."""
    seconds: float | None = None
    """Stop after so much play; default: a window stays open, a recording takes the task's own."""
    seed: int = 1_000_000
    """Of environments and actions."""
    greedy: bool = False
    """Always take the likeliest action, instead of drawing one as in training."""

    def __post_init__(self) -> None:
        refuse_unbounded(self)
        if self.seconds is not None and not 0 < self.seconds <= DAY:
            raise UserError(f"seconds: got {self.seconds}, wanted more than 0, at most {DAY}")
        if self.seed < 0:
            raise UserError(f"seed: got {self.seed}, wanted 0 or more")
        if self.record is not None and self.record.suffix != ".mp4":
            raise UserError(f"record: got {str(self.record)!r}, wanted a name ending in .mp4")


def main(args: list[str], *, prog: str) -> None:
    """Show or record."""
    given = parse(WatchArgs, args, prog=prog)

    from prefrl.film import check_drawing, open_player, record
    from prefrl.loop.rundir import RunDir
    from prefrl.watch import show

    run = RunDir.existing(given.run)
    player, step = open_player(run, num_envs=1, seed=given.seed, greedy=given.greedy, whole=True)
    with closing(player.venv):
        check_drawing(player.venv.task)
        if given.record is not None:
            print(record(player, given.record, seconds=given.seconds))
        else:
            title = f"{player.venv.task.id} · step {step:,} · {given.run}"
            show(player, title=title, seconds=given.seconds)
