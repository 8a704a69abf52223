"""Everything a run consists of, and where it stands."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import torch

from prefrl.agents import Collector, ControlPolicy, Experience, make_policy
from prefrl.agents.policy import compute_dtype
from prefrl.config import TrainConfig
from prefrl.feedback import FeedbackStore, LabelSchedule, Oracle
from prefrl.loop.asking import Asking
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
        self.venv, self.rater, self.device = venv, rater, device
        self.step = 0
        self.next_checkpoint = config.checkpoint_every
        self.episodes = EpisodeStats()
        self.latest: dict[str, float] = {}
        self.segment_steps: int = config.queries.segment_steps or venv.task.segment_steps
        self._build_generators()
        self._build_agent()
        self._build_rewards(model)
        self.asking = Asking(
            config,
            rater=rater,
            schedule=schedule,
            store=store,
            recorder=self.recorder,
            bank=self.bank,
            model=self.model,
            episodes=self.episodes,
        )
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
            per_rollout=config.queries.per_rollout if self.config.asks else 0,
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

    @property
    def rollout_steps(self) -> int:
        """T of the next rollout; one segment, where each is to begin at a reset."""
        return self.segment_steps if self.restarts else self.config.rollout_steps

    @property
    def learns(self) -> bool:
        """The policy waits for the first fit: an untrained reward model would ruin it."""
        return self.config.reward == "true" or self.config.labels == 0 or self.model.fitted

    @property
    def restarts(self) -> bool:
        """Does the next segment begin at a reset?"""
        return self.config.asks and self.config.queries.restart and not self.model.fitted

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
