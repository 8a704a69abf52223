"""What an ensemble would learn from an answer: by its own account, or because it is new."""

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
    """Optimistic return of the segments of each group, on average: mean and one deviation over
    members.

    Optimism in the face of uncertainty. Once a policy fails often and succeeds seldom, drawing
    at random asks about failures; what the model takes for success, rightly or wrongly, is what
    the policy is drawn to. On average, because beside a failure success teaches nothing.

    Args:
        returns: [E, S] raw return of each candidate segment under each member.
        groups: [n, K] indices into S.

    Returns:
        [n] in standard deviations of the candidates' returns; nan when E = 1.
    """
    mean, std = returns.mean(1, keepdim=True), returns.std(1, keepdim=True).clamp_min(1e-6)
    normalised = (returns - mean) / std
    return (normalised.mean(0) + normalised.std(0))[groups].mean(1)


def k_center(signatures: Tensor, covered: Tensor, count: int) -> Tensor:
    """Greedily the farthest from all that is covered or chosen (Sener and Savarese 2018).

    Before a reward model knows what success looks like it cannot ask about it; what looks unlike
    everything else it can.

    Args:
        signatures: [S, d] of the candidates; Euclidean distances are taken.
        covered: [C, d] of what has been asked about. None of it: the first one chosen is the
            farthest from the candidates' mean.
        count: at most S.

    Returns:
        [count] indices into S, in order of choice.
    """
    centres = covered if len(covered) else signatures.mean(0, keepdim=True)
    distance = torch.cdist(signatures, centres).amin(1)  # [S]
    chosen: list[int] = []
    while len(chosen) < min(count, len(signatures)):
        farthest = int(distance.argmax())
        chosen.append(farthest)
        new = (signatures - signatures[farthest]).norm(dim=1)
        # the mean is no segment: it covers nothing once there is a first one
        distance = new if len(chosen) == 1 and not len(covered) else torch.minimum(distance, new)
        distance[chosen] = -1.0
    return torch.tensor(chosen, dtype=torch.int64)
