"""Segments and labels for the tests of rewards."""

from __future__ import annotations

import hashlib

import numpy as np

from prefrl.feedback import Comparison, Label, Provenance, Query, Segment
from prefrl.feedback.replies import Choice


def segment(observations: np.ndarray, true_reward: np.ndarray | None = None) -> Segment:
    """A segment of these observations [T, *obs]; equal ones are the same segment."""
    T = len(observations)
    return Segment(
        observations=observations,
        actions=np.zeros((T, 1), np.float32),
        true_reward=np.zeros(T) if true_reward is None else true_reward.astype(np.float64),
        ended=False,
        provenance=Provenance(task="Test", seed=0, policy_step=0, env=0, episode=0, t0=0),
        clip=b"",
    )


def states(*values: float) -> Segment:
    """A segment of one-dimensional states."""
    return segment(np.array(values, np.float32)[:, None])


def label(first: Segment, second: Segment, choice: Choice | None = None, *, step: int = 0) -> Label:
    """An answer; without a choice, that of a perfect oracle."""
    if choice is None:
        gain = second.true_reward.sum() - first.true_reward.sum()
        choice = "tie" if gain == 0 else "second" if gain > 0 else "first"
    query = Query(segments=(first.id, second.id), policy_step=step, reason="test", priority=0.0)
    reply = Comparison(choice=choice)
    return Label(seq=step + 1, id=query.id, query=query, rater="test", reply=reply)


def query_id(number: int) -> str:
    """64 hexadecimal digits that look like a query's id."""
    return hashlib.sha256(str(number).encode()).hexdigest()
