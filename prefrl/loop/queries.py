"""Which segments to put to a rater, and together with which."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prefrl.config import QueryConfig
from prefrl.feedback import Query, Segment, form_of
from prefrl.rewards import RewardModel, disagreement, k_center, promise

CELL = 6  # pixels; cells of 2 to 12 find as much
PRIORITY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disagreement": disagreement,
    "promising": promise,
}
"""Strategy -> ([E, S] returns, [n, K] groups) -> [n]: the greatest are asked."""


def choose_queries(
    pool: Sequence[Segment],
    count: int,
    *,
    config: QueryConfig,
    model: RewardModel,
    policy_step: int,
    generator: np.random.Generator,
    covered: Sequence[Segment] = (),
) -> list[tuple[Query, tuple[Segment, ...]]]:
    """Choose `count` groups of `config.segments` from `pool`, or fewer when it holds fewer.

    Where strategies share the queries, priorities are ranks within what each chose: people who
    answer a part of them answer the best of each, in its share. Else the newest come first.

    Args:
        model: chooses once it is fitted; before, `config.first` says how.
        covered: what has been asked about before the first fit.
    """
    K = config.segments
    asked: list[tuple[Query, tuple[Segment, ...]]] = []
    parts = shares(count, config, fitted=model.fitted)
    for strategy, n in parts:
        if strategy == "k_center":
            groups = unlike_groups(pool, n, K, covered, generator)
        elif strategy == "uniform":
            groups = draw_groups(len(pool), K, n, generator)
        else:
            candidates = draw_groups(len(pool), K, n * config.candidates, generator)
            about = (model, PRIORITY[strategy])
            groups = best_groups(pool, candidates, n, *about, spread=config.spread)
        for place, group in enumerate(groups):
            segments = tuple(pool[i] for i in group)
            query = Query(
                segments=tuple(segment.id for segment in segments),
                policy_step=policy_step,
                reason=strategy,
                priority=1 - (place + 0.5) / len(groups) if len(parts) > 1 else 0.0,
                need=config.need,
                form=form_of(K),
            )
            asked.append((query, segments))
    return asked


def shares(count: int, config: QueryConfig, *, fitted: bool) -> list[tuple[str, int]]:
    """Which strategy chooses how many of `count` groups.

    Where it chooses by the model, a share of `config.uniform_share` is drawn at random all the
    same: an ensemble does not disagree about what all its members overlook.

    >>> shares(8, QueryConfig(strategy="promising", uniform_share=0.25), fitted=True)
    [('uniform', 2), ('promising', 6)]
    """
    if not fitted:
        return [(config.first, count)]
    if config.strategy == "uniform":
        return [("uniform", count)]
    at_random = round(count * config.uniform_share)
    return [("uniform", at_random), (config.strategy, count - at_random)]


def best_groups(
    pool: Sequence[Segment],
    groups: np.ndarray,
    count: int,
    model: RewardModel,
    priority_of: Callable[[Tensor, Tensor], Tensor],
    *,
    spread: int = 1,
) -> np.ndarray:
    """Of the candidate `groups` [n, K], the `count` of the highest priority: [count, K].

    Args:
        spread: from so many times as many of them, those whose best segments move the least alike.

    Returns:
        The highest first.
    """
    if not len(groups):
        return groups
    appearing, rows = np.unique(groups, return_inverse=True)
    seen = [pool[i] for i in appearing]
    returns = model.segment_returns(seen, stride=model.config.stride)  # [E, appearing]
    index = torch.from_numpy(rows.reshape(groups.shape)).to(returns.device)
    priority = priority_of(returns, index).cpu().numpy()
    best = np.argsort(-priority, kind="stable")[: count * spread]
    if spread > 1:
        mean = returns.mean(0)[index].cpu().numpy()  # [n, K]
        first = groups[best, mean[best].argmax(1)]  # [count * spread]
        moved = in_deviations(movement([pool[i] for i in first]))
        best = best[np.sort(k_center(moved, moved[:0], count).numpy())]
    return groups[best]


def unlike_groups(
    pool: Sequence[Segment],
    count: int,
    K: int,
    covered: Sequence[Segment],
    generator: np.random.Generator,
) -> np.ndarray:
    """`count` groups of `K` segments of the pool, none of them twice: [n, K], n <= count.

    Half of each group, or one more, move the least like each other and `covered`; the rest is drawn
    at random. Of odd ones alone a model would not learn what the ordinary is worth.
    """
    count = min(count, len(pool) // K)
    if not count:
        return np.zeros((0, K), dtype=np.int64)
    moved = in_deviations(movement([*pool, *covered]), of=len(pool))
    odd = k_center(moved[: len(pool)], moved[len(pool) :], count * -(-K // 2)).numpy()
    ordinary = np.setdiff1d(np.arange(len(pool)), odd)
    ordinary = generator.choice(ordinary, count * (K // 2), replace=False)
    shuffled = [generator.permutation(x).reshape(count, -1) for x in (odd, ordinary)]
    return generator.permuted(np.concatenate(shuffled, 1), axis=1)


def movement(segments: Sequence[Segment]) -> Tensor:
    """How far every number that is observed moves in the course of each segment: [n, d].

    Of pixels, how far the brightness of the newest frame does, the most in each cell.
    """
    seen = [s.observations for s in segments]
    if seen[0].ndim == 4:  # [T, H, W, C] stacked frames
        moved = torch.from_numpy(np.stack([np.ptp(x[..., -1], axis=0) for x in seen]))
        return F.max_pool2d(moved[:, None].float(), CELL, ceil_mode=True).flatten(1)
    return torch.from_numpy(np.stack([np.ptp(x, axis=0) for x in seen])).float().flatten(1)


def in_deviations(moved: Tensor, *, of: int | None = None) -> Tensor:
    """[n, d] -> the same in deviations of the first `of` rows: what moves seldom counts for much.

    >>> in_deviations(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[0.7071067690849304, 0.0], [2.1213202476501465, 0.0]]
    """
    std = moved[:of].std(0)
    return moved * torch.where(std > 0, 1 / std, 0.0)


def draw_groups(size: int, K: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Distinct groups of K distinct indices below `size`, in any order: [n, K], n <= count.

    Every segment appears about equally often: groups are read off shuffled decks.
    """
    count = min(count, math.comb(size, K))
    seen: dict[tuple[int, ...], None] = {}
    while len(seen) < count:
        deck = generator.permutation(size)
        for group in deck[: size - size % K].reshape(-1, K):
            seen.setdefault(tuple(sorted(map(int, group))))
            if len(seen) == count:
                break
    groups = np.array(list(seen), dtype=np.int64).reshape(-1, K)
    return generator.permuted(groups, axis=1)
