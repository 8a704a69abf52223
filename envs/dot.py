"""`prefrl/Dot-v0`: a dot that should walk to a goal; learns in seconds, for tests and tours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from gymnasium.spaces import Box, Discrete

from .clips import check_states
from .hidden import FixedHorizonVectorEnv, chosen
from .task import Task, TaskError

DOT = Task(
    id="prefrl/Dot-v0",
    domain="toy",
    segment_steps=10,
    fps=10.0,
    horizon=40,
    instructions="Prefer the white dot coming nearer to the green ring, or staying near it.",
)
STRIDE = 0.1
MOVES = STRIDE * np.array([[0, 0], [-1, 0], [1, 0], [0, 1], [0, -1]])
"""Stay, left, right, up, down."""
SIDE = 128
SHARPER = 4
"""Fractional bits of the drawing coordinates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DotOptions:
    """The toy has no options."""

    def replay(self) -> dict[str, Any]:
        """Nothing changes what happens."""
        return {}


class DotVec(FixedHorizonVectorEnv):
    """The toy world, all sub-environments in one array.

    Observation float32 [B, 4]: x, y, goal x, goal y in the unit square. True reward: minus
    the distance to the goal after the step.
    """

    def __init__(self, task: Task, *, num_envs: int, seed: int, options: DotOptions) -> None:
        super().__init__(
            task,
            num_envs=num_envs,
            seed=seed,
            observation_space=Box(0.0, 1.0, (4,), np.float32),
            action_space=Discrete(len(MOVES)),
            replay_options=options.replay(),
        )

    def _restart(self, rows: np.ndarray, seeds: np.ndarray | None) -> np.ndarray:
        if seeds is not None:
            self._generators = [np.random.default_rng(int(seed)) for seed in seeds]
            self._state = np.empty((self.num_envs, 4))
        self._state[rows] = [self._generators[row].random(4) for row in rows]
        return self._state[rows].astype(np.float32)

    def _simulate(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dot = np.clip(self._state[:, :2] + MOVES[chosen(self, actions)], 0.0, 1.0)
        self._state = np.concatenate([dot, self._state[:, 2:]], axis=1)
        distance = np.linalg.norm(dot - self._state[:, 2:], axis=1)
        return self._state.astype(np.float32), -distance

    def _states(self) -> np.ndarray:
        return self._state


def draw(
    task: Task, options: dict[str, Any], seed: int, states: np.ndarray, lead: int, *, masked: bool
) -> np.ndarray:
    """Pictures [T, 128, 128, 3] of the states [T, 4]: a green ring is the goal."""
    check_states(task, states, 4)
    if not ((states >= 0) & (states <= 1)).all():
        raise TaskError(f"damaged clip: a dot of {task.id} outside the unit square")
    return np.stack([_picture(state) for state in states])


def _picture(state: np.ndarray) -> np.ndarray:
    frame = np.full((SIDE, SIDE, 3), (24, 26, 32), np.uint8)
    cv2.rectangle(frame, (0, 0), (SIDE - 1, SIDE - 1), (70, 74, 84), 1)
    cv2.circle(frame, _pixel(state[2:]), 9 << SHARPER, (64, 200, 96), 2, cv2.LINE_AA, SHARPER)
    cv2.circle(frame, _pixel(state[:2]), 5 << SHARPER, (240, 240, 240), -1, cv2.LINE_AA, SHARPER)
    return frame


def _pixel(point: np.ndarray) -> tuple[int, int]:
    """Unit square, y upwards -> fixed-point pixel, y downwards."""
    margin, span = 10, SIDE - 21
    x, y = margin + span * float(point[0]), margin + span * (1 - float(point[1]))
    return round(x * 2**SHARPER), round(y * 2**SHARPER)
