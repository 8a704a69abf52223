"""What an ensemble would learn from a comparison, by its own account."""

from __future__ import annotations

import torch
from torch import Tensor

from prefrl.rewards.likelihood import preference_probability


def disagreement(returns: Tensor, groups: Tensor) -> Tensor:
    """Standard deviation over members of P(second preferred) (Christiano et al. 2017, 2.2.4).

    Of a ranking the mean over its pairs; of a rating the deviation of the return itself.

    Args:
        returns: [E, S] raw return of each candidate segment under each member.
        groups: [n, K] indices into S.

    Returns:
        [n]; nan when E = 1.
    """
    if groups.shape[1] == 1:
        return returns[:, groups[:, 0]].std(0)
    first, second = torch.combinations(torch.arange(groups.shape[1])).T  # [pairs] each
    difference = returns[:, groups[:, second]] - returns[:, groups[:, first]]  # [E, n, pairs]
    return preference_probability(difference, error=0.0).std(0).mean(-1)


def promise(returns: Tensor, groups: Tensor) -> Tensor:
    """Optimistic return of the best segment of each group: mean and one deviation over members.

    Optimism in the face of uncertainty. Once a policy fails often and succeeds seldom, drawing
    at random asks about failures; what the model takes for success, rightly or wrongly, is what
    the policy is drawn to.

    Args:
        returns: [E, S] raw return of each candidate segment under each member.
        groups: [n, K] indices into S.

    Returns:
        [n] in standard deviations of the candidates' returns; nan when E = 1.
    """
    mean, std = returns.mean(1, keepdim=True), returns.std(1, keepdim=True).clamp_min(1e-6)
    normalised = (returns - mean) / std
    return (normalised.mean(0) + normalised.std(0))[groups].amax(1)
