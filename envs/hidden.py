"""Vector environments whose score is hidden from whoever acts in them.

The agent sees zeros as reward, never a termination, and no `info` that tells anything. The
true reward and the episode ends exist in one place, `HiddenScoreVectorEnv.score`, which only
oracles and metrics may read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from .clips import ClipRecipe, Trace
from .log import StepLog
from .task import Task, TaskError, is_count

KEPT_BLOCKS = 64
"""Of `BLOCK_STEPS` states each, from which clips can be drawn: many more than a rollout has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStep:
    """What really happened in one step; never shown to the agent."""

    true_reward: np.ndarray
    """[B] float64."""
    episode_end: np.ndarray
    """[B] bool: the episode ended in this step, hidden from the agent or not."""
    episode_return: np.ndarray
    """[B] float64: true return of the episode that just ended; 0 where none did, or where it was
    the shorter first one of `reset_at(step, phases=True)`."""
    episode_length: np.ndarray
    """[B] int64: its length in agent steps; 0 in the same places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """One step of the world, before the score is taken out."""

    observation: np.ndarray
    """[B, *obs]: where an episode ended, the first observation of the next one."""
    true_reward: np.ndarray
    """[B] float64."""
    episode_end: np.ndarray
    """[B] bool."""
    final_observation: np.ndarray | None = None
    """[B, *obs] what a shown end of the episodes cut off; None: nothing is shown."""


class HiddenScoreVectorEnv(VectorEnv):
    """A vector environment without a score (see the module docstring).

    Sub-environments restart within the step in which their episode ends
    (`AutoresetMode.SAME_STEP`). Subclasses implement `_begin`, `_advance` and `_trace`.
    """

    def __init__(
        self,
        task: Task,
        *,
        num_envs: int,
        seed: int,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        replay_options: Mapping[str, Any],
    ) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.task = task
        self.seed = seed
        self.num_envs = num_envs
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.steps_since_reset = 0
        self._replay_options = dict(replay_options)
        self._log: StepLog | None = None

    def _begin(self, seeds: np.ndarray) -> tuple[np.ndarray, StepLog]:
        """Restart every sub-environment from its seed: observations [B, *obs], an empty log."""
        raise NotImplementedError

    def _advance(self, actions: np.ndarray, log: StepLog) -> Advance:
        """One step of every sub-environment, recorded in `log`."""
        raise NotImplementedError

    def _trace(self, log: StepLog, *, env: int, start: int, steps: int) -> Trace:
        """The part of the log from which the clip of [start, start + steps) can be drawn."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Restart from `(seed, 0)`; without a seed, from the seed the environment has."""
        if options:
            raise TaskError(f"reset() takes no options here; got {sorted(options)}")
        if seed is not None:
            if not is_count(seed):
                raise TaskError(f"reset() takes one integer seed, 0 or more; got {seed!r}")
            self.seed = int(seed)  # type: ignore[arg-type]
        return self.reset_at(0), {}

    def reset_at(self, step: int, *, phases: bool = False) -> np.ndarray:
        """Restart from `(seed, step)`: the same pair gives a bit-identical future.

        Args:
            phases: where all episodes last equally long, the first ones are shorter, each by
                another part, so that rollouts hold all phases of an episode. Where lengths differ
                by themselves nothing changes.
        """
        if not is_count(step):
            raise TaskError(f"reset_at() takes a step, an integer of 0 or more; got {step!r}")
        self._seeds = sub_seeds(self.seed, int(step), self.num_envs)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._shortened = np.zeros(self.num_envs, bool)
        self.score = self._scored(self._returns, np.zeros(self.num_envs, bool))
        self.steps_since_reset = 0
        observation, self._log = self._begin(self._seeds)
        return observation

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every sub-environment; the reward is zero, a termination never comes."""
        if self._log is None:
            raise TaskError("step() before reset() or reset_at()")
        world = self._advance(actions, self._log)
        self.steps_since_reset += 1
        self._returns += world.true_reward
        self._lengths += 1
        self.score = self._scored(world.true_reward, world.episode_end)
        self._returns[world.episode_end] = 0.0
        self._lengths[world.episode_end] = 0
        self._shortened[world.episode_end] = False
        return (
            world.observation,
            np.zeros(self.num_envs),
            np.zeros(self.num_envs, bool),
            *_shown(world),
        )

    def _scored(self, true_reward: np.ndarray, end: np.ndarray) -> ScoreStep:
        whole = end & ~self._shortened
        return ScoreStep(
            true_reward=true_reward.copy(),
            episode_end=end.copy(),
            episode_return=np.where(whole, self._returns, 0.0),
            episode_length=np.where(whole, self._lengths, 0),
        )

    def clip_recipe(self, *, env: int, start: int, steps: int) -> ClipRecipe:
        """How to draw what sub-environment `env` saw before each of `steps` steps from `start`.

        `start` counts steps since the last reset. Frame k shows the observation on which
        action `start + k` was taken, so a clip shows what the reward model reads.
        """
        first, end = (self._log.first if self._log else 0), self.steps_since_reset
        if self._log is None or not first <= start < start + steps <= end:
            raise TaskError(
                f"no clip of steps [{start}, {start + steps}): wanted some of the steps "
                f"[{first}, {end}) since the last reset, which are kept"
            )
        if not 0 <= env < self.num_envs:
            raise TaskError(f"no sub-environment {env}: there are {self.num_envs}")
        return ClipRecipe(
            task=self.task.id,
            options=self._replay_options,
            seed=int(self._seeds[env]),
            steps=steps,
            trace=self._trace(self._log, env=env, start=start, steps=steps),
        )


class FixedHorizonVectorEnv(HiddenScoreVectorEnv):
    """All episodes last `task.horizon` steps, but for the first ones of `reset_at(phases=True)`.

    The horizon is shown as a truncation: it is constant, so it tells nothing. Subclasses
    implement `_restart`, `_simulate` and `_states`; the log holds the state before each step.
    """

    def _restart(self, rows: np.ndarray, seeds: np.ndarray | None) -> np.ndarray:
        """New episodes in the sub-environments `rows` [n]: observations [n, *obs].

        Args:
            seeds: [n] of their generators, for all of them at once; None: as they stand.
        """
        raise NotImplementedError

    def _simulate(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One step: a fresh array of observations [B, *obs], and the true reward [B]."""
        raise NotImplementedError

    def _states(self) -> np.ndarray:
        """[B, *state] what a picture needs; later steps leave the array alone."""
        raise NotImplementedError

    def reset_at(self, step: int, *, phases: bool = False) -> np.ndarray:
        """Restart from `(seed, step)`; with `phases`, sub-environment b is b / B of the horizon
        ahead of the first."""
        observation = super().reset_at(step)
        self._ages = np.arange(self.num_envs) * (self._horizon if phases else 0) // self.num_envs
        self._shortened = self._ages > 0
        return observation

    def _begin(self, seeds: np.ndarray) -> tuple[np.ndarray, StepLog]:
        observation = self._restart(np.arange(self.num_envs), seeds)
        item = self._states().shape[1:]
        return observation, StepLog(self.num_envs, item, np.float32, blocks=KEPT_BLOCKS)

    def _advance(self, actions: np.ndarray, log: StepLog) -> Advance:
        before = self._states()
        observation, true_reward = self._simulate(actions)
        log.append(before)
        self._ages += 1
        ended = self._ages == self._horizon
        final = None
        if ended.any():
            final, observation = observation, observation.copy()
            observation[ended] = self._restart(np.flatnonzero(ended), None)
            self._ages[ended] = 0
        return Advance(
            observation=observation,
            true_reward=true_reward,
            episode_end=ended,
            final_observation=final,
        )

    @property
    def _horizon(self) -> int:
        assert self.task.horizon is not None
        return self.task.horizon

    def _trace(self, log: StepLog, *, env: int, start: int, steps: int) -> Trace:
        part = log.part(start, start + steps)
        return Trace(log=part, env=env, start=start, stop=start + steps, lead=0)


def _shown(world: Advance) -> tuple[np.ndarray, dict[str, Any]]:
    """What the agent learns of the episode ends: truncations and infos."""
    if world.final_observation is None:
        return np.zeros_like(world.episode_end), {}
    ends = world.episode_end
    return ends.copy(), {"final_obs": world.final_observation, "_final_obs": ends.copy()}


def chosen(venv: HiddenScoreVectorEnv, actions: np.ndarray) -> np.ndarray:
    """Discrete actions [B]; a wrong shape, type or number is an error."""
    actions = np.asarray(actions)
    space = venv.single_action_space
    assert isinstance(space, Discrete)
    fits = actions.shape == (venv.num_envs,) and actions.dtype.kind in "iu"
    if not fits or actions.min() < 0 or actions.max() >= space.n:
        raise TaskError(
            f"actions of {venv.task.id}: wanted {venv.num_envs} integers "
            f"from 0 to {space.n - 1}; got {actions!r}"
        )
    return actions


def sub_seeds(seed: int, step: int, num_envs: int) -> np.ndarray:
    """[B] 31-bit seeds of the sub-environments after `reset_at(step)`.

    >>> sub_seeds(0, 0, 2).tolist() == sub_seeds(0, 0, 3).tolist()[:2]
    True
    """
    words = np.random.SeedSequence([seed, step]).generate_state(num_envs)
    return (words >> np.uint32(1)).astype(np.int64)
