"""How well a reward model explains answers that it was not fitted on.

Each member leaves some labels out of its bootstrap for ever (`bootstrap_counts`), so each label
is judged by the members that never saw it: Christiano et al. 2017's hold-out (section 2.2.3),
averaged over the ensemble as out-of-bag estimates are (Breiman 1996).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prefrl.rewards.bank import Forms, LabelBank, LabelBatch
from prefrl.rewards.likelihood import (
    bradley_terry_loss,
    ranking_loss,
    rating_loss,
    tie_aware_accuracy,
)
from prefrl.rewards.model import RewardModel

AT_ONCE = 64  # labels: the stacked pixels of thousands would be gigabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Labels beside the returns given by members that never saw them."""

    difference: Tensor
    """[m] second less first, of comparisons and of the pairs in rankings."""
    target: Tensor
    """[m] 1 second preferred, 0 first, 0.5 a tie; or a probability."""
    loss: Tensor
    """[n] nats of each label, with the error term."""
    values: Tensor
    """[r] ratings."""
    scores: Tensor
    """[r] returns of what was rated."""

    def figures(self) -> dict[str, float]:
        """`reward/holdout_accuracy` (ties take no part), `reward/holdout_cross_entropy` (nats a
        label), and with ratings `reward/holdout_rating_correlation`; what there is nothing to
        measure on is left out.
        """
        found = {}
        if len(self.loss):
            found["reward/holdout_cross_entropy"] = self.loss.mean().item()
        if (self.target != 0.5).any():
            accuracy = tie_aware_accuracy(self.difference, self.target)
            found["reward/holdout_accuracy"] = accuracy.item()
        if len(self.values) > 1 and self.values.std() > 0 and self.scores.std() > 0:
            both = torch.stack([self.values, self.scores])
            found["reward/holdout_rating_correlation"] = torch.corrcoef(both)[0, 1].item()
        return found


@torch.no_grad()
def held_out(
    model: RewardModel, bank: LabelBank, index: Tensor, *, error: float, stride: int = 1
) -> HeldOut:
    """The labels `index` [n] of `bank` that some member never saw.

    Args:
        error: share of answers assumed to be drawn uniformly at random.
        stride: n, of their segments every n-th step is read and stands for all, as in fits.
    """
    parts = [_part(model, bank, some, error, stride) for some in index.split(AT_ONCE)]
    return HeldOut(
        **{name: torch.cat([getattr(p, name) for p in parts]) for name in HeldOut.__slots__}
    )


def _part(model: RewardModel, bank: LabelBank, index: Tensor, error: float, stride: int) -> HeldOut:
    batch = bank.batch(index, stride=stride, offset=stride // 2)
    raw = model.members(batch.steps.observation, batch.steps.action)
    returns = raw.view(-1, *batch.steps.shape).mean(-1) * bank.segment_steps  # [E, S]
    judges = batch.counts == 0  # [E, n]
    judged = judges.any(0)
    forms, places = batch.forms, _places(batch)
    heard = judges.sum(0).clamp_min(1)[:, None]
    mean = torch.where(judges[..., None], returns[:, places], 0).sum(0) / heard  # [n, K]
    loss = _loss_of_means(mean, batch, error)[judged]
    if forms is None:
        none = mean.new_zeros(0)
        difference, target = (mean[:, 1] - mean[:, 0])[judged], batch.target[judged]
        return HeldOut(difference=difference, target=target, loss=loss, values=none, scores=none)
    difference, target = _implied_pairs(mean, batch.target, forms, judged)
    rated = judged[forms.ratings]
    return HeldOut(
        difference=difference,
        target=target,
        loss=loss,
        values=forms.values[rated].float(),
        scores=mean[forms.ratings, 0][rated],
    )


def _places(batch: LabelBatch) -> Tensor:
    """[n, K] where each label's segments are among those of `batch.steps`."""
    if batch.forms is not None:
        return batch.forms.places
    n = len(batch.target)
    return torch.arange(2 * n, device=batch.target.device).view(2, n).T


def _loss_of_means(mean: Tensor, batch: LabelBatch, error: float) -> Tensor:
    """[n] loss of each label, given one return [n, K] for each of its segments."""
    if batch.forms is None:
        return label_loss(mean.T.reshape(1, -1), batch, error=error)[0]
    own = torch.arange(mean.numel(), device=mean.device).view(mean.shape)
    forms = replace(batch.forms, places=own)
    return label_loss(mean.view(1, -1), replace(batch, forms=forms), error=error)[0]


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


def held_out_returns(model: RewardModel, bank: LabelBank, ids: Sequence[str]) -> Tensor:
    """Mean normalised return of each segment by the members that saw no label about it: [S].

    nan where every member has seen one.
    """
    found = []
    for start in range(0, len(ids), AT_ONCE):
        some = list(ids[start : start + AT_ONCE])
        steps = bank.steps(some)
        raw = model.members(steps.observation, steps.action)
        normalised = (raw - model.mean[:, None]) / model.std[:, None]
        returns = normalised.view(-1, *steps.shape).sum(-1)  # [E, S]
        judges = bank.segment_counts(some) == 0
        found.append(torch.where(judges, returns, 0).sum(0) / judges.sum(0))
    return torch.cat(found)


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
