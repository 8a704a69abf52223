"""How unsure an ensemble is about a comparison."""

from __future__ import annotations

from torch import Tensor

from prefrl.rewards.likelihood import preference_probability


def disagreement(returns: Tensor, pairs: Tensor) -> Tensor:
    """Standard deviation over members of P(second preferred) (Christiano et al. 2017, 2.2.4).

    Args:
        returns: [E, S] raw return of each candidate segment under each member.
        pairs: [n, 2] indices into S.

    Returns:
        [n]; nan when E = 1.
    """
    difference = returns[:, pairs[:, 1]] - returns[:, pairs[:, 0]]
    return preference_probability(difference, error=0.0).std(0)
