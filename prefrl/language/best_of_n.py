"""Best of n: draw n completions and keep the one that the learned reward likes most.

From N samples a prompt the expected reward of the best of n is estimated for every n up to N at
once, without bias (Nakano et al. 2021, arXiv:2112.09332, appendix I).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prefrl.errors import UserError


def best_of_n(learned: np.ndarray, wanted: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Expected `wanted` of the completion that is best by `learned`, for each n.

    The i-th worst of N samples is the best of n with probability C(i - 1, n - 1) / C(N, n). Among
    equals each is chosen equally often, so that they count by their mean.

    Args:
        learned: [P, N] learned rewards of N samples for each of P prompts.
        wanted: [P, N] what is asked about: gold rewards, say, or the learned ones again.
        sizes: [n] values of n, 1 to N.

    Returns:
        [P, n]

    >>> best_of_n(np.array([[1.0, 3.0, 2.0]]), np.array([[10.0, 30.0, 20.0]]), [1, 2, 3]).tolist()
    [[20.0, 26.666666666666664, 30.0]]
    """
    N = learned.shape[1]
    if not sizes or not all(1 <= n <= N for n in sizes):
        raise UserError(f"n: got {list(sizes)}, wanted 1 to {N}, the samples of a prompt")
    weights = np.array([_chances(n, N) for n in sizes])  # [n, N]
    order = learned.argsort(1, kind="stable")
    ranked = np.take_along_axis(_mean_of_equals(learned, wanted), order, 1)
    found: np.ndarray = ranked @ weights.T
    return found


def _chances(n: int, N: int) -> list[float]:
    """[N] that the i-th worst is the best of n."""
    return [math.comb(i - 1, n - 1) / math.comb(N, n) for i in range(1, N + 1)]


def _mean_of_equals(learned: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    means = np.empty(wanted.shape, dtype=np.float64)
    for row in range(len(learned)):
        _, group = np.unique(learned[row], return_inverse=True)
        total = np.bincount(group, weights=wanted[row])
        means[row] = (total / np.bincount(group))[group]
    return means


def best_of_n_kl(n: int) -> float:
    """KL(best of n || one sample) = log n - (n - 1) / n nats, where no two samples are equal.

    With ties, as among short completions, it is an upper bound.

    >>> round(best_of_n_kl(16), 3)
    1.835
    """
    return math.log(n) - (n - 1) / n


def choose_best(learned: Tensor, *, n: int) -> Tensor:
    """[B * n] learned rewards, n in a row for each prompt -> [B] indices of the best ones."""
    best = learned.view(-1, n).argmax(1)
    return best + torch.arange(len(best), device=best.device) * n
