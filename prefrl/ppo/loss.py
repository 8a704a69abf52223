"""The clipped PPO objective (Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.ppo.rollout import Batch, Evaluation

FIGURES = (
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "ratio",
    "ratio_deviation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOConfig:
    """Settings of the policy update."""

    gamma: float = 0.99
    """Discount per step: higher looks further ahead and is noisier."""
    lam: float = 0.95
    """GAE trade-off: lower trusts the critic more, higher is less biased."""
    lr: float = 2.5e-4
    """Adam's step size at the start."""
    lr_end: float = 0.0
    """Step size at the end of training, as a fraction of `lr`; linear in between."""
    epochs: int = 4
    """Passes over each rollout: more reuse per step, and staler data."""
    minibatches: int = 4
    """Gradient steps per epoch."""
    clip: float = 0.1
    """The ratio may move this far from 1 before its gradient is cut."""
    value_clip: float | None = None
    """The same for the critic, in units of value; None: not clipped."""
    value_coef: float = 0.5
    """Weight of the critic's loss."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus at the start: higher explores more and settles later."""
    entropy_end: float = 1.0
    """The same at the end of training, as a fraction of `entropy_coef`; linear in between. What
    finds a reward at first may keep the policy from settling on it later."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    adam_eps: float = 1e-5
    """Adam's epsilon (1e-5 in the published Atari and MuJoCo settings)."""
    normalise: Literal["minibatch", "rollout", "none"] = "minibatch"
    """Over which steps advantages get mean 0 and standard deviation 1; those of groups, which are
    centred, root mean square 1."""
    target_kl: float | None = None
    """Skip the rest of the epochs once the approximate KL exceeds this; None: never."""

    def __post_init__(self) -> None:
        for name in ("lr", "epochs", "minibatches", "clip", "max_grad_norm", "adam_eps"):
            if not getattr(self, name) > 0:
                raise UserError(f"ppo.{name}: got {getattr(self, name)}, wanted more than 0")
        for name in ("gamma", "lam", "lr_end", "entropy_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"ppo.{name}: got {getattr(self, name)}, wanted 0 to 1")
        for name in ("value_coef", "entropy_coef"):
            if not getattr(self, name) >= 0:
                raise UserError(f"ppo.{name}: got {getattr(self, name)}, wanted 0 or more")
        for name in ("value_clip", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"ppo.{name}: got {value}, wanted more than 0, or none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The objective and its parts, scalars; sums over rows divided by `steps`."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    """k3 estimate of KL(old || new) (Schulman 2020, "Approximating KL divergence")."""
    clip_fraction: Tensor
    ratio: Tensor
    """Mean of new over old probability."""
    ratio_deviation: Tensor
    """Mean distance of that ratio from 1: 0 as long as nothing has been learned."""

    def figures(self) -> Tensor:
        """[8] all parts in the order of `FIGURES`, detached, for one transfer off the device."""
        parts = (self.total, self.policy, self.value, self.entropy, self.approx_kl)
        more = (self.clip_fraction, self.ratio, self.ratio_deviation)
        return torch.stack([x.detach() for x in (*parts, *more)])


def ppo_loss(
    now: Evaluation, batch: Batch, *, steps: Tensor, entropy_coef: Tensor, config: PPOConfig
) -> Loss:
    """Clipped surrogate + value loss - entropy bonus.

    Args:
        now: the policy's present opinion of `batch`, each [n, T].
        batch: what was done, with advantages already normalised, each [n, T].
        steps: scalar, the number of unmasked steps of the whole minibatch. A minibatch
            that is evaluated in several chunks then sums to exactly its own mean.
        entropy_coef: scalar, the weight of the entropy bonus by now.
    """

    def real(x: Tensor) -> Tensor:
        # before products and powers: behind them, padding's gradient is 0 * nan
        return torch.where(batch.mask, x, 0.0)

    def mean(x: Tensor) -> Tensor:
        return real(x).sum() / steps

    advantage, log_ratio = real(batch.advantage), real(now.logp - batch.logp)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    policy = mean(torch.maximum(-advantage * ratio, -advantage * clipped))

    error = real(now.value - batch.returns).square()
    if config.value_clip is not None:
        near = batch.value + (now.value - batch.value).clamp(-config.value_clip, config.value_clip)
        error = torch.maximum(error, real(near - batch.returns).square())
    value = 0.5 * mean(error)

    entropy = mean(now.entropy)
    total = policy + config.value_coef * value - entropy_coef * entropy
    with torch.no_grad():
        approx_kl = mean(ratio - 1 - log_ratio)
        away = (ratio - 1).abs()
        clip_fraction = mean((away > config.clip).float())
    return Loss(
        total=total,
        policy=policy,
        value=value,
        entropy=entropy,
        approx_kl=approx_kl,
        clip_fraction=clip_fraction,
        ratio=mean(ratio.detach()),
        ratio_deviation=mean(away),
    )
