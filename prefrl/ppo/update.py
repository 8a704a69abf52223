"""One PPO phase: several epochs of minibatches over one rollout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.ppo.gae import gae
from prefrl.ppo.loss import PPOConfig, ppo_loss
from prefrl.ppo.rollout import Batch, Policy, Rollout, masked_mean

FIGURES = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")


class PPO:
    """Trains a policy on rollouts.

    Args:
        policy: what to train.
        config: settings of the update.
        generator: draws the minibatches; on the CPU.
        rows: "steps" shuffles single steps (policies without memory), "sequences" keeps
            each row of the rollout whole (language models, recurrent policies).
        chunk: evaluate at most this many rows at a time and accumulate gradients, which
            changes no result beyond rounding. None: a whole minibatch at once.
    """

    def __init__(
        self,
        policy: Policy,
        config: PPOConfig,
        *,
        generator: torch.Generator,
        rows: Literal["steps", "sequences"],
        chunk: int | None = None,
    ) -> None:
        self.policy = policy
        self.config = config
        self.generator = generator
        self.rows = rows
        self.chunk = chunk
        self._parameters: list[Tensor] = list(policy.parameters())  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(
            self._parameters, lr=config.lr, eps=config.adam_eps, fused=True
        )

    def update(self, rollout: Rollout, *, progress: float) -> dict[str, float]:
        """Improve the policy on `rollout`.

        Args:
            rollout: reward terms already added.
            progress: 0 at the start of training, 1 at the end; anneals the step size.

        Returns:
            Means over the minibatches, under `ppo/...`.
        """
        lr = self._anneal(progress)
        batch = self._batch(rollout)
        figures: list[Tensor] = []
        for minibatch in self._minibatches(batch):
            figures.append(self._step(minibatch))
            if self._moved_too_far(figures[-1]):
                break
        means = torch.stack(figures).mean(0).tolist()
        explained = _explained_variance(batch)
        return {
            **{f"ppo/{name}": mean for name, mean in zip(FIGURES, means, strict=True)},
            "ppo/explained_variance": explained,
            "ppo/lr": lr,
            "ppo/minibatches": float(len(figures)),
        }

    def _anneal(self, progress: float) -> float:
        left = 1 - min(max(progress, 0.0), 1.0)
        lr = self.config.lr * (self.config.lr_end + (1 - self.config.lr_end) * left)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        return lr

    def _batch(self, rollout: Rollout) -> Batch:
        advantage = gae(
            rollout.reward,
            rollout.value,
            rollout.next_value,
            rollout.discount,
            rollout.trace,
            lam=self.config.lam,
        )
        batch = Batch(
            inputs=rollout.inputs,
            mask=rollout.mask,
            logp=rollout.logp,
            value=rollout.value,
            advantage=advantage,
            returns=advantage + rollout.value,
        )
        if self.config.normalise == "rollout":
            batch = _normalise_advantage(batch)
        return batch.by_step() if self.rows == "steps" else batch

    def _minibatches(self, batch: Batch) -> Iterator[Batch]:
        device, wanted = batch.mask.device, self.config.minibatches
        if wanted > len(batch):  # else some would be empty, and their means nan
            raise UserError(f"ppo.minibatches: got {wanted}, wanted at most {len(batch)} rows")
        for _ in range(self.config.epochs):
            order = torch.randperm(len(batch), generator=self.generator).to(device)
            # tensor_split, because chunk(4) of 6 rows gives 3 pieces
            for index in order.tensor_split(self.config.minibatches):
                minibatch = batch.rows(index)
                if self.config.normalise == "minibatch":
                    minibatch = _normalise_advantage(minibatch)
                yield minibatch

    def _step(self, minibatch: Batch) -> Tensor:
        """One gradient step; returns [6] the loss and its parts."""
        steps = minibatch.mask.sum()
        self.optimiser.zero_grad(set_to_none=True)
        figures = torch.zeros(len(FIGURES), device=minibatch.mask.device)
        for chunk in self._chunks(minibatch):
            now = self.policy.evaluate(chunk.inputs)
            loss = ppo_loss(now, chunk, steps=steps, config=self.config)
            loss.total.backward()
            figures += loss.figures()
        torch.nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        self.optimiser.step()
        return figures

    def _chunks(self, minibatch: Batch) -> Iterator[Batch]:
        if self.chunk is None or len(minibatch) <= self.chunk:
            yield minibatch
            return
        index = torch.arange(len(minibatch), device=minibatch.mask.device)
        for part in index.split(self.chunk):
            yield minibatch.rows(part)

    def _moved_too_far(self, figures: Tensor) -> bool:
        target = self.config.target_kl
        return target is not None and figures[FIGURES.index("approx_kl")].item() > target


def _normalise_advantage(batch: Batch) -> Batch:
    mean = masked_mean(batch.advantage, batch.mask)
    variance = masked_mean((batch.advantage - mean).square(), batch.mask)
    return replace(batch, advantage=(batch.advantage - mean) / (variance.sqrt() + 1e-8))


def _explained_variance(batch: Batch) -> float:
    """1 - Var(returns - value) / Var(returns): 1 a perfect critic, below 0 a harmful one."""
    returns, value = batch.returns[batch.mask], batch.value[batch.mask]
    return (1 - (returns - value).var() / returns.var().clamp_min(1e-12)).item()
