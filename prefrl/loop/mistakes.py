"""Answers that a reward model gets wrong, and how sure it is: by members that never saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from prefrl.feedback import Comparison, FeedbackStore, Label
from prefrl.rewards import RewardModel, bootstrap_counts, preference_probability

AT_ONCE = 32  # labels whose segments are in memory together
NEWEST = 500  # labels looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A comparison beside what the reward model says of it."""

    label: Label
    second: float
    """Probability that the second segment is preferred."""
    members: tuple[int, ...]
    """Who says so: those that never saw the answer, or all, where each has seen it."""
    held_out: bool
    """Did they never see it?"""

    @property
    def given(self) -> float:
        """Probability of the answer that was given; of a tie, that of either side."""
        place = self.label.comparison.preferred
        return 0.5 if place is None else self.second if place else 1 - self.second


def judge(model: RewardModel, store: FeedbackStore, labels: Sequence[Label]) -> list[Judged]:
    """What `model`, fitted to the answers of `store` or to some of them, says of comparisons."""
    compared = [x for x in labels if isinstance(x.reply, Comparison)]
    if not model.fitted:
        return []
    found = []
    for start in range(0, len(compared), AT_ONCE):
        found += _judge(model, store, compared[start : start + AT_ONCE])
    return found


def certain_mistakes(
    model: RewardModel, store: FeedbackStore, labels: Sequence[Label], *, count: int
) -> list[Judged]:
    """Of the newest decided comparisons those that it gets wrong, the surest first."""
    decided = [x for x in labels if _decided(x)][-NEWEST:]
    wrong = [x for x in judge(model, store, decided) if x.held_out and x.given < 0.5]
    return sorted(wrong, key=lambda x: x.given)[:count]


def _decided(label: Label) -> bool:
    return isinstance(label.reply, Comparison) and label.reply.preferred is not None


@torch.no_grad()
def _judge(model: RewardModel, store: FeedbackStore, labels: Sequence[Label]) -> list[Judged]:
    segments = {i: store.segment(i) for x in labels for i in x.segments}
    place = {i: n for n, i in enumerate(segments)}
    returns = model.segment_returns(list(segments.values())).cpu()  # [E, S]
    found = []
    for label in labels:
        first, second = (place[i] for i in label.segments)
        counts = bootstrap_counts(label.query.id, len(returns))
        judges = np.flatnonzero(counts == 0)
        by = judges if len(judges) else np.arange(len(returns))
        difference = (returns[by, second] - returns[by, first]).mean()
        probability = preference_probability(difference, error=model.config.error).item()
        members = tuple(by.tolist())
        seen = len(judges) == 0
        found.append(Judged(label=label, second=probability, members=members, held_out=not seen))
    return found
