"""Rewards are a short explicit sum of terms, each of which logs itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from prefrl.agents import Experience
from prefrl.ppo import Rollout
from prefrl.rewards import RewardModel


class RewardTerm(Protocol):
    """One summand of the reward."""

    name: str

    def __call__(self, experience: Experience) -> Tensor:
        """[B, T]"""
        ...


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


def add_rewards(
    experience: Experience, terms: Sequence[RewardTerm]
) -> tuple[Rollout, dict[str, float]]:
    """The rollout with the sum of all terms as its reward, and each term's figures."""
    total = torch.zeros_like(experience.rollout.reward)
    figures: dict[str, float] = {}
    for term in terms:
        reward = term(experience)
        total = total + reward
        figures[f"reward/{term.name}_mean"] = reward.mean().item()
        figures[f"reward/{term.name}_std"] = reward.std().item()
    return replace(experience.rollout, reward=total), figures
