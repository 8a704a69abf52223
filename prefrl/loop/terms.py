"""The reward terms of games and robots."""

from __future__ import annotations

import torch
from torch import Tensor

from prefrl.agents import Experience
from prefrl.rewards import RewardModel


class LearnedReward:
    """What the reward model says: one batched forward per rollout.

    Args:
        every: n, the model is asked at every n-th step and at the last; between them rewards lie
            on straight lines.
    """

    name = "learned"

    def __init__(self, model: RewardModel, *, every: int = 1) -> None:
        self.model, self.every = model, every

    def __call__(self, experience: Experience) -> Tensor:
        observation, action = experience.observation, experience.action
        T, device = observation.shape[1], observation.device
        if self.every == 1 or self.every >= T:
            return self.model.score_steps(observation, action)
        asked = torch.arange(0, T + self.every - 1, self.every, device=device).clamp(max=T - 1)
        rewards = self.model.score_steps(observation[:, asked], action[:, asked])
        return between(rewards, asked, T)


def between(values: Tensor, at: Tensor, T: int) -> Tensor:
    """Straight lines through [B, n] `values` `at` [n] rising steps from 0 to T - 1: [B, T].

    >>> between(torch.tensor([[0.0, 2.0, 3.0]]), torch.tensor([0, 2, 3]), 4).tolist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    steps = torch.arange(T, device=at.device)
    right = torch.searchsorted(at, steps).clamp(min=1)
    left = right - 1
    share = (steps - at[left]) / (at[right] - at[left])
    return values[:, left].lerp(values[:, right], share)


class TrueReward:
    """The hidden score itself: the baseline that learned rewards are measured against."""

    name = "true"

    def __call__(self, experience: Experience) -> Tensor:
        return torch.from_numpy(experience.true_reward).to(experience.rollout.reward)
