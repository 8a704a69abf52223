"""Which pairs of segments to put to a rater."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from prefrl.feedback import Query, Segment
from prefrl.rewards import RewardModel, disagreement


def choose_queries(
    pool: Sequence[Segment],
    count: int,
    *,
    strategy: str,
    candidates: int,
    model: RewardModel,
    policy_step: int,
    generator: np.random.Generator,
) -> list[tuple[Query, tuple[Segment, Segment]]]:
    """Choose `count` pairs from `pool`, or fewer when it holds fewer.

    Args:
        strategy: "uniform" draws pairs at random; "disagreement" draws `candidates` times as
            many and keeps those with the largest spread of predicted preference over the
            ensemble (Christiano et al. 2017, section 2.2.4). Facts of the field: the latter
            sometimes harms, so it is not the default.
        model: used by "disagreement" only; while it is unfitted, pairs are uniform.
    """
    chooses = strategy == "disagreement" and model.fitted
    pairs = draw_pairs(len(pool), count * (candidates if chooses else 1), generator)
    priority = np.zeros(len(pairs))
    if chooses:
        appearing, rows = np.unique(pairs, return_inverse=True)
        returns = model.segment_returns([pool[i] for i in appearing])  # [E, appearing]
        index = torch.from_numpy(rows.reshape(-1, 2)).to(returns.device)
        priority = disagreement(returns, index).cpu().numpy()
        best = np.argsort(-priority, kind="stable")[:count]
        pairs, priority = pairs[best], priority[best]
    reason = "disagreement" if chooses else "uniform"
    chosen = []
    for (i, j), weight in zip(pairs, priority, strict=True):
        query = Query(
            segments=(pool[i].id, pool[j].id),
            policy_step=policy_step,
            reason=reason,
            priority=float(weight),
        )
        chosen.append((query, (pool[i], pool[j])))
    return chosen


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
