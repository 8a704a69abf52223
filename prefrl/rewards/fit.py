"""Maximum-likelihood fitting of a reward model on what raters answered."""

from __future__ import annotations

import torch
from torch import Tensor

from prefrl.rewards.bank import Forms, LabelBank, LabelBatch, Steps
from prefrl.rewards.likelihood import (
    bradley_terry_loss,
    ranking_loss,
    rating_loss,
    tie_aware_accuracy,
)
from prefrl.rewards.model import RewardConfig, RewardModel
from prefrl.rewards.networks import StateReward

SMOOTHING = 0.98  # of the two losses that steer the L2 penalty
L2_RANGE = (1e-7, 1e-1)
CPU_CHUNK = 200  # frames per forward and backward: 1.5x the speed of 800 (caches)


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
        self.chunk = config.batch
        # [2, E] smoothed training and hold-out loss
        self.losses = torch.full((2, members), torch.nan, device=device)

    def fit(self, steps: int) -> dict[str, float]:
        """Take gradient steps, then anchor the normaliser on the labelled segments.

        Returns:
            Figures under `reward/...`; empty when there is nothing to fit on.
        """
        if steps <= 0 or len(self.bank) == 0:
            return {}
        labelled = self.bank.recent_segments(self.config.normaliser_segments)
        _anchor_inputs(self.model, labelled)
        self.model.network.train()
        self.chunk = self._comparisons_at_once()
        for _ in range(steps):
            self._step(self._draw())
        self.model.normalise_on(labelled.observation, labelled.action)
        return {**self._figures(), "reward/updates": float(steps)}

    def _comparisons_at_once(self) -> int:
        """All of a batch, except for pixels on a CPU; batch statistics are those of a chunk."""
        if self.model.device.type != "cpu" or self.model.spaces.kind != "pixels":
            return self.config.batch
        return max(CPU_CHUNK * self.config.stride // (2 * self.bank.segment_steps), 1)

    def _draw(self) -> Tensor:
        """[n] the labels of one batch."""
        n = min(self.config.batch, len(self.bank))
        order = torch.randperm(len(self.bank), generator=self.generator, device=self.model.device)
        return order[:n]

    def _step(self, index: Tensor) -> None:
        """One gradient step; a large batch is evaluated in chunks, gradients accumulated."""
        counts = self.bank.counts(index)  # [E, n]
        held_out = (counts == 0).float()
        weight = counts / counts.sum(1, keepdim=True).clamp_min(1)
        losses = torch.zeros_like(self.losses)  # [2, E]
        self.optimiser.zero_grad(set_to_none=True)
        for part in torch.arange(len(index), device=index.device).split(self.chunk):
            chunk = self._thinned(index[part])
            returns, energy = self._outputs(chunk)
            loss = label_loss(returns, chunk, error=self.config.error)  # [E, m]
            pull = self.config.output_penalty * energy * len(part) / len(index)
            ((loss * weight[:, part]).sum() + pull).backward()
            seen = torch.stack([chunk.counts, held_out[:, part]])
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

    @torch.no_grad()
    def holdout(self, recent: int) -> dict[str, float]:
        """Accuracy and cross-entropy on labels the answering members never saw.

        Args:
            recent: look at this many of the newest labels.

        Returns:
            `reward/holdout_accuracy` (of comparisons and of the pairs in rankings; ties take no
            part), `reward/holdout_cross_entropy` (nats a label, with the error term), and with
            ratings `reward/holdout_rating_correlation`; empty when no label is held out.
        """
        if not self.model.fitted or len(self.bank) == 0:
            return {}
        n = min(recent, len(self.bank))
        batch = self.bank.batch(torch.arange(len(self.bank) - n, len(self.bank)))
        raw = self.model.members(batch.steps.observation, batch.steps.action)
        returns = raw.view(-1, *batch.steps.shape).sum(-1)  # [E, S]
        judges = batch.counts == 0  # [E, n]
        judged = judges.any(0)
        if not judged.any():
            return {}
        if batch.forms is not None:
            return self._mixed_holdout(returns, batch, batch.forms, judges)
        first, second = returns.chunk(2, dim=1)
        difference = torch.where(judges, second - first, 0).sum(0)[judged]
        difference = difference / judges.sum(0)[judged]
        target = batch.target[judged]
        loss = bradley_terry_loss(difference, target, error=self.config.error)
        return {
            "reward/holdout_accuracy": tie_aware_accuracy(difference, target).item(),
            "reward/holdout_cross_entropy": loss.mean().item(),
        }

    def _mixed_holdout(
        self, returns: Tensor, batch: LabelBatch, forms: Forms, judges: Tensor
    ) -> dict[str, float]:
        """The same where not all labels are comparisons."""
        heard = judges.sum(0).clamp_min(1)  # [n]
        loss = label_loss(returns, batch, error=self.config.error)
        cross_entropy = (torch.where(judges, loss, 0).sum(0) / heard)[judges.any(0)].mean()
        judged = judges[..., None]  # [E, n, 1]
        mean = torch.where(judged, returns[:, forms.places], 0).sum(0) / heard[:, None]  # [n, K]
        difference, target = _implied_pairs(mean, batch.target, forms, judges.any(0))
        figures = {"reward/holdout_cross_entropy": cross_entropy.item()}
        if (target != 0.5).any():
            accuracy = tie_aware_accuracy(difference, target)
            figures["reward/holdout_accuracy"] = accuracy.item()
        rated = judges.any(0)[forms.ratings]
        values, scores = forms.values[rated].float(), mean[forms.ratings, 0][rated]
        if len(values) > 1 and values.std() > 0 and scores.std() > 0:
            correlation = torch.corrcoef(torch.stack([values, scores]))[0, 1]
            figures["reward/holdout_rating_correlation"] = correlation.item()
        return figures

    def state(self) -> dict[str, Tensor]:
        """L2 penalties and the losses that steer them; the optimiser is saved apart."""
        return {"l2": self.l2, "losses": self.losses}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.l2 = state["l2"].to(self.model.device)
        self.losses = state["losses"].to(self.model.device)


def label_loss(returns: Tensor, batch: LabelBatch, *, error: float) -> Tensor:
    """Negative log-likelihood of each label under each member, in nats: [E, n].

    Args:
        returns: [E, S] of the batch's segments.
        error: share of answers assumed to be drawn uniformly at random.
    """
    if batch.forms is None:
        first, second = returns.chunk(2, dim=1)
        difference = second - first
        return bradley_terry_loss(difference, batch.target.expand_as(difference), error=error)
    forms = batch.forms
    shown = returns[:, forms.places]  # [E, n, K]
    loss = torch.zeros_like(shown[..., 0])
    if len(forms.comparisons):
        pairs = shown[:, forms.comparisons]
        difference = pairs[..., 1] - pairs[..., 0]
        target = batch.target[forms.comparisons].expand_as(difference)
        compared = bradley_terry_loss(difference, target, error=error)
        loss = loss.index_add(1, forms.comparisons, compared)
    if len(forms.rankings):
        ranked = ranking_loss(shown[:, forms.rankings], forms.choices, error=error)
        loss = loss.index_add(1, forms.rankings, ranked)
    if len(forms.ratings):
        rated = rating_loss(shown[:, forms.ratings, 0], forms.values, error=error)
        loss = loss.index_add(1, forms.ratings, rated)
    return loss


def _implied_pairs(
    returns: Tensor, target: Tensor, forms: Forms, judged: Tensor
) -> tuple[Tensor, Tensor]:
    """Differences [m] and targets [m] of the judged comparisons and of the pairs in rankings.

    Args:
        returns: [n, K]
        target: [n]
        judged: [n] bool.
    """
    if returns.shape[1] == 1:  # ratings alone
        return returns.new_zeros(0), returns.new_zeros(0)
    pairs = forms.comparisons[judged[forms.comparisons]]
    differences, targets = [returns[pairs, 1] - returns[pairs, 0]], [target[pairs]]
    sure = forms.choices.weight == 1  # in ties nothing is chosen for sure
    row, m, other = (forms.choices.among & sure[..., None]).nonzero(as_tuple=True)
    chosen, label = forms.choices.chosen[row, m], forms.rankings[row]
    use = (chosen != other) & judged[label]
    label, chosen, other = label[use], chosen[use], other[use]
    differences.append(returns[label, chosen] - returns[label, other])
    targets.append(torch.ones_like(differences[-1]))
    return torch.cat(differences), torch.cat(targets)


def _anchor_inputs(model: RewardModel, labelled: Steps) -> None:
    """States are standardised by the labelled segments before the first fit, then for ever.

    Fixed, because moving inputs under a fitted network change its meaning.
    """
    network = model.network
    if model.fitted or not isinstance(network, StateReward):
        return
    x = network.features(labelled.observation, labelled.action)
    network.mean.copy_(x.mean(0))
    network.std.copy_(x.std(0).clamp_min(1e-2))
