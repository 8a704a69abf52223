"""What an ensemble would learn from a comparison, by its own account."""

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


def promise(returns: Tensor, pairs: Tensor) -> Tensor:
    """Optimistic return of the better segment of each pair: mean and one deviation over members.

    Optimism in the face of uncertainty. Once a policy fails often and succeeds seldom, drawing
    at random asks about failures; what the model takes for success, rightly or wrongly, is what
    the policy is drawn to.

    Args:
        returns: [E, S] raw return of each candidate segment under each member.
        pairs: [n, 2] indices into S.

    Returns:
        [n] in standard deviations of the candidates' returns; nan when E = 1.
    """
    mean, std = returns.mean(1, keepdim=True), returns.std(1, keepdim=True).clamp_min(1e-6)
    normalised = (returns - mean) / std
    return (normalised.mean(0) + normalised.std(0))[pairs].amax(1)
