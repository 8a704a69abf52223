"""Our environments for stable-baselines3 with the true reward shown: the baseline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from prefrl.loop.metrics import EpisodeStats
from prefrl.loop.state import spaces_of
from prefrl.sb3 import LearnedRewardVecEnv


class TrueRewardVecEnv(LearnedRewardVecEnv):
    """As `LearnedRewardVecEnv`, but the reward is the environment's own.

    `curve` gathers (step, mean true return over the last 100 episodes), as our metrics do.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env, SimpleNamespace(spaces=spaces_of(env), fitted=True))  # type: ignore[arg-type]
        self.steps = 0
        self.episodes = EpisodeStats()
        self.curve: list[tuple[int, float]] = []

    def step_wait(self) -> Any:
        out = super().step_wait()
        score = self.env.score  # type: ignore[attr-defined]
        self.steps += self.num_envs
        whole = score.episode_length > 0
        if whole.any():
            self.episodes.add(
                score.episode_return[whole].tolist(), score.episode_length[whole].tolist()
            )
            self.curve.append((self.steps, self.episodes.mean_return()))
        return out

    def _reward(self, observation: np.ndarray) -> np.ndarray:
        return self.env.score.true_reward.astype(np.float32)  # type: ignore[attr-defined]
