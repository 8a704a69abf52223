"""A run directory with answers in it, without the training behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from prefrl.config import TrainConfig
from prefrl.feedback import (
    Answer,
    Comparison,
    FeedbackStore,
    Provenance,
    Query,
    Ranking,
    Rating,
    Reply,
    Segment,
    answer_id,
)
from prefrl.loop.rundir import RunDir
from prefrl.recipes import recipe_for
from prefrl.rewards import RewardConfig

DOT = "prefrl/Dot-v0"
FAST = RewardConfig(dropout=0.0, lr=3e-3, batch=32, pretrain_epochs=20.0, keep=10)


def config(**settings: object) -> TrainConfig:
    return dataclasses.replace(recipe_for(DOT), **{"model": FAST, **settings})  # type: ignore[arg-type]


def dots(count: int, *, seed: int = 0, steps: int = 5, size: int = 4) -> list[Segment]:
    """Segments of random states; the true reward is the first entry less the second."""
    rng = np.random.default_rng(seed)
    made = []
    for t0 in range(count):
        x = rng.normal(size=(steps, size)).astype(np.float32)
        where = Provenance(task=DOT, seed=seed, policy_step=10, env=0, episode=0, t0=t0)
        made.append(
            Segment(
                observations=x,
                actions=np.zeros(steps, np.int64),
                true_reward=(x[:, 0] - x[:, 1]).astype(np.float64),
                ended=False,
                provenance=where,
                clip=b"",
            )
        )
    return made


def right(segments: list[Segment]) -> Reply:
    """What somebody says who knows the true returns: of one, two or more segments."""
    returns = [float(s.true_reward.sum()) for s in segments]
    if len(returns) == 1:
        return Rating(value=int(np.clip(round(5 + returns[0]), 1, 9)))
    if len(returns) == 2:
        return Comparison(choice="second" if returns[1] > returns[0] else "first")
    return Ranking(order=tuple((int(i),) for i in np.argsort(-np.array(returns))))


def answered(
    directory: Path, *, sizes: Iterable[int], rater: str = "ann", segments: list[Segment]
) -> Path:
    """Add queries about so many segments each, and right answers to them."""
    if not (directory / "labels.db").exists():
        RunDir.prepare(directory, config())
        FeedbackStore.create(directory, task=DOT, seed=0).close()
    queries, answers, shown_all, left = [], [], [], list(segments)
    for size in sizes:
        shown, left = left[:size], left[size:]
        form = {1: "rating", 2: "comparison"}.get(size, "ranking")
        query = Query(
            segments=tuple(s.id for s in shown),
            policy_step=10,
            reason="test",
            priority=0.0,
            form=form,  # type: ignore[arg-type]
            need=2,
        )
        id = answer_id(query.id, rater)
        answers.append(Answer(id=id, query=query.id, rater=rater, reply=right(shown)))
        queries.append(query)
        shown_all += shown
    with FeedbackStore.open(directory) as store:
        store.add_segments(shown_all)
        store.add_queries(queries)
        store.submit_many(answers)
    return directory
