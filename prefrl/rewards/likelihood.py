"""Likelihoods of answers, given the returns of the segments that were compared.

Bradley and Terry 1952; Luce 1959 and Plackett 1975; the rater's error rate stands inside the
likelihood (Christiano et al. 2017, section 2.2.3), which is not label smoothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

RATINGS = 9


def preference_probability(difference: Tensor, *, error: float) -> Tensor:
    """P(second preferred) = (1 - error) sigmoid(difference) + error / 2.

    Args:
        difference: [...] return of the second segment minus that of the first.
        error: share of answers assumed to be drawn uniformly at random.
    """
    return (1 - error) * torch.sigmoid(difference) + error / 2


def bradley_terry_loss(difference: Tensor, target: Tensor, *, error: float) -> Tensor:
    """Negative log-likelihood of each comparison, in nats.

    Args:
        difference: [...] return of the second segment minus that of the first.
        target: [...] 1 second preferred, 0 first, 0.5 a tie; or a probability.
        error: share of answers assumed to be drawn uniformly at random.

    Returns:
        [...]; its floor for a tie is log 2.
    """
    if error == 0:
        return F.binary_cross_entropy_with_logits(difference, target, reduction="none")
    second = preference_probability(difference, error=error).log()
    first = preference_probability(-difference, error=error).log()
    return -(target * second + (1 - target) * first)


def plackett_luce_loss(ranked: Tensor) -> Tensor:
    """Negative log-likelihood of each ranking, in nats.

    Args:
        ranked: [..., K] returns in the order the rater chose, best first.

    Returns:
        [...] -sum_k (s_k - logsumexp_{j >= k} s_j); Bradley-Terry when K = 2.
    """
    remaining = ranked.flip(-1).logcumsumexp(-1).flip(-1)
    return (remaining - ranked).sum(-1)


def tie_aware_accuracy(difference: Tensor, target: Tensor) -> Tensor:
    """Share of decided comparisons whose sign is right; ties take no part.

    A difference of exactly 0 is half right, whichever side the rater took.

    Args:
        difference: [n] return of the second segment minus that of the first.
        target: [n] 1, 0 or 0.5; or a probability, of which the likelier side is right.

    Returns:
        scalar; nan when every comparison is a tie.
    """
    decided = target != 0.5
    right = ((difference > 0) == (target > 0.5)).float()
    return torch.where(difference == 0, 0.5, right)[decided].mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """A ranking as a weighted sum of choices of the best out of what is left."""

    among: Tensor
    """[..., M, K] bool: what could be chosen."""
    chosen: Tensor
    """[..., M] int64: what was."""
    weight: Tensor
    """[..., M]; 0 pads."""

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        return replace(
            self,
            among=self.among.to(device),
            chosen=self.chosen.to(device),
            weight=self.weight.to(device),
        )


def ranking_choices(order: Sequence[Sequence[int]]) -> Choices:
    """The choices behind a ranking, best first, where inner sequences are ties.

    A tie is the mean over all orders of its segments, so that a tie of two is the comparison
    with target 1/2 and every segment of a tie is pulled to the same return.

    >>> made = ranking_choices([(2,), (0, 1)])
    >>> made.chosen.tolist(), made.weight.tolist()  # 2 of all three, then either of the rest
    ([2, 0, 1], [1.0, 0.5, 0.5])
    """
    K = sum(len(group) for group in order)
    rest = set(range(K))
    found = []
    for group in order:
        rest -= set(group)
        for size in range(len(group), 0, -1):
            if size + len(rest) == 1:
                continue  # the last one is no choice
            subsets = list(combinations(sorted(group), size))
            for left in subsets:
                found += [(set(left) | rest, i, 1 / (len(subsets) * size)) for i in left]
    return Choices(
        among=torch.tensor([[k in among for k in range(K)] for among, _, _ in found]),
        chosen=torch.tensor([i for _, i, _ in found]),
        weight=torch.tensor([w for _, _, w in found]),
    )


def stack_choices(choices: Sequence[Choices], *, places: int) -> Choices:
    """[r, M, K] of r rankings, with as many choices as the largest has, and K = `places`."""
    M = max((len(one.weight) for one in choices), default=0)
    among = torch.zeros((len(choices), M, places), dtype=torch.bool)
    among[..., 0] = True  # a padded choice is a certain one, of weight 0
    chosen = torch.zeros((len(choices), M), dtype=torch.int64)
    weight = torch.zeros((len(choices), M))
    for row, one in enumerate(choices):
        m, K = one.among.shape
        among[row, :m] = False
        among[row, :m, :K], chosen[row, :m], weight[row, :m] = one.among, one.chosen, one.weight
    return Choices(among=among, chosen=chosen, weight=weight)


def ranking_loss(returns: Tensor, choices: Choices, *, error: float) -> Tensor:
    """Negative log-likelihood of each ranking (Plackett-Luce), in nats.

    Bradley-Terry with ties and error when K = 2, `plackett_luce_loss` without either.

    Args:
        returns: [..., K] in the order of the query; padded places are never among the choices.
        error: share of choices assumed to be drawn uniformly at random.

    Returns:
        [...]
    """
    open_ones = returns.unsqueeze(-2).masked_fill(~choices.among, -torch.inf)  # [..., M, K]
    log_p = open_ones.log_softmax(-1).gather(-1, _like(choices.chosen, open_ones))[..., 0]
    if error:
        at_random = error / choices.among.sum(-1)
        log_p = ((1 - error) * log_p.exp() + at_random).log()
    return -(choices.weight * log_p).sum(-1)


def rating_loss(returns: Tensor, value: Tensor, *, error: float) -> Tensor:
    """Negative log-likelihood of each rating of 1 to 9: an ordered logit (McCullagh 1980).

        P(rating <= k) = sigmoid(k - 4.5 - return),   k = 1..8

    The thresholds are fixed, one apart and centred, where McCullagh fits them: a step of the
    scale is then worth what it is in comparisons, in which a segment that is better by 1 is
    preferred by 73 : 27. A rating of 5 stands for a return of 0, which fixes the mean that
    comparisons leave open. That all raters use the scale alike is assumed, not fitted.

    Args:
        returns: [...]
        value: [...] 1 to 9.
        error: share of ratings assumed to be drawn uniformly at random.
    """
    value = value.to(returns.dtype)
    upper = torch.where(value >= RATINGS, torch.inf, value - RATINGS / 2 - returns)
    lower = torch.where(value <= 1, -torch.inf, value - 1 - RATINGS / 2 - returns)
    # log(sigmoid(upper) - sigmoid(lower)) without losing the tails
    log_p = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log1p(-torch.exp(lower - upper))
    if error:
        log_p = ((1 - error) * log_p.exp() + error / RATINGS).log()
    return -log_p


def _like(chosen: Tensor, scores: Tensor) -> Tensor:
    return chosen.expand(scores.shape[:-1]).unsqueeze(-1)
