"""Cuts segments from what every environment did, never across an episode border."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from torch import Tensor

from prefrl.agents import Experience
from prefrl.errors import UserError
from prefrl.feedback import Provenance, Segment
from prefrl.rewards.bank import unstack

ClipRecipe = Callable[[int, int, int], bytes]
"""(environment, first step since the reset, steps) -> how to draw the rater's clip."""


class Recorder:
    """The pool of recent segments from which queries are drawn.

    Args:
        task: written into each segment's provenance, as is `seed`.
        length: T, steps of a segment.
        pool: keep this many segments, newest last.
        per_rollout: cut this many from each rollout, spread over all environments; 0: none.
        generator: chooses the windows.
    """

    def __init__(
        self,
        *,
        task: str,
        seed: int,
        length: int,
        pool: int,
        per_rollout: int,
        clip_recipe: ClipRecipe,
        generator: np.random.Generator,
    ) -> None:
        self.task, self.seed, self.length, self.per_rollout = task, seed, length, per_rollout
        self.clip_recipe, self.generator = clip_recipe, generator
        self.pool: deque[Segment] = deque(maxlen=pool)
        self._episode = np.zeros(0, dtype=np.int64)  # [B] episodes finished so far
        self._age = np.zeros(0, dtype=np.int64)  # [B] steps into the present episode

    def reset(self, num_envs: int) -> None:
        """Every environment has just started anew."""
        if len(self._episode) != num_envs:
            self._episode = np.zeros(num_envs, dtype=np.int64)
        else:
            self._episode += 1
        self._age = np.zeros(num_envs, dtype=np.int64)

    def add(self, experience: Experience, *, policy_step: int) -> None:
        """Cut segments from one rollout of the policy of `policy_step`."""
        if self.per_rollout:
            self._cut_some(experience, policy_step)
        self._advance(experience.episode_end)

    def _cut_some(self, experience: Experience, policy_step: int) -> None:
        starts = window_starts(experience.episode_end, self.length)  # [n, 2]
        if len(starts):
            chosen = self.generator.choice(len(starts), min(self.per_rollout, len(starts)), False)
            episode, age = self._clock(experience.episode_end)
            for env, t in starts[np.sort(chosen)]:
                provenance = Provenance(
                    task=self.task,
                    seed=self.seed,
                    policy_step=policy_step,
                    env=int(env),
                    episode=int(episode[env, t]),
                    t0=int(age[env, t]),
                )
                self.pool.append(self._cut(experience, int(env), int(t), provenance))

    def state(self) -> dict[str, np.ndarray]:
        """Episode counters [B]; the pool and the generator are saved by their owners."""
        return {"episode": self._episode, "age": self._age}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        self._episode, self._age = state["episode"].copy(), state["age"].copy()

    def _cut(self, experience: Experience, env: int, t: int, provenance: Provenance) -> Segment:
        window = slice(t, t + self.length)
        return Segment(
            observations=_numpy(experience.observation[env, window]),
            actions=_numpy(experience.action[env, window]),
            true_reward=experience.true_reward[env, window].copy(),
            ended=bool(experience.episode_end[env, t + self.length - 1]),
            provenance=provenance,
            clip=self.clip_recipe(env, experience.first_step + t, self.length),
        )

    def _clock(self, episode_end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[B, T] episode number and step within the episode, at every step."""
        B, T = episode_end.shape
        before = np.concatenate([np.zeros((B, 1), dtype=bool), episode_end[:, :-1]], axis=1)
        episode = self._episode[:, None] + before.cumsum(1)
        step = np.arange(T)[None]
        start = np.maximum.accumulate(np.where(before, step, -self._age[:, None]), axis=1)
        return episode, step - start

    def _advance(self, episode_end: np.ndarray) -> None:
        episode, age = self._clock(episode_end)
        self._episode = episode[:, -1] + episode_end[:, -1]
        self._age = np.where(episode_end[:, -1], 0, age[:, -1] + 1)


def window_starts(episode_end: np.ndarray, length: int) -> np.ndarray:
    """All (environment, step) at which a segment of `length` may start.

    Args:
        episode_end: [B, T] bool. An end may be the last step of a segment, no earlier one:
            so the last window of every episode can be drawn too.

    Returns:
        [n, 2] int64.
    """
    B, T = episode_end.shape
    if length > T:
        raise UserError(
            f"a segment of {length} steps does not fit into a rollout of {T}: "
            "raise rollout_steps or lower queries.segment_steps"
        )
    ends = np.concatenate([np.zeros((B, 1), dtype=np.int64), episode_end.cumsum(1)], axis=1)
    inside = ends[:, length - 1 : T] - ends[:, : T - length + 1]  # ends before the last step
    return np.argwhere(inside == 0)


def _numpy(x: Tensor) -> np.ndarray:
    """A copy; of stacked frames [T, H, W, C] a view of the T + C - 1 frames they are made of."""
    array = x.cpu().numpy()
    if array.ndim < 4:
        return array.copy()
    frames = unstack(array)
    return np.lib.stride_tricks.sliding_window_view(frames, array.shape[-1], axis=0)
