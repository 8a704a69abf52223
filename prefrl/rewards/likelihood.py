"""Likelihoods of answers, given the returns of the segments that were compared.

Bradley and Terry 1952; Luce 1959 and Plackett 1975; the rater's error rate stands inside the
likelihood (Christiano et al. 2017, section 2.2.3), which is not label smoothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
        target: [...] 1 second preferred, 0 first, 0.5 a tie.
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
        target: [n] 1, 0 or 0.5.

    Returns:
        scalar; nan when every comparison is a tie.
    """
    decided = target != 0.5
    right = ((difference > 0) == (target > 0.5)).float()
    return torch.where(difference == 0, 0.5, right)[decided].mean()
