"""Small segments and stores for the tests of feedback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prefrl.feedback import FeedbackStore, Oracle, OracleContext, Provenance, Query, Segment

CONTEXT = OracleContext(return_spread=1.0, mean_segment_return=0.0)


def segment(rewards: Sequence[float] = (1.0, 2.0), *, t0: int = 0, ended: bool = False) -> Segment:
    """A segment of states; `t0` tells apart those of equal rewards."""
    T = len(rewards)
    return Segment(
        observations=np.arange(2 * T, dtype=np.float32).reshape(T, 2),
        actions=np.arange(T, dtype=np.int64),
        true_reward=np.array(rewards, dtype=np.float64),
        ended=ended,
        provenance=Provenance(task="Dot", seed=7, policy_step=128, env=3, episode=2, t0=t0),
        clip=b"recipe \x00 of %d" % t0,
    )


def pixels(T: int = 3, C: int = 4) -> Segment:
    """A segment of stacked frames."""
    frames = np.random.default_rng(0).integers(0, 256, (T + C - 1, 5, 6), dtype=np.uint8)
    window = np.lib.stride_tricks.sliding_window_view(frames, C, axis=0)
    return Segment(
        observations=np.ascontiguousarray(window),
        actions=np.zeros(T, dtype=np.int64),
        true_reward=np.array([0.1, -1e300, 5e-324])[:T],
        ended=True,
        provenance=Provenance(task="ALE/Pong-v5", seed=0, policy_step=1, env=0, episode=0, t0=0),
        clip=b"",
    )


def pair(
    first: Sequence[float], second: Sequence[float], *, step: int = 0
) -> tuple[Query, tuple[Segment, Segment]]:
    """A query about two segments with these true rewards."""
    a, b = segment(first, t0=0), segment(second, t0=1)
    return ask(a, b, step=step), (a, b)


def ask(first: Segment, second: Segment, *, step: int = 0, need: int = 1) -> Query:
    """A query about two segments."""
    ids = (first.id, second.id)
    return Query(segments=ids, policy_step=step, reason="uniform", priority=0.0, need=need)


def choice(
    oracle: Oracle,
    first: Sequence[float],
    second: Sequence[float],
    context: OracleContext = CONTEXT,
    *,
    step: int = 0,
) -> str:
    """What `oracle` says of two segments with these true rewards."""
    query, segments = pair(first, second, step=step)
    return oracle.answer(query, segments, context).reply.choice


def filled(
    directory: Path, queries: int = 3, *, need: int = 1
) -> tuple[FeedbackStore, list[Query]]:
    """A new store with that many queries, about segments of their own."""
    store = FeedbackStore.create(directory, task="Dot", seed=7)
    segments = [segment((float(i), 0.5), t0=i) for i in range(2 * queries)]
    asked = [
        ask(segments[2 * i], segments[2 * i + 1], step=100 * i, need=need) for i in range(queries)
    ]
    store.add_segments(segments)
    store.add_queries(asked)
    return store, asked
