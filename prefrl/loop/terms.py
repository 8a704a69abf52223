"""The reward terms of games and robots."""

from __future__ import annotations

import torch
from torch import Tensor

from prefrl.agents import Experience
from prefrl.rewards import RewardModel


class LearnedReward:
    """What the reward model says: one batched forward per rollout."""

    name = "learned"

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    def __call__(self, experience: Experience) -> Tensor:
        return self.model.score_steps(experience.observation, experience.action)


class TrueReward:
    """The hidden score itself: the baseline that learned rewards are measured against."""

    name = "true"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, experience: Experience) -> Tensor:
        reward = torch.from_numpy(experience.true_reward).to(experience.rollout.reward)
        return self.scale * reward
