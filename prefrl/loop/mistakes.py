"""Answers that a reward model gets wrong, and how sure it is: by members that never saw them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prefrl.feedback import Comparison, FeedbackStore, Label
from prefrl.loop.checkpoint import newest_checkpoint
from prefrl.loop.offline import SETTINGS, chosen_labels, read_fit
from prefrl.loop.rundir import RunDir
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


def learned_from(path: Path, store: FeedbackStore) -> set[int]:
    """`seq` of the answers of `store` that the reward model in `path` was fitted to.

    Args:
        path: directory of a run or of a fit, of any store; or a checkpoint of a run.
    """
    if path.parent.name == "checkpoints":
        path = path.parent.parent
    here = store.directory.resolve()
    if (path / SETTINGS).is_file():
        fit = read_fit(path)
        if here.name != Path(fit.run).resolve().name:  # which may have been moved as a whole
            return set()
        labels, _ = chosen_labels(store, answers=fit.answers, without=fit.without)
        return {label.seq for label in labels}
    if path.resolve() != here:
        return set()
    answers = {label.seq for label in store.labels(after=0)}
    checkpoint = newest_checkpoint(RunDir(path=path).checkpoints)
    if checkpoint is None:
        return answers
    state = json.loads((checkpoint / "state.json").read_text())
    taken_in = state.get("labels", [state["watermark"]])  # older checkpoints: all up to there
    fitted = taken_in[: max(len(taken_in) - state["unfitted"], 0)]
    newest = max(fitted, default=0)  # the bank has forgotten the oldest
    return {seq for seq in answers if seq <= newest}


def judge(
    model: RewardModel,
    store: FeedbackStore,
    labels: Sequence[Label],
    *,
    learned: Collection[int],
) -> list[Judged]:
    """What `model` says of comparisons.

    Args:
        learned: `seq` of the answers that it was fitted to, each by the members that its query's
            bootstrap has chosen.
    """
    compared = [x for x in labels if isinstance(x.reply, Comparison)]
    if not model.fitted:
        return []
    found = []
    for start in range(0, len(compared), AT_ONCE):
        found += _judge(model, store, compared[start : start + AT_ONCE], learned)
    return found


def certain_mistakes(
    model: RewardModel,
    store: FeedbackStore,
    labels: Sequence[Label],
    *,
    count: int,
    learned: Collection[int],
) -> list[Judged]:
    """Of the newest decided comparisons those that it gets wrong, the surest first."""
    decided = [x for x in labels if _decided(x)][-NEWEST:]
    judged = judge(model, store, decided, learned=learned)
    wrong = [x for x in judged if x.held_out and x.given < 0.5]
    return sorted(wrong, key=lambda x: x.given)[:count]


def _decided(label: Label) -> bool:
    return isinstance(label.reply, Comparison) and label.reply.preferred is not None


@torch.no_grad()
def _judge(
    model: RewardModel, store: FeedbackStore, labels: Sequence[Label], learned: Collection[int]
) -> list[Judged]:
    segments = {i: store.segment(i) for x in labels for i in x.segments}
    place = {i: n for n, i in enumerate(segments)}
    returns = model.segment_returns(list(segments.values())).cpu()  # [E, S]
    found = []
    for label in labels:
        first, second = (place[i] for i in label.segments)
        counts = bootstrap_counts(label.query.id, len(returns)) * (label.seq in learned)
        judges = np.flatnonzero(counts == 0)
        by = judges if len(judges) else np.arange(len(returns))
        difference = (returns[by, second] - returns[by, first]).mean()
        probability = preference_probability(difference, error=model.config.error).item()
        members = tuple(by.tolist())
        seen = len(judges) == 0
        found.append(Judged(label=label, second=probability, members=members, held_out=not seen))
    return found
