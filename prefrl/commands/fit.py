"""`prefrl fit RUN`: a reward model from stored answers, without opening a window."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.config import read_toml
from prefrl.errors import UserError
from prefrl.loop.rundir import RunDir
from prefrl.rewards import RewardConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FitArgs:
    """Fit a new reward model to the answers of a run: pairs, rankings, ratings and edits.

    Defaults are the run's own: `prefrl fit RUN --help` shows them. Ctrl-C saves a checkpoint,
    and the same command goes on. Then: `prefrl train TASK --reward-model OUT`.
    """

    run: Positional[Path | None] = None
    """Run directory; it may still be training."""
    out: Path | None = None
    """Where the model goes. Default: beside the run, RUN-fit-ANSWERS."""
    updates: int | None = None
    """Gradient steps. Default: model.pretrain-epochs passes over the answers."""
    answers: int | None = None
    """Only the answers up to this number, in order of arrival. Default: all there are."""
    without: tuple[str, ...] = ()
    """Raters whose answers are left out; `prefrl raters RUN` says how well each one rates."""
    seed: int = 0
    """Draws weights and batches."""
    device: str = "auto"
    """"cpu", "cuda", or auto: cuda where there is one."""
    threads: int = 0
    """Threads for torch on the CPU; 0: all cores."""
    model: RewardConfig = field(default_factory=RewardConfig)
    """The reward model."""


def main(args: list[str], *, prog: str) -> None:
    """Read the options twice: first for the run, then with its settings as the defaults."""
    helpless = [arg for arg in args if arg not in ("-h", "--help")]
    first = parse(FitArgs, helpless, prog=prog, default=FitArgs())
    if first.run is None and helpless != args:
        parse(FitArgs, args, prog=prog, default=FitArgs())
    if first.run is None:
        raise UserError("no run: wanted `prefrl fit RUN`")
    model = read_toml(RunDir.existing(first.run).config).model
    given = parse(FitArgs, args, prog=prog, default=FitArgs(model=model))

    from prefrl.refit import fit

    fit(
        first.run,
        out=given.out,
        updates=given.updates,
        answers=given.answers,
        without=given.without,
        seed=given.seed,
        device=given.device,
        threads=given.threads,
        model=given.model,
    )
