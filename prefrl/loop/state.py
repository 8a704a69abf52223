"""Everything a run consists of, and where it stands."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from prefrl.agents import Collector, ControlPolicy, Experience, make_policy
from prefrl.agents.policy import compute_dtype
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
from prefrl.loop.checkpoint import newest_checkpoint, write_checkpoint
from prefrl.loop.hardware import compiles
from prefrl.loop.metrics import EpisodeStats
from prefrl.loop.recorder import Recorder
from prefrl.loop.rundir import RunDir
from prefrl.loop.saving import read_run, write_run
from prefrl.loop.terms import LearnedReward, TrueReward
from prefrl.ppo import PPO, CompiledGradient, Gradient, GradientOf, RewardTerm
from prefrl.rewards import LabelBank, RewardFitter, RewardModel, Spaces

log = logging.getLogger(__name__)

LONGEST_WAIT = 0.5  # share of a run after which the first queries are asked of what there is
FIRST_CHOICE = 0.05  # share of a run that may pass while the first queries' candidates gather
CPU_CHUNK = 256  # rows of pixels per forward and backward: what fits the cache (measured)


class Run:
    """One run: environments, policy, reward model, store, and where they stand.

    Args:
        venv: score hidden; its `score` is read by `episodes` and the recorder only.
        rater: a synthetic rater who answers at once, or None where people answer in their own
            time, through the store.
        store: owned by the caller.
        model: fitted already; None: a fresh one.
    """

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDir,
        *,
        venv: Any,
        rater: Oracle | None,
        schedule: LabelSchedule,
        store: FeedbackStore,
        device: torch.device,
        model: RewardModel | None = None,
    ) -> None:
        self.config, self.directory, self.store = config, directory, store
        self.venv, self.rater, self.schedule, self.device = venv, rater, schedule, device
        self.step = 0
        self.labels_used = 0
        self.unfitted = 0
        self.watermark = 0
        self.still_asked = 0
        self.asked: set[str] = set()
        self.just_asked: dict[str, Segment] = {}
        self.passed_over: list[Label] = []
        self.next_session = 0
        self.next_checkpoint = config.checkpoint_every
        self.episodes = EpisodeStats()
        self.latest: dict[str, float] = {}
        self.segment_steps: int = config.queries.segment_steps or venv.task.segment_steps
        self._build_generators()
        self._build_agent()
        self._build_rewards(model)
        self.recorder.reset(venv.num_envs)
        self.collector.reset_at(0, phases=not self.restarts)

    def _build_generators(self) -> None:
        """One stream for each purpose, so that none disturbs another."""
        names = ("policy_init", "reward_init", "minibatches", "actions", "fit")
        seeds = np.random.SeedSequence([self.config.seed, 1]).spawn(len(names) + 2)
        self.generators: dict[str, torch.Generator] = {}
        for name, seed in zip(names, seeds, strict=False):
            device = self.device if name in ("actions", "fit") else torch.device("cpu")
            generator = torch.Generator(device=device)
            generator.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
            self.generators[name] = generator
        self.query_generator = np.random.default_rng(seeds[-2])
        self.window_generator = np.random.default_rng(seeds[-1])

    def _build_agent(self) -> None:
        config, venv = self.config, self.venv
        self.policy: ControlPolicy = make_policy(
            venv.single_observation_space,
            venv.single_action_space,
            config.policy,
            device=self.device,
            generator=self.generators["policy_init"],
        )
        self.collector = Collector(
            venv,
            self.policy,
            gamma=config.ppo.gamma,
            device=self.device,
            generator=self.generators["actions"],
        )
        on_cpu_pixels = self.collector.pixels and self.device.type == "cpu"
        gradient: GradientOf = Gradient(
            self.policy, config.ppo, chunk=CPU_CHUNK if on_cpu_pixels else None
        )
        if compiles(config, pixels=self.collector.pixels, device=self.device):
            gradient = CompiledGradient(self.policy, config.ppo)
        self.ppo = PPO(gradient, config.ppo, generator=self.generators["minibatches"], rows="steps")
        self.recorder = Recorder(
            task=config.task,
            seed=config.seed,
            length=self.segment_steps,
            pool=config.queries.pool,
            per_rollout=config.queries.per_rollout if self.asks else 0,
            clip_recipe=lambda env, start, steps: venv.clip_recipe(
                env=env, start=start, steps=steps
            ).to_bytes(),
            generator=self.window_generator,
        )

    def _build_rewards(self, model: RewardModel | None) -> None:
        config = self.config
        self.model = model or RewardModel.build(
            spaces_of(self.venv),
            config.model,
            dtype=compute_dtype(config.policy.precision, self.device),
            device=self.device,
            generator=self.generators["reward_init"],
        )
        self.bank = LabelBank(
            members=config.model.members, keep=config.model.keep, device=self.device
        )
        self.fitter = RewardFitter(
            self.model, self.bank, config.model, generator=self.generators["fit"]
        )
        learned: RewardTerm[Experience] = LearnedReward(self.model, every=config.model.score_every)
        self.terms = [learned if config.reward == "learned" else TrueReward()]

    # ---- the schedule -----------------------------------------------------------------

    @property
    def rollout_steps(self) -> int:
        """T of the next rollout; one segment, where each is to begin at a reset."""
        return self.segment_steps if self.restarts else self.config.rollout_steps

    @property
    def learns(self) -> bool:
        """The policy waits for the first fit: an untrained reward model would ruin it."""
        return self.config.reward == "true" or self.config.labels == 0 or self.model.fitted

    def labels_due(self) -> int:
        """Labels the schedule wants by now, over the whole run.

        All of them once no later session fits into the run: this one asks for the rest.
        """
        last = self.step + self.config.queries.every > self.config.steps
        return self.config.labels if last else self.schedule.due(self.step)

    def queries_wanted(self) -> int:
        """How many more to ask by now: what is due, less answers and what people are asked."""
        missing = self.labels_due() - self.labels_used - self.still_asked
        return max(math.ceil(missing / self.config.queries.need), 0)

    def session_due(self) -> bool:
        """Is it time to put queries to the rater?"""
        if not self.asks or self.queries_wanted() == 0:
            return False
        if self.step < self.next_session and (self.model.fitted or not self.unfitted):
            return False  # before the first fit what is missing is asked at once, unless all is
        return self.model.fitted or self._enough_to_choose_from()

    def _enough_to_choose_from(self) -> bool:
        """Before the first fit: is there behaviour enough for the first queries?"""
        queries, held = self.config.queries, len(self.recorder.pool)
        if self.step >= LONGEST_WAIT * self.config.steps:  # of a short run
            return held >= queries.segments
        least = min(queries.segments * self.labels_due(), queries.pool)
        if queries.first == "uniform" or self.step >= FIRST_CHOICE * self.config.steps:
            return held >= least
        return held >= min(queries.candidates * least, queries.pool)

    @property
    def asks(self) -> bool:
        """Does anybody answer in this run?"""
        return self.config.asks

    @property
    def waits(self) -> bool:
        """Do people have to answer first? What is asked before the first fit, always."""
        if self.rater or not self.asks or self.still_asked == 0:
            return False
        strict = self.config.schedule == "strict" or not self.model.fitted
        return strict and self.labels_used < self.labels_due()

    @property
    def fit_due(self) -> bool:
        """Are there enough new labels for the reward model to be worth changing?

        People's answers trickle in. The first fit waits for all that are due, and so does each one
        where the run waits for people; otherwise they are taken a batch at a time, and the last.
        """
        if not self.unfitted:
            return False
        if self.rater:
            return True
        complete = self.labels_used >= self.labels_due()
        if not self.model.fitted:
            return complete
        if self.config.schedule == "strict" and complete:
            return True
        return self.unfitted >= self.config.model.batch or self.step >= self.config.steps

    def covered(self) -> list[Segment]:
        """What has been answered about before the first fit: seldom anything."""
        if self.model.fitted:
            return []
        return [self.store.segment(i) for i in self.bank.segment_ids]

    def session_done(self) -> None:
        """The next one comes `queries.every` steps later."""
        self.next_session = self.step + self.config.queries.every

    def fit_steps(self, new_labels: int, *, first: bool) -> int:
        """Gradient steps after a session that brought `new_labels`."""
        model = self.config.model
        if first:
            return max(int(model.pretrain_epochs * max(len(self.bank) / model.batch, 1)), 1)
        return round(model.updates_per_label * new_labels)

    # ---- feedback ---------------------------------------------------------------------

    def put(self, asked: Sequence[tuple[Query, tuple[Segment, ...]]]) -> None:
        """Store queries; a synthetic rater answers them at once, people when they like."""
        segments = {s.id: s for _, group in asked for s in group}
        self.just_asked = segments
        self.store.add_segments(list(segments.values()))
        self.store.add_queries([query for query, _ in asked])
        if self.rater is None:
            return
        self.asked |= {query.id for query, _ in asked}
        context = self._oracle_context()
        answers = [self.rater.answer(query, group, context) for query, group in asked]
        outcomes = self.store.submit_many(answers)
        given = [x.id for x, outcome in zip(answers, outcomes, strict=True) if outcome == "dup"]
        self.passed_over = [x for x in map(self.store.ledger.find, given) if x and self._missed(x)]

    def _oracle_context(self) -> OracleContext:
        """What B-Pref's thresholds depend on: the newest segments and episodes."""
        returns = [float(s.true_reward.sum()) for s in self.recorder.pool]
        length = self.episodes.mean_length(last=10) if self.episodes.lengths else 1.0
        mean = self.episodes.mean_return(last=10)
        return OracleContext(
            return_spread=float(np.std(returns)),
            mean_segment_return=0.0 if np.isnan(mean) else mean * self.segment_steps / length,
        )

    def take_in_labels(self) -> None:
        """Read what has been answered since, and what has been undone.

        A resumed run finds answers from steps that it has yet to repeat. It learns from each
        exactly when the first run did, and never from those to queries it does not ask again, as
        may be on another processor. Where somebody else has answered meanwhile, reading has passed
        them over.
        """
        changes = self.store.changes(self.watermark, issued_by=self.step if self.rater else None)
        for label in (*self.passed_over, *filter(self._is_of_this_course, changes.labels)):
            segments = [self.just_asked.get(i) or self.store.segment(i) for i in label.segments]
            self.bank.add(label, segments)
            self.unfitted += label.trainable
            self.labels_used += label.trainable
        for label in changes.withdrawn:
            if label.trainable and label.seq <= self.watermark:  # else it was never taken in
                self._take_out(label)
        self.watermark, self.passed_over = changes.seq, []

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

    def hear_people(self) -> None:
        """Take in what has been answered, and count what people are still asked.

        Counted first, as they answer meanwhile: an answer in between counts twice and not never;
        a later session asks for it, and a run that waits looks once more.
        """
        if self.rater or not self.asks:
            return
        self.still_asked = self.store.asked_here()
        self.take_in_labels()

    def tell_people(self) -> None:
        """A sign of life for their screens; what the policy has left behind is asked no more."""
        if self.rater or not self.asks:
            return
        self.store.beat(step=self.step, labels_due=self.labels_due(), labels=self.labels_used)
        self.store.retire(older_than=self.step - self.config.queries.stale_after)

    def feedback_figures(self) -> dict[str, float]:
        """Under `feedback/...`."""
        if self.config.reward == "true":
            return {}
        behind = {} if self.rater else {"feedback/behind": self.labels_due() - self.labels_used}
        return {
            **{name: float(max(value, 0)) for name, value in behind.items()},
            "feedback/labels": float(self.labels_used),
            "feedback/due": float(self.labels_due()),
            "feedback/pool": float(len(self.recorder.pool)),
        }

    # ---- checkpoints ------------------------------------------------------------------

    @property
    def restarts(self) -> bool:
        """Does the next segment begin at a reset?"""
        return self.asks and self.config.queries.restart and not self.model.fitted

    def restart(self) -> None:
        """Start all environments anew from (seed, step)."""
        self.collector.reset_at(self.step, phases=not self.restarts)
        self.recorder.reset(self.venv.num_envs)

    def checkpoint_due(self) -> bool:
        """Is it time, and is this not the end?"""
        return self.next_checkpoint <= self.step < self.config.steps

    def checkpoint(self, *, restart: bool) -> None:
        """Save everything.

        Args:
            restart: start all environments anew from (seed, step), as a resumed run will.
                ALE's vector environment has no state to save, so between restarts a
                checkpoint holds the actions since the last one, to be replayed.
        """
        if restart:
            self.next_checkpoint = self.step + self.config.checkpoint_every
            self.restart()
        write_checkpoint(self.directory.checkpoints, self.step, partial(write_run, self))

    def resume(self) -> bool:
        """Go back to the newest whole checkpoint, if there is any."""
        path = newest_checkpoint(self.directory.checkpoints)
        if path is None:
            return False
        read_run(self, path)
        log.info("resuming %s at step %s", self.directory.path, f"{self.step:,}")
        return True


def spaces_of(venv: Any) -> Spaces:
    """The shapes of the reward network for an environment."""
    return spaces_for(venv.single_observation_space, venv.single_action_space)


def spaces_for(observation: Any, action: Any) -> Spaces:
    """The same for the spaces of one of its sub-environments."""
    pixels = len(observation.shape) == 3
    shape = observation.shape
    discrete = not hasattr(action, "low")
    return Spaces(
        kind="pixels" if pixels else "states",
        observation=(*shape[1:], shape[0]) if pixels else shape,
        actions=int(action.n) if discrete else int(np.prod(action.shape)),
        discrete=discrete,
    )
