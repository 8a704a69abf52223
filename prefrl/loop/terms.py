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
            on straight lines, which end where an episode does.
    """

    name = "learned"

    def __init__(self, model: RewardModel, *, every: int = 1) -> None:
        self.model, self.every = model, every

    def __call__(self, experience: Experience) -> Tensor:
        observation, action = experience.observation, experience.action
        T, device = observation.shape[1], observation.device
        if min(self.every, T) == 1:
            return self.model.score_steps(observation, action)
        asked = torch.arange(0, T + self.every - 1, self.every, device=device).clamp(max=T - 1)
        rewards = self.model.score_steps(observation[:, asked], action[:, asked])
        return between(rewards, asked, experience.rollout.trace == 0)


def between(values: Tensor, at: Tensor, ends: Tensor) -> Tensor:
    """Straight lines through `values` [B, n] of the rising steps `at` [n] from 0 to T - 1: [B, T].

    Args:
        ends: [B, T] the last steps of episodes; across them the nearer side within an episode is
            repeated, as far as it has one.

    >>> ends = torch.tensor([[False, False, True, False]])
    >>> between(torch.tensor([[0.0, 2.0, 3.0]]), torch.tensor([0, 2, 3]), ends).tolist()
    [[0.0, 1.0, 2.0, 3.0]]
    >>> between(torch.tensor([[0.0, 3.0]]), torch.tensor([0, 3]), ends).tolist()
    [[0.0, 0.0, 0.0, 3.0]]
    """
    steps = torch.arange(ends.shape[1], device=at.device)
    right = torch.searchsorted(at, steps).clamp(min=1)
    left = right - 1
    share = (steps - at[left]) / (at[right] - at[left])  # [T]
    episode = ends.cumsum(1) - ends.long()  # [B, T]
    ours_left, ours_right = (episode == episode[:, at[side]] for side in (left, right))
    share = share.where(ours_left == ours_right, ours_right.to(share.dtype))  # [B, T]
    return values[:, left].lerp(values[:, right], share)


class TrueReward:
    """The hidden score itself: the baseline that learned rewards are measured against."""

    name = "true"

    def __call__(self, experience: Experience) -> Tensor:
        return torch.from_numpy(experience.true_reward).to(experience.rollout.reward)
