"""Rewards are a short explicit sum of terms, each of which logs itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from prefrl.ppo.rollout import Rollout

E_contra = TypeVar("E_contra", contravariant=True)


class HasRollout(Protocol):
    """Experience of any kind of behaviour."""

    @property
    def rollout(self) -> Rollout:
        """What PPO sees of it."""
        ...


H = TypeVar("H", bound=HasRollout)


class RewardTerm(Protocol[E_contra]):
    """One summand of the reward."""

    @property
    def name(self) -> str:
        """Under which it is logged."""
        ...

    def __call__(self, experience: E_contra, /) -> Tensor:
        """[B, T]"""
        ...


def add_rewards(experience: H, terms: Sequence[RewardTerm[H]]) -> tuple[Rollout, dict[str, float]]:
    """The rollout with the sum of all terms as its reward, and each term's figures."""
    rollout = experience.rollout
    total = torch.zeros_like(rollout.reward)
    figures: dict[str, float] = {}
    for term in terms:
        reward = term(experience)
        total = total + reward
        seen = reward[rollout.mask]
        figures[f"reward/{term.name}_mean"] = seen.mean().item()
        figures[f"reward/{term.name}_std"] = seen.std().item()
    return replace(rollout, reward=total), figures
