"""One PPO phase: several epochs of minibatches over one rollout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.ppo.advantage import AdvantageOf, CriticAdvantage
from prefrl.ppo.gradient import GradientOf, normalise_advantage
from prefrl.ppo.loss import FIGURES, PPOConfig
from prefrl.ppo.rollout import Batch, Rollout


class PPO:
    """Trains a policy on rollouts.

    Args:
        gradient: of the objective on a minibatch; knows the policy.
        config: settings of the update.
        generator: draws the minibatches; on the CPU.
        rows: "steps" shuffles single steps (policies without memory), "sequences" keeps
            each row of the rollout whole (language models, recurrent policies).
        advantage: how advantages are estimated; None: from the critic, with `config.lam`.
    """

    def __init__(
        self,
        gradient: GradientOf,
        config: PPOConfig,
        *,
        generator: torch.Generator,
        rows: Literal["steps", "sequences"],
        advantage: AdvantageOf | None = None,
    ) -> None:
        self.gradient = gradient
        self.config = config
        self.generator = generator
        self.rows = rows
        self.advantage = advantage or CriticAdvantage(lam=config.lam)
        self.optimiser = torch.optim.Adam(
            gradient.parameters, lr=config.lr, eps=config.adam_eps, fused=True
        )

    def update(self, rollout: Rollout, *, progress: float) -> dict[str, float]:
        """Improve the policy on `rollout`.

        Args:
            rollout: reward terms already added.
            progress: 0 at the start of training, 1 at the end; anneals the step size and the
                entropy bonus.

        Returns:
            Means over the minibatches, under `ppo/...`; `ppo/first_ratio_deviation` is of the
            first one alone, where nothing has been learned yet, so that it should be 0.
        """
        lr = self._anneal(progress)
        batch = self._batch(rollout)
        entropy_coef = self._entropy_coef(progress, batch.mask.device)
        figures: list[Tensor] = []
        for index in self._minibatches(batch):
            figures.append(self.gradient(batch, index, entropy_coef=entropy_coef))
            self.optimiser.step()
            if self._moved_too_far(figures[-1]):
                break
        names, means = self.gradient.names, torch.stack(figures).mean(0).tolist()
        _check_finite(dict(zip(names, means, strict=True)), lr=lr)
        explained = _explained_variance(batch)
        return {
            **{f"ppo/{name}": mean for name, mean in zip(names, means, strict=True)},
            "ppo/first_ratio_deviation": figures[0][FIGURES.index("ratio_deviation")].item(),
            "ppo/explained_variance": explained,
            "ppo/lr": lr,
            "ppo/entropy_coef": entropy_coef.item(),
            "ppo/minibatches": float(len(figures)),
        }

    def _anneal(self, progress: float) -> float:
        lr = self.config.lr * _linear(progress, self.config.lr_end)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        return lr

    def _entropy_coef(self, progress: float, device: torch.device) -> Tensor:
        """Scalar; a tensor, so that no compiled function has it as a constant."""
        coef = self.config.entropy_coef * _linear(progress, self.config.entropy_end)
        return torch.tensor(coef, device=device)

    def _batch(self, rollout: Rollout) -> Batch:
        advantage = self.advantage(rollout)
        batch = Batch(
            inputs=rollout.inputs,
            mask=rollout.mask,
            logp=rollout.logp,
            value=rollout.value,
            advantage=advantage,
            returns=advantage + rollout.value,
        )
        if self.config.normalise == "rollout":
            batch = normalise_advantage(batch, centre=not self.advantage.centred)
        return batch.by_step() if self.rows == "steps" else batch

    def _minibatches(self, batch: Batch) -> Iterator[Tensor]:
        """Indices of the rows of each minibatch, epoch after epoch."""
        wanted = self.config.minibatches
        if wanted > len(batch):  # else some would be empty, and their means nan
            raise UserError(f"ppo.minibatches: got {wanted}, wanted at most {len(batch)} rows")
        for _ in range(self.config.epochs):
            order = torch.randperm(len(batch), generator=self.generator).to(batch.mask.device)
            # tensor_split, because chunk(4) of 6 rows gives 3 pieces
            yield from order.tensor_split(wanted)

    def _moved_too_far(self, figures: Tensor) -> bool:
        target = self.config.target_kl
        return target is not None and figures[FIGURES.index("approx_kl")].item() > target


def _linear(progress: float, end: float) -> float:
    """From 1 at the start of training to `end` at its end."""
    return end + (1 - end) * (1 - min(max(progress, 0.0), 1.0))


def _explained_variance(batch: Batch) -> float:
    """1 - Var(returns - value) / Var(returns): 1 a perfect critic, below 0 a harmful one."""
    returns, value = batch.returns[batch.mask], batch.value[batch.mask]
    return (1 - (returns - value).var() / returns.var().clamp_min(1e-12)).item()


def _check_finite(means: dict[str, float], *, lr: float) -> None:
    """After the update: to look at each minibatch would have a GPU wait for the CPU.

    Raises:
        UserError: the weights are lost; those of the last checkpoint are not.
    """
    lost = [name for name in ("loss", "grad_norm") if not math.isfinite(means.get(name, 0.0))]
    if lost:
        raise UserError(
            f"PPO: the {lost[0].replace('_norm', 'ient')} is {means[lost[0]]}, and so are the "
            f"weights: start a new run with a smaller ppo.lr (it was {lr:g}), or look for rewards "
            "that are far too large; answers and checkpoints of this one are whole"
        )
