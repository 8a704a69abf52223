"""Maximum-likelihood fitting of a reward model on what raters answered."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prefrl.rewards.bank import LabelBank, LabelBatch
from prefrl.rewards.holdout import held_out, label_loss
from prefrl.rewards.model import L2_RANGE, RewardConfig, RewardModel

SMOOTHING = 0.98  # of the two losses that steer the L2 penalty
CPU_CHUNK = {"pixels": 200, "states": 1600}
"""Steps per forward and backward: many more leave the caches."""

STEPS_AT_ONCE = 256  # whose stacked pixels as doubles are sixty megabytes


class RewardFitter:
    """Fits `model` on the labels of `bank` (Christiano et al. 2017, section 2.2.3).

    Every gradient step evaluates one batch with all members at once. A member's loss weighs
    each label by its bootstrap count; the labels it leaves out give its hold-out loss, and
    the ratio of the two moves the member's L2 penalty so that it stays in `l2_band`.

    Args:
        generator: draws batches and dropout masks; on the model's device.
    """

    def __init__(
        self,
        model: RewardModel,
        bank: LabelBank,
        config: RewardConfig,
        *,
        generator: torch.Generator,
    ) -> None:
        self.model, self.bank, self.config, self.generator = model, bank, config, generator
        self.optimiser = torch.optim.Adam(model.network.parameters(), lr=config.lr, fused=True)
        members, device = config.members, model.device
        self.l2 = torch.full((members,), config.l2, device=device)
        # [2, E] smoothed training and hold-out loss
        self.losses = torch.full((2, members), torch.nan, device=device)

    def fit(self, steps: int) -> dict[str, float]:
        """Take gradient steps, then anchor the normaliser on the labelled segments.

        Returns:
            Figures under `reward/...`; empty when there is nothing to fit on.
        """
        if steps <= 0 or len(self.bank) == 0:
            return {}
        config = self.config
        if not self.model.fitted:  # and never again: inputs that move change a network's meaning
            self.model.network.standardise_on(self._labelled())
        self.model.network.train()
        chunk = self._labels_at_once()
        for _ in range(steps):
            self._step(self._draw(), chunk=chunk)
        labelled = self.bank.recent_segments(config.normaliser_segments, stride=config.stride)
        self.model.normalise_on(labelled.observation, labelled.action)
        return {**self._figures(), "reward/updates": float(steps)}

    def _labelled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """[n, *obs] and [n, *act] of every segment in the bank, some segments at a time."""
        stride, ids = self.config.stride, self.bank.segment_ids
        some = max(STEPS_AT_ONCE * stride // self.bank.segment_steps, 1)
        for start in range(0, len(ids), some):
            part = ids[start : start + some]
            steps = self.bank.steps(part, stride=stride, offset=stride // 2)
            yield steps.observation, steps.action

    def _labels_at_once(self) -> int:
        """All of a batch, except on a CPU; batch statistics are those of a chunk."""
        if self.model.device.type != "cpu":
            return self.config.batch
        steps = CPU_CHUNK[self.model.spaces.kind]
        return max(steps * self.config.stride // (self.bank.widest * self.bank.segment_steps), 1)

    def _draw(self) -> Tensor:
        """[n] the labels of one batch."""
        n = min(self.config.batch, len(self.bank))
        order = torch.randperm(len(self.bank), generator=self.generator, device=self.model.device)
        return order[:n]

    def _step(self, index: Tensor, *, chunk: int) -> None:
        """One gradient step; evaluated `chunk` labels at a time, gradients accumulated."""
        counts = self.bank.counts(index)  # [E, n]
        held_out = (counts == 0).float()
        weight = counts / counts.sum(1, keepdim=True).clamp_min(1)
        losses = torch.zeros_like(self.losses)  # [2, E]
        self.optimiser.zero_grad(set_to_none=True)
        for part in torch.arange(len(index), device=index.device).split(chunk):
            batch = self._thinned(index[part])
            returns, energy = self._outputs(batch)
            loss = label_loss(returns, batch, error=self.config.error)  # [E, m]
            pull = self.config.output_penalty * energy * len(part) / len(index)
            ((loss * weight[:, part]).sum() + pull).backward()
            seen = torch.stack([batch.counts, held_out[:, part]])
            losses += (loss.detach() * seen).sum(-1)
        penalty = torch.stack([w.flatten(1).square().sum(1) for w in self._weights()]).sum(0)
        (self.l2 * penalty).sum().backward()
        self.optimiser.step()
        self._steer(losses / torch.stack([counts, held_out]).sum(-1))

    def _thinned(self, index: Tensor) -> LabelBatch:
        """The labels `index` with every `stride`-th step of their segments."""
        stride = self.config.stride
        offset = int(torch.randint(stride, (), generator=self.generator, device=self.model.device))
        return self.bank.batch(index, stride=stride, offset=offset)

    def _outputs(self, batch: LabelBatch) -> tuple[Tensor, Tensor]:
        """[E, S] returns of the batch's segments; mean squared output.

        The second is a scalar, summed over members.
        """
        dropout = self.generator if self.model.network.training else None
        steps = batch.steps
        raw = self.model.network(steps.observation, steps.action, dropout=dropout)
        returns = raw.view(-1, *steps.shape).mean(-1) * self.bank.segment_steps
        return returns, raw.square().mean(1).sum()

    def _steer(self, losses: Tensor) -> None:
        """Smooth [2, E] training and hold-out losses; move the penalties by their ratio."""
        known = torch.where(self.losses.isnan(), losses, self.losses)
        new = SMOOTHING * known + (1 - SMOOTHING) * losses
        self.losses = torch.where(losses.isnan(), known, new)
        ratio = self.losses[1] / self.losses[0]
        low, high = self.config.l2_band
        rate = self.config.l2_rate
        factor = torch.where(ratio > high, rate, torch.where(ratio < low, 1 / rate, 1.0))
        if self.config.l2:
            self.l2 = (self.l2 * factor).clamp(*L2_RANGE)

    def _weights(self) -> list[Tensor]:
        return self.model.network.member_weights()

    def _figures(self) -> dict[str, float]:
        train, held_out, l2 = torch.stack([*self.losses, self.l2]).mean(1).tolist()
        return {
            "reward/train_loss": train,
            "reward/holdout_loss": held_out,
            "reward/l2": l2,
            "reward/target_entropy": self.bank.target_entropy(),
            "reward/raw_mean": self.model.mean.mean().item(),
            "reward/raw_std": self.model.std.mean().item(),
        }

    def holdout(self, recent: int) -> dict[str, float]:
        """`HeldOut.figures` of so many of the newest labels; empty when none is held out."""
        if not self.model.fitted or len(self.bank) == 0:
            return {}
        first = max(len(self.bank) - recent, 0)
        newest, config = torch.arange(first, len(self.bank)), self.config
        found = held_out(self.model, self.bank, newest, error=config.error, stride=config.stride)
        return found.figures()

    def state(self) -> dict[str, Tensor]:
        """L2 penalties and the losses that steer them; the optimiser is saved apart."""
        return {"l2": self.l2, "losses": self.losses}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.l2 = state["l2"].to(self.model.device)
        self.losses = state["losses"].to(self.model.device)
