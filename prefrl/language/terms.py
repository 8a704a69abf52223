"""Reward terms of language: the score at the end, the KL penalty at every token.

With old_t the policy's log-probability of a token as it was said and ref_t the reference's:

    k1 = old - ref    k2 = k1^2 / 2    k3 = exp(-k1) - 1 + k1    (Schulman 2020)

Under the policy, k1 and k3 are unbiased for KL(policy || reference), and k1 in the reward gives
the gradient of that KL. Summed over a completion they are the KL of whole sequences, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.tokens import place_at_end
from prefrl.ppo import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class TextExperience:
    """What a policy said, and what policy, critic and reference think of it."""

    rollout: Rollout
    """Inputs are the `Completions`; the reward is still zero."""
    reference: Tensor
    """[B, T] log-probabilities of the reference policy; 0 at padding."""
    entropy: Tensor
    """[B, T] of the distribution each token was drawn from; 0 at padding."""
    ended: Tensor
    """[B] bool: said EOS before it was cut off."""
    prompts: tuple[str, ...]
    """[B] texts, each as often as it was answered."""
    completions: tuple[str, ...]
    """[B] texts, without EOS."""

    @property
    def k1(self) -> Tensor:
        """[B, T] log-ratio of policy and reference; 0 at padding."""
        return torch.where(self.rollout.mask, self.rollout.logp - self.reference, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the completion as a whole is worth, on its last token."""

    scores: Tensor
    """[B]"""
    name: str = "score"

    def __call__(self, experience: TextExperience) -> Tensor:
        return place_at_end(self.scores, experience.rollout.mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class KLPenalty:
    """-beta k1 at every token: to drift from the reference costs."""

    beta: float
    name: str = "kl_penalty"

    def __call__(self, experience: TextExperience) -> Tensor:
        return -self.beta * experience.k1


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingEOS:
    """What becomes of the score where a completion was cut off.

    "replace" puts `value` in its place (Ziegler et al. 2019 put -1); "subtract" takes `value`
    off; "keep" leaves it.
    """

    rule: Literal["replace", "subtract", "keep"]
    value: float

    def __call__(self, scores: Tensor, ended: Tensor) -> Tensor:
        """[B] scores, [B] bool -> [B]."""
        if self.rule == "keep":
            return scores
        without = torch.full_like(scores, self.value) if self.rule == "replace" else scores
        if self.rule == "subtract":
            without = scores - self.value
        return torch.where(ended, scores, without)


class Beta:
    """The weight of the KL penalty: fixed, or steered to a target (Ziegler et al. 2019, 2.2).

    Args:
        value: at the start.
        target: KL in nats per sequence to hold; None: fixed.
        horizon: episodes in which beta moves by about a factor e at most 1.2 per batch: longer
            is steadier and slower.
    """

    def __init__(self, value: float, *, target: float | None, horizon: int) -> None:
        self.value, self.target, self.horizon = value, target, horizon

    def observe(self, kl: float, *, episodes: int) -> None:
        """Steer by the mean KL per sequence of `episodes` completions."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.value *= 1 + error * min(episodes / self.horizon, 1.0)  # or it may turn negative


def checked_scores(scores: Any, *, rows: int, device: torch.device) -> Tensor:
    """A user's rewards as [B].

    Raises:
        UserError: of another number than the completions, or not finite.
    """
    values = torch.as_tensor(scores, dtype=torch.float32, device=device).detach()
    if values.shape != (rows,):
        raise UserError(
            f"rewards: got the shape {tuple(values.shape)}, wanted ({rows},): "
            "one number for each completion"
        )
    wrong = (~values.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise UserError(
            f"rewards: got {values[wrong[0]].item()} for completion {wrong[0]} (and {len(wrong)} "
            "of them in all), wanted finite numbers; nothing has been updated"
        )
    return values


def whitened(rollout: Rollout) -> Tensor:
    """[B, T] rewards with deviation 1 over the real tokens and their mean as it was."""
    reward, mask = rollout.reward, rollout.mask
    seen = reward[mask]
    mean, deviation = seen.mean(), seen.std(correction=0)
    scaled = (reward - mean) * (1 / (deviation + 1e-8)) + mean
    return torch.where(mask, scaled, 0.0)


def kl_figures(experience: TextExperience) -> dict[str, float]:
    """Three estimates of KL(policy || reference), in nats per sequence, and k1 per token."""
    k1, mask = experience.k1, experience.rollout.mask
    k3 = torch.where(mask, torch.exp(-k1) - 1 + k1, 0.0)
    sums = torch.stack([k1.sum(1), 0.5 * k1.square().sum(1), k3.sum(1)])
    means = sums.mean(1).tolist()
    error = sums[0].std().item() / math.sqrt(len(k1)) if len(k1) > 1 else math.nan
    return {
        "lm/kl": means[0],
        "lm/kl_standard_error": error,
        "lm/kl_k2": means[1],
        "lm/kl_k3": means[2],
        "lm/kl_per_token": (k1.sum() / mask.sum()).item(),
    }


def speech_figures(experience: TextExperience, scores: Tensor) -> dict[str, float]:
    """What was said, in numbers: [B] scores before the missing-EOS rule."""
    rollout = experience.rollout
    lengths = rollout.mask.sum(1).float()
    return {
        "lm/score": scores.mean().item(),
        "lm/score_std": scores.std().item() if len(scores) > 1 else 0.0,
        "lm/reward": torch.where(rollout.mask, rollout.reward, 0.0).sum(1).mean().item(),
        "lm/entropy": (experience.entropy.sum() / rollout.mask.sum()).item(),
        "lm/ended": experience.ended.float().mean().item(),
        "lm/length": lengths.mean().item(),
    }


def texts_of(values: Sequence[str]) -> tuple[str, ...]:
    """Texts as a record holds them.

    Raises:
        UserError: one text where a sequence of them was wanted.
    """
    if isinstance(values, str):
        raise UserError(f"prompts: got the text {values[:20]!r}, wanted a sequence of texts")
    return tuple(values)
