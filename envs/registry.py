"""All tasks, and the module that runs each; modules load when their task is first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from .dot import DOT
from .games import GAMES
from .hidden import HiddenScoreVectorEnv
from .robots import ROBOTS
from .task import Task, TaskError, did_you_mean, is_count, read_options

MAX_THREADS = 4096

_TASKS = {task.id: task for task in (*GAMES, *ROBOTS, DOT)}


def tasks() -> tuple[Task, ...]:
    """Every task there is."""
    return tuple(_TASKS.values())


def find_task(task_id: str) -> Task:
    """The task of that id.

    >>> find_task("ALE/Pong-v5").segment_steps
    25
    """
    if not isinstance(task_id, str):
        raise TaskError(f"task: got {task_id!r}, wanted its name; `prefrl tasks` lists them all")
    if task_id not in _TASKS:
        hint = did_you_mean(task_id, _TASKS)
        raise TaskError(f"unknown task {task_id!r};{hint} `prefrl tasks` lists them all")
    return _TASKS[task_id]


def make_vec(
    task: str, num_envs: int, seed: int, *, threads: int = 0, **options: Any
) -> HiddenScoreVectorEnv:
    """`num_envs` environments of a task, with the score hidden.

    `reset()` always begins the same episodes, `reset(seed=...)` others.

    Args:
        threads: emulator threads, at most; 0: one for each core. Robots have no use for them.
        options: Atari takes `sticky`, `noop_max` and `actions`, robots `horizon`.
    """
    found = find_task(task)
    if not is_count(threads) or threads > MAX_THREADS:
        raise TaskError(f"threads={threads!r}: wanted an integer, 0 to {MAX_THREADS}")
    if not is_count(num_envs) or num_envs < 1 or not is_count(seed):
        raise TaskError(f"wanted integers num_envs >= 1 and seed >= 0; got {num_envs=}, {seed=}")
    module, env, record = _classes(found)
    cls = getattr(module, record)
    if threads and "threads" in {field.name for field in fields(cls)}:
        options["threads"] = threads
    settings = read_options(cls, options, task=found.id)
    return getattr(module, env)(found, num_envs=int(num_envs), seed=int(seed), options=settings)


def drawer(task: Task) -> Callable[..., np.ndarray]:
    """The function that draws a clip of this task."""
    return _classes(task)[0].draw


def _classes(task: Task) -> tuple[Any, str, str]:
    """Module, vector environment and options record of a task."""
    if task.id == "Pendulum-v1":
        names = ("pendulum", "PendulumVec", "RobotOptions")
    else:
        names = {
            "atari": ("atari", "AtariVec", "AtariOptions"),
            "mujoco": ("mujoco", "RobotVec", "RobotOptions"),
            "toy": ("dot", "DotVec", "DotOptions"),
        }[task.domain]
    return importlib.import_module(f".{names[0]}", __package__), names[1], names[2]
