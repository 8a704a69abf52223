"""What raters are asked, what they have answered, and what is due by when."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from prefrl.config import TrainConfig
from prefrl.feedback import (
    FeedbackStore,
    Label,
    LabelSchedule,
    Oracle,
    OracleContext,
    Query,
    Segment,
)
from prefrl.loop.metrics import EpisodeStats
from prefrl.loop.recorder import Recorder
from prefrl.rewards import LabelBank, RewardModel

LONGEST_WAIT = 0.5  # share of a run after which the first queries are asked of what there is
FIRST_CHOICE = 0.05  # share of a run that may pass while the first queries' candidates gather


class Asking:
    """Queries go out, answers come in, and both are counted; `step` is where the run stands.

    Args:
        rater: a synthetic rater who answers at once, or None where people answer in their own
            time, through the store.
        schedule: how many labels are due by which step.
        store: owned by the caller.
        recorder: its pool is what may be asked about.
        bank: takes in what has been answered.
        model: once it is fitted, labels come by the schedule; the first ones are waited for.
        episodes: what B-Pref's raters compare with.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        rater: Oracle | None,
        schedule: LabelSchedule,
        store: FeedbackStore,
        recorder: Recorder,
        bank: LabelBank,
        model: RewardModel,
        episodes: EpisodeStats,
    ) -> None:
        self.config, self.rater, self.schedule, self.store = config, rater, schedule, store
        self.recorder, self.bank, self.model, self.episodes = recorder, bank, model, episodes
        self.labels_used = 0
        self.unfitted = 0
        """Of those, the ones that no fit has seen."""
        self.watermark = 0
        """Of the store: up to where its changes have been read."""
        self.still_asked = 0
        """Answers that people are asked for and have not given."""
        self.asked: set[str] = set()
        """Queries of this course of the run, where a synthetic rater answers."""
        self.next_session = 0
        """Step before which nothing is asked once the model is fitted."""
        self._just_asked: dict[str, Segment] = {}
        self._passed_over: list[Label] = []

    def labels_due(self, step: int) -> int:
        """Labels the schedule wants by now, over the whole run.

        All of them once no later session fits into the run: this one asks for the rest.
        """
        last = step + self.config.queries.every > self.config.steps
        return self.config.labels if last else self.schedule.due(step)

    def queries_wanted(self, step: int) -> int:
        """How many more to ask by now: what is due, less answers and what people are asked."""
        missing = self.labels_due(step) - self.labels_used - self.still_asked
        return max(math.ceil(missing / self.config.queries.need), 0)

    def session_due(self, step: int) -> bool:
        """Is it time to put queries to the rater?"""
        if not self.config.asks or self.queries_wanted(step) == 0:
            return False
        if step < self.next_session and (self.model.fitted or not self.unfitted):
            return False  # before the first fit what is missing is asked at once, unless all is
        return self.model.fitted or self._enough_to_choose_from(step)

    def _enough_to_choose_from(self, step: int) -> bool:
        """Before the first fit: is there behaviour enough for the first queries?"""
        queries, held = self.config.queries, len(self.recorder.pool)
        if step >= LONGEST_WAIT * self.config.steps:  # of a short run
            return held >= queries.segments
        least = min(queries.segments * self.labels_due(step), queries.pool)
        if queries.first == "uniform" or step >= FIRST_CHOICE * self.config.steps:
            return held >= least
        return held >= min(queries.candidates * least, queries.pool)

    def waits(self, step: int) -> bool:
        """Do people have to answer first? What is asked before the first fit, always."""
        if self.rater or not self.config.asks or self.still_asked == 0:
            return False
        strict = self.config.schedule == "strict" or not self.model.fitted
        return strict and self.labels_used < self.labels_due(step)

    def fit_due(self, step: int) -> bool:
        """Are there enough new labels for the reward model to be worth changing?

        People's answers trickle in. The first fit waits for all that are due, and so does each one
        where the run waits for people; otherwise they are taken a batch at a time, and the last.
        """
        if not self.unfitted:
            return False
        if self.rater:
            return True
        complete = self.labels_used >= self.labels_due(step)
        if not self.model.fitted:
            return complete
        if self.config.schedule == "strict" and complete:
            return True
        return self.unfitted >= self.config.model.batch or step >= self.config.steps

    def covered(self) -> list[Segment]:
        """What has been answered about before the first fit: seldom anything."""
        if self.model.fitted:
            return []
        return [self.store.segment(i) for i in self.bank.segment_ids]

    def fit_steps(self) -> int:
        """Gradient steps on what has been answered since the last fit, or for the first one."""
        model = self.config.model
        if not self.model.fitted:
            return max(int(model.pretrain_epochs * max(len(self.bank) / model.batch, 1)), 1)
        return round(model.updates_per_label * self.unfitted)

    def put(self, asked: Sequence[tuple[Query, tuple[Segment, ...]]], step: int) -> None:
        """Store queries; a synthetic rater answers them at once, people when they like.

        The next session comes `queries.every` steps later.
        """
        self.next_session = step + self.config.queries.every
        segments = {s.id: s for _, group in asked for s in group}
        self._just_asked = segments
        self.store.add_segments(list(segments.values()))
        self.store.add_queries([query for query, _ in asked])
        if self.rater is None:
            return
        self.asked |= {query.id for query, _ in asked}
        context = self._oracle_context()
        answers = [self.rater.answer(query, group, context) for query, group in asked]
        outcomes = self.store.submit_many(answers)
        given = [x.id for x, outcome in zip(answers, outcomes, strict=True) if outcome == "dup"]
        self._passed_over = [x for x in map(self.store.ledger.find, given) if x and self._missed(x)]

    def _oracle_context(self) -> OracleContext:
        """What B-Pref's thresholds depend on: the newest segments and episodes."""
        returns = [float(s.true_reward.sum()) for s in self.recorder.pool]
        length = self.episodes.mean_length(last=10) if self.episodes.lengths else 1.0
        mean = self.episodes.mean_return(last=10)
        return OracleContext(
            return_spread=float(np.std(returns)),
            mean_segment_return=0.0 if np.isnan(mean) else mean * self.recorder.length / length,
        )

    def take_in_labels(self, step: int) -> None:
        """Read what has been answered since, and what has been undone.

        A resumed run finds answers from steps that it has yet to repeat. It learns from each
        exactly when the first run did, and never from those to queries it does not ask again, as
        may be on another processor. Where somebody else has answered meanwhile, reading has passed
        them over.
        """
        changes = self.store.changes(self.watermark, issued_by=step if self.rater else None)
        for label in (*self._passed_over, *filter(self._is_of_this_course, changes.labels)):
            segments = [self._just_asked.get(i) or self.store.segment(i) for i in label.segments]
            self.bank.add(label, segments)
            self.unfitted += label.trainable
            self.labels_used += label.trainable
        for label in changes.withdrawn:
            if label.trainable and label.seq <= self.watermark:  # else it was never taken in
                self._take_out(label)
        self.watermark, self._passed_over = changes.seq, []

    def _take_out(self, label: Label) -> None:
        """It was undone, replaced or forgotten, perhaps before anything was fitted on it."""
        newer = sum(seq > label.seq for seq in self.bank.seqs)
        self.unfitted -= newer < self.unfitted
        self.labels_used -= 1
        self.bank.remove(label)

    def _is_of_this_course(self, label: Label) -> bool:
        """Did this run ask for the label, or did it come from elsewhere?"""
        ours = self.rater is not None and label.rater == self.rater.name
        return not ours or label.query.id in self.asked

    def _missed(self, label: Label) -> bool:
        """Was an answer that this run gave in an earlier life read past before it was asked?"""
        counts = label.live and label.status == "ok" and label.seq <= self.watermark
        return counts and label.seq not in self.bank.seqs

    def hear_people(self, step: int) -> None:
        """Take in what has been answered, and count what people are still asked.

        Counted first, as they answer meanwhile: an answer in between counts twice and not never;
        a later session asks for it, and a run that waits looks once more.
        """
        if self.rater or not self.config.asks:
            return
        self.still_asked = self.store.asked_here()
        self.take_in_labels(step)

    def tell_people(self, step: int) -> None:
        """A sign of life for their screens; what the policy has left behind is asked no more."""
        if self.rater or not self.config.asks:
            return
        self.store.beat(step=step, labels_due=self.labels_due(step), labels=self.labels_used)
        self.store.retire(older_than=step - self.config.queries.stale_after)

    def figures(self, step: int) -> dict[str, float]:
        """Under `feedback/...`."""
        if self.config.reward == "true":
            return {}
        behind = {} if self.rater else {"feedback/behind": self.labels_due(step) - self.labels_used}
        return {
            **{name: float(max(value, 0)) for name, value in behind.items()},
            "feedback/labels": float(self.labels_used),
            "feedback/due": float(self.labels_due(step)),
            "feedback/pool": float(len(self.recorder.pool)),
        }
