"""Which pairs of segments to put to a rater."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from prefrl.config import QueryConfig
from prefrl.feedback import Query, Segment
from prefrl.rewards import RewardModel, disagreement, promise

PRIORITY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disagreement": disagreement,
    "promising": promise,
}
"""Strategy -> ([E, S] returns, [n, 2] pairs) -> [n]: the greatest are asked."""


def choose_queries(
    pool: Sequence[Segment],
    count: int,
    *,
    config: QueryConfig,
    model: RewardModel,
    policy_step: int,
    generator: np.random.Generator,
) -> list[tuple[Query, tuple[Segment, Segment]]]:
    """Choose `count` pairs from `pool`, or fewer when it holds fewer.

    Where the strategy chooses by the model, a share of `config.uniform_share` is drawn at random
    all the same: an ensemble does not disagree about what all its members overlook.

    Args:
        model: chooses once it is fitted; before, pairs are uniform.
    """
    chooses = config.strategy != "uniform" and model.fitted
    at_random = round(count * config.uniform_share) if chooses else count
    asked: list[tuple[Query, tuple[Segment, Segment]]] = []

    def ask(pairs: np.ndarray, priority: np.ndarray, reason: str) -> None:
        for (i, j), weight in zip(pairs, priority, strict=True):
            query = Query(
                segments=(pool[i].id, pool[j].id),
                policy_step=policy_step,
                reason=reason,
                priority=float(weight),
                need=config.need,
            )
            asked.append((query, (pool[i], pool[j])))

    pairs = draw_pairs(len(pool), at_random, generator)
    ask(pairs, np.zeros(len(pairs)), "uniform")
    if chooses:
        wanted = count - at_random
        candidates = draw_pairs(len(pool), wanted * config.candidates, generator)
        chosen = best_pairs(pool, candidates, wanted, model, PRIORITY[config.strategy])
        ask(*chosen, config.strategy)
    return asked


def best_pairs(
    pool: Sequence[Segment],
    pairs: np.ndarray,
    count: int,
    model: RewardModel,
    priority_of: Callable[[Tensor, Tensor], Tensor],
) -> tuple[np.ndarray, np.ndarray]:
    """Of the candidate `pairs` [n, 2], those of the highest priority.

    Returns:
        [count, 2] the pairs, [count] their priority, greatest first.
    """
    if not len(pairs):
        return pairs, np.zeros(0)
    appearing, rows = np.unique(pairs, return_inverse=True)
    returns = model.segment_returns([pool[i] for i in appearing])  # [E, appearing]
    index = torch.from_numpy(rows.reshape(-1, 2)).to(returns.device)
    priority = priority_of(returns, index).cpu().numpy()
    best = np.argsort(-priority, kind="stable")[:count]
    return pairs[best], priority[best]


def draw_pairs(size: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Distinct unordered pairs of distinct indices below `size`: [n, 2], n <= count.

    Every segment appears about equally often: pairs are read off shuffled decks.
    """
    if size < 2:
        return np.zeros((0, 2), dtype=np.int64)
    count = min(count, size * (size - 1) // 2)
    seen: dict[tuple[int, int], None] = {}
    while len(seen) < count:
        deck = generator.permutation(size)
        for a, b in deck[: size - size % 2].reshape(-1, 2):
            seen.setdefault((min(a, b), max(a, b)))
            if len(seen) == count:
                break
    pairs = np.array(list(seen), dtype=np.int64).reshape(-1, 2)
    swap = generator.random(len(pairs)) < 0.5
    pairs[swap] = pairs[swap, ::-1]
    return pairs
