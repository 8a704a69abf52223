"""MuJoCo robots with the score hidden: a thin loop over Gymnasium's v5 environments.

The environments are made raw, without wrappers. Their `terminated` is only a flag here (they
run on), so it tells when a step is unhealthy; see `robots` for what changed, and why.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from .clips import check_states
from .hidden import FixedHorizonVectorEnv, HiddenScoreVectorEnv
from .task import Robot, Task, TaskError, is_count

if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("MUJOCO_GL", "egl")

# Only now: it reads MUJOCO_GL when it is imported.
import mujoco

logger = logging.getLogger(__name__)
SIDE = 480
_renderers = threading.local()


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotOptions:
    """How a robot's episodes are played."""

    horizon: int | None = None
    """Steps of an episode; None: the task's. Who cannot stand up again learns more from short
    ones."""

    def __post_init__(self) -> None:
        if self.horizon is not None and (not is_count(self.horizon) or self.horizon < 1):
            raise TaskError(f"option horizon={self.horizon!r}: wanted an integer of 1 or more")

    def task(self, task: Task) -> Task:
        """`task` as it is played with these options."""
        return task if self.horizon is None else replace(task, horizon=self.horizon)

    def replay(self) -> dict[str, Any]:
        """None of them changes what a clip shows."""
        return {}


class RobotVec(FixedHorizonVectorEnv):
    """Robots: observations float32 [B, d], actions clipped to their bounds."""

    def __init__(self, task: Task, *, num_envs: int, seed: int, options: RobotOptions) -> None:
        self._robots = [_robot(task) for _ in range(num_envs)]
        self._penalty, self._height = _details(task).unhealthy_penalty, _details(task).height
        size = self._robots[0].observation_space.shape
        super().__init__(
            options.task(task),
            num_envs=num_envs,
            seed=seed,
            observation_space=Box(-np.inf, np.inf, size, np.float32),
            action_space=self._robots[0].action_space,
            replay_options=options.replay(),
        )

    def _restart(self, rows: np.ndarray, seeds: np.ndarray | None) -> np.ndarray:
        given = [None] * len(rows) if seeds is None else [int(seed) for seed in seeds]
        begun = [self._robots[row].reset(seed=s)[0] for row, s in zip(rows, given, strict=True)]
        return np.array(begun, np.float32)

    def _simulate(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        actions = clipped(self, actions)
        out = np.empty(self.observation_space.shape or (), np.float32)
        true_reward = np.empty(self.num_envs)
        for env, robot in enumerate(self._robots):
            out[env], reward, unhealthy, _, _ = robot.step(actions[env])
            true_reward[env] = reward - self._penalty if unhealthy else reward
            if self._height is not None:
                place, above = self._height
                true_reward[env] += robot.data.qpos[place] - above
        return out, true_reward

    def _states(self) -> np.ndarray:
        return np.stack([np.concatenate((r.data.qpos, r.data.qvel)) for r in self._robots])

    def close_extras(self, **kwargs: Any) -> None:
        """Close the simulations."""
        for robot in self._robots:
            robot.close()


def draw(
    task: Task, options: dict[str, Any], seed: int, states: np.ndarray, lead: int, *, masked: bool
) -> np.ndarray:
    """Pictures [T, 480, 480, 3] of the states [T, qpos + qvel]."""
    robot = _renderer(task)
    positions, speeds = robot.model.nq, robot.model.nv
    check_states(task, states, positions + speeds)
    frames = np.empty((len(states), SIDE, SIDE, 3), np.uint8)
    for frame, state in zip(frames, states, strict=True):
        robot.set_state(state[:positions], state[positions:])
        frame[:] = robot.render()
    return frames


def clipped(venv: HiddenScoreVectorEnv, actions: np.ndarray) -> np.ndarray:
    """Actions [B, *act], within the bounds; a wrong shape or a NaN is an error."""
    actions = np.asarray(actions)
    space = venv.single_action_space
    assert isinstance(space, Box)
    if actions.shape != (venv.num_envs, *space.shape) or np.isnan(actions).any():
        raise TaskError(
            f"actions of {venv.task.id}: wanted finite {(venv.num_envs, *space.shape)}; "
            f"got {actions.shape} {actions!r}"
        )
    return np.clip(actions, space.low, space.high)


def _robot(task: Task, **settings: Any) -> Any:
    """Gymnasium's environment without its wrappers."""
    module, name = str(gymnasium.spec(task.id).entry_point).split(":")
    cls = getattr(importlib.import_module(module), name)
    with _quiet_models():
        return cls(**_details(task).options, **settings)


@contextmanager
def _quiet_models() -> Iterator[None]:
    """Log MuJoCo's remarks on Gymnasium's model files, which nobody here can act upon."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(logger.debug)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _renderer(task: Task) -> Any:
    """One renderer per task and thread: an OpenGL context belongs to its thread."""
    cache = _renderers.__dict__
    if task.id not in cache:
        robot = _robot(task, render_mode="rgb_array", width=SIDE, height=SIDE, camera_name="track")
        robot.reset(seed=0)
        _make_light(robot)
        cache[task.id] = robot
    return cache[task.id]


def _make_light(robot: Any) -> None:
    """No shadows, reflections or smoothed edges: without a graphics card they take nine tenths of
    a frame's 75 ms, and a person waits for a hundred frames."""
    robot.model.vis.quality.offsamples = 0  # read when the first frame is drawn
    robot.render()
    flags = robot.mujoco_renderer.viewer.scn.flags
    flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0


def _details(task: Task) -> Robot:
    assert isinstance(task.details, Robot), task
    return task.details
