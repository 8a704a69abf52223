"""`prefrl eval RUN`: true return of a run's newest policy."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.config import refuse_unbounded
from prefrl.errors import UserError

MAX_ENVS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalArgs:
    """True return of a run's newest policy, over whole episodes in fresh environments."""

    run: Positional[Path]
    """Run directory."""
    episodes: int = 20
    """Episodes to play: more narrow the interval."""
    seed: int = 1_000_000
    """Of environments and actions; a run's own seed would start where it was trained."""
    whole: bool = False
    """Episodes as long as the task's own, where the run has shorter ones (env.horizon)."""
    greedy: bool = False
    """Always take the likeliest action, instead of drawing one as in training."""

    def __post_init__(self) -> None:
        refuse_unbounded(self)
        if self.episodes < 1:
            raise UserError(f"episodes: got {self.episodes}, wanted 1 or more")
        if self.seed < 0:
            raise UserError(f"seed: got {self.seed}, wanted 0 or more")


def main(args: list[str], *, prog: str) -> None:
    """Play and print."""
    given = parse(EvalArgs, args, prog=prog)

    from prefrl.film import open_player
    from prefrl.loop.play import episode_returns, estimate
    from prefrl.loop.rundir import RunDir

    run = RunDir.existing(given.run)
    player, step = open_player(
        run,
        num_envs=min(given.episodes, MAX_ENVS),
        seed=given.seed,
        greedy=given.greedy,
        whole=given.whole,
    )
    with closing(player.venv):
        result = estimate(episode_returns(player, episodes=given.episodes))
    how = "greedy" if given.greedy else "sampled"
    steps = player.venv.task.horizon
    print(
        f"{player.venv.task.id}, policy of step {step:,}, {how} actions, seed {given.seed}"
        + (f", episodes of {steps:,} steps" if steps else "")
    )
    if result.n == 1:
        print(f"true return {result.mean:.2f}   of one episode, which says nothing of others")
        return
    print(
        f"true return {result.mean:.2f}   std {result.std:.2f}   "
        f"95 % interval of the mean {result.low:.2f} to {result.high:.2f} (bootstrap)   "
        f"n {result.n}"
    )
