"""What one PPO update needs, as [B, T] tensors.

Axes, here and everywhere: B sequences or environments, T steps or tokens, K segments in a
query, E ensemble members, V vocabulary, *obs one observation, *act one action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class Inputs(Protocol):
    """What the policy reads, opaque to PPO: leaves of shape [B, T, ...]."""

    def rows(self, index: Tensor) -> Self:
        """The sequences `index` [n] of the leading axis: [n, T, ...]."""
        ...

    def by_step(self) -> Self:
        """Every step a sequence of its own: [B * T, 1, ...]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The policy's present opinion of what was done."""

    logp: Tensor
    """[n, T] log-probability of the action or token taken."""
    entropy: Tensor
    """[n, T] entropy of the distribution it was drawn from."""
    value: Tensor
    """[n, T] V(s_t)."""


class Policy(Protocol):
    """Anything PPO can train."""

    def evaluate(self, inputs: Any) -> Evaluation:
        """Log-probability, entropy and value of `inputs`, with gradients."""
        ...

    def parameters(self) -> object:
        """The tensors to train, as `torch.nn.Module.parameters`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Behaviour of one policy, with everything an update needs.

    One environment, three steps, a time limit after the second:

        reward     [[ 0.1, 0.3, 0.2 ]]
        value      [[ 1.0, 1.1, 0.7 ]]
        next_value [[ 1.1, 0.9, 0.8 ]]    0.9 = V(final observation), not V of the reset state
        discount   [[ .99, .99, .99 ]]    0 where the task really terminated
        trace      [[ 1.0, 0.0, 1.0 ]]    0 where the next row belongs to another episode
    """

    inputs: Inputs
    """[B, T, ...] opaque."""
    mask: Tensor
    """[B, T] bool: False for padding, which no loss may see."""
    logp: Tensor
    """[B, T] log-probability of what was done, when it was done."""
    value: Tensor
    """[B, T] V(s_t), when it was done."""
    reward: Tensor
    """[B, T] the sum of the reward terms; zero until they are added."""
    next_value: Tensor
    """[B, T] V of the state that really followed s_t."""
    discount: Tensor
    """[B, T] gamma, or 0 after termination."""
    trace: Tensor
    """[B, T] 1 where step t + 1 continues step t, else 0."""

    def __post_init__(self) -> None:
        shape = self.reward.shape
        for name in ("mask", "logp", "value", "next_value", "discount", "trace"):
            got = getattr(self, name).shape
            assert got == shape, f"Rollout.{name}: got {tuple(got)}, wanted {tuple(shape)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of a rollout with their targets: what the loss reads."""

    inputs: Inputs
    """[n, T, ...] opaque."""
    mask: Tensor
    """[n, T] bool."""
    logp: Tensor
    """[n, T] under the policy that acted."""
    value: Tensor
    """[n, T] under the critic that watched."""
    advantage: Tensor
    """[n, T]"""
    returns: Tensor
    """[n, T] advantage + value, the critic's target."""

    def rows(self, index: Tensor) -> Batch:
        """The sequences `index` [m]."""
        return self._map(self.inputs.rows(index), lambda x: x[index])

    def by_step(self) -> Batch:
        """Every step a row of its own, [B * T, 1]: for policies without memory."""
        return self._map(self.inputs.by_step(), lambda x: x.reshape(-1, 1))

    def _map(self, inputs: Inputs, of) -> Batch:  # type: ignore[no-untyped-def]
        return Batch(
            inputs=inputs,
            mask=of(self.mask),
            logp=of(self.logp),
            value=of(self.value),
            advantage=of(self.advantage),
            returns=of(self.returns),
        )

    def __len__(self) -> int:
        return len(self.mask)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over mask; `torch.where`, because nan * 0 is nan."""
    return torch.where(mask, x, 0.0).sum() / mask.sum()
