"""Ways to estimate advantages, chosen beside PPO: a critic's, or of completions of one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.ppo.gae import gae
from prefrl.ppo.rollout import Rollout


class AdvantageOf(Protocol):
    """How PPO asks for advantages."""

    centred: ClassVar[bool]
    """Is their mean 0, as it should be, before any normalising?"""

    def __call__(self, rollout: Rollout) -> Tensor:
        """[B, T]"""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticAdvantage:
    """Generalised advantage estimates from the critic's values."""

    centred: ClassVar[bool] = False
    lam: float
    """0 is low variance and trusts the critic, 1 is unbiased and noisy."""

    def __call__(self, rollout: Rollout) -> Tensor:
        return gae(
            rollout.reward,
            rollout.value,
            rollout.next_value,
            rollout.discount,
            rollout.trace,
            lam=self.lam,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAdvantage:
    """Rows compared with those that began alike, without a critic; the same at every step.

    With G the undiscounted sum of a row's rewards:

        rloo  G - mean of the others (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740)
        grpo  (G - mean) / standard deviation (Shao et al. 2024, arXiv:2402.03300)

    GRPO's division weighs an easy or hopeless group as much as an uncertain one; RLOO is
    unbiased.
    """

    centred: ClassVar[bool] = True  # each group; a group of equals says nothing, and stays 0
    kind: Literal["rloo", "grpo"]
    size: int
    """Rows of a group, which stand next to each other in the rollout."""

    def __post_init__(self) -> None:
        if self.size < 2:
            raise UserError(f"{self.kind}: got groups of {self.size}, wanted 2 or more to compare")

    def __call__(self, rollout: Rollout) -> Tensor:
        total = torch.where(rollout.mask, rollout.reward, 0.0).sum(1)
        if len(total) % self.size:
            raise UserError(
                f"{self.kind}: got {len(total)} rows, wanted a multiple of {self.size}, the rows "
                "of a group"
            )
        groups = total.view(-1, self.size)
        centred = groups - groups.mean(1, keepdim=True)
        if self.kind == "rloo":  # G - (sum - G) / (k - 1) = (G - mean) k / (k - 1)
            advantage = centred * (self.size / (self.size - 1))
        else:
            advantage = centred / (groups.std(1, keepdim=True) + 1e-6)
        return advantage.reshape(-1, 1).expand(rollout.reward.shape)
