"""Pendulum-v1 without its torque cost, all sub-environments in one array.

The dynamics are those of Gymnasium's classic-control environment, which a test compares.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from gymnasium.spaces import Box

from .clips import check_states
from .hidden import FixedHorizonVectorEnv
from .mujoco import RobotOptions, clipped
from .task import Task

GRAVITY, DT, MAX_SPEED, MAX_TORQUE = 10.0, 0.05, 8.0, 2.0
SIDE = 480


class PendulumVec(FixedHorizonVectorEnv):
    """Observation float32 [B, 3]: cosine and sine of the angle from upright, angular speed."""

    def __init__(self, task: Task, *, num_envs: int, seed: int, options: RobotOptions) -> None:
        most = np.array([1.0, 1.0, MAX_SPEED], np.float32)
        super().__init__(
            options.task(task),
            num_envs=num_envs,
            seed=seed,
            observation_space=Box(-most, most, dtype=np.float32),
            action_space=Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32),
            replay_options=options.replay(),
        )

    def _restart(self, rows: np.ndarray, seeds: np.ndarray | None) -> np.ndarray:
        if seeds is not None:
            self._generators = [np.random.default_rng(int(seed)) for seed in seeds]
            self._state = np.empty((self.num_envs, 2))
        most = np.array([np.pi, 1.0])
        self._state[rows] = [self._generators[row].uniform(-most, most) for row in rows]
        return self._observation()[rows]

    def _simulate(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        torque = clipped(self, actions)[:, 0]
        angle, speed = self._state.T
        off = (angle + np.pi) % (2 * np.pi) - np.pi
        true_reward = -(off**2 + 0.1 * speed**2)
        speed = speed + (1.5 * GRAVITY * np.sin(angle) + 3.0 * torque) * DT
        speed = np.clip(speed, -MAX_SPEED, MAX_SPEED)
        self._state = np.stack([angle + speed * DT, speed], axis=1)
        return self._observation(), true_reward

    def _observation(self) -> np.ndarray:
        angle, speed = self._state.T
        return np.stack([np.cos(angle), np.sin(angle), speed], axis=1).astype(np.float32)

    def _states(self) -> np.ndarray:
        return self._state


def draw(
    task: Task, options: dict[str, Any], seed: int, states: np.ndarray, lead: int, *, masked: bool
) -> np.ndarray:
    """Pictures [T, 480, 480, 3] of the states [T, 2]."""
    check_states(task, states, 2)
    return np.stack([_picture(float(angle)) for angle in states[:, 0]])


def _picture(angle: float) -> np.ndarray:
    frame = np.full((SIDE, SIDE, 3), 245, np.uint8)
    hinge, length = SIDE // 2, 0.4 * SIDE
    tip = (round(hinge - length * np.sin(angle)), round(hinge - length * np.cos(angle)))
    cv2.line(frame, (hinge, hinge), tip, (204, 77, 77), 28, cv2.LINE_AA)
    cv2.circle(frame, (hinge, hinge), 8, (20, 20, 20), -1, cv2.LINE_AA)
    return frame
