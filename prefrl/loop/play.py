"""Runs a trained policy: for `prefrl eval`, `prefrl watch` and the final video."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from prefrl.agents import ControlPolicy, few_threads, make_policy, restore_policy
from prefrl.config import TrainConfig
from prefrl.errors import UserError
from prefrl.loop.checkpoint import newest_checkpoint
from prefrl.loop.rundir import RunDir
from prefrl.pixels import from_planes

RESAMPLES = 10_000


class Player:
    """Acts in a vector environment, one step after another.

    Args:
        venv: made for playing; training keeps its own.
        policy: not changed.
        seed: draws the actions where they are drawn.
        greedy: always the likeliest action, instead of drawing one as in training.
    """

    def __init__(
        self,
        venv: Any,
        policy: ControlPolicy,
        *,
        device: torch.device,
        seed: int,
        greedy: bool,
    ) -> None:
        self.venv, self.policy, self.device, self.greedy = venv, policy, device, greedy
        self._generator = torch.Generator(device=device)
        self._generator.manual_seed(seed)
        self._played = 0
        self.restart()

    def restart(self) -> None:
        """Start every environment anew, elsewhere than before."""
        self._see(self.venv.reset_at(self._played))

    def advance(self, steps: int) -> int:
        """Play `steps` steps; returns how many there had been since the restart."""
        start = int(self.venv.steps_since_reset)
        for _ in range(steps):
            self.step()
        return start

    @torch.no_grad()
    def step(self) -> None:
        """One step everywhere; what it brought is in `venv.score`."""
        with few_threads(self.venv.num_envs):
            prepared = self.policy.prepare(self._observation)
            decision = self.policy.act(prepared, generator=self._generator, greedy=self.greedy)
        self._see(self.venv.step(decision.action.cpu().numpy())[0])
        self._played += 1

    def _see(self, observation: np.ndarray) -> None:
        """Pixels [B, C, H, W] become channels-last [B, H, W, C], as the policies take them."""
        if observation.ndim == 4:
            self._observation = from_planes(observation, self.device)
        else:
            self._observation = torch.from_numpy(np.ascontiguousarray(observation)).to(self.device)


def load_policy(
    run: RunDir, config: TrainConfig, venv: Any, *, device: torch.device
) -> tuple[ControlPolicy, int]:
    """The policy of the newest whole checkpoint, and its step.

    Raises:
        UserError: there is no checkpoint yet.
    """
    path = newest_checkpoint(run.checkpoints)
    if path is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: the first one comes after "
            f"{config.checkpoint_every:,} steps (checkpoint_every), or when the run is stopped"
        )
    policy = make_policy(
        venv.single_observation_space,
        venv.single_action_space,
        config.policy,
        device=device,
        generator=torch.Generator(),
    )
    restore_policy(policy, load_file(path / "policy.safetensors"))
    return policy, _step_of(path)


def episode_returns(player: Player, *, episodes: int) -> np.ndarray:
    """True returns of `episodes` whole episodes: [episodes].

    Every environment plays a fixed share of them: to stop at the first ones that end would
    favour short episodes.
    """
    B = player.venv.num_envs
    share = np.full(B, episodes // B) + (np.arange(B) < episodes % B)
    done: list[list[float]] = [[] for _ in range(B)]
    while any(len(played) < wanted for played, wanted in zip(done, share, strict=True)):
        player.step()
        score = player.venv.score
        for env in np.flatnonzero(score.episode_length):
            done[env].append(float(score.episode_return[env]))
    kept = [played[:wanted] for played, wanted in zip(done, share, strict=True)]
    return np.concatenate(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and how far to trust it."""

    mean: float
    std: float
    """Of single values, with n - 1; 0 where there is one."""
    low: float
    """Bottom of the 95 % interval of the mean."""
    high: float
    """Its top."""
    n: int


def estimate(values: np.ndarray) -> Estimate:
    """Mean, deviation, and a percentile bootstrap interval (Efron 1979); values: [n].

    >>> e = estimate(np.array([1.0, 1.0, 1.0]))
    >>> (e.mean, e.std, e.low, e.high, e.n)
    (1.0, 0.0, 1.0, 1.0, 3)
    """
    n = len(values)
    rng = np.random.default_rng(0)
    means = [values[rng.integers(n, size=n)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if n > 1 else 0.0,
        low=float(low),
        high=float(high),
        n=n,
    )


def _step_of(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "state.json").read_text())["step"])
