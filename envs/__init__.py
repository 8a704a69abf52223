"""Tasks with the score hidden: Atari games, MuJoCo robots and a toy, as vector environments.

This room knows nothing of the rest. Emulators and physics load when a task is first made.
"""

from .clips import MAX_STEPS as MAX_CLIP_STEPS
from .clips import ClipRecipe, render_clip
from .hidden import HiddenScoreVectorEnv, ScoreStep
from .registry import find_task, make_vec, tasks
from .task import Task, TaskError

__all__ = [
    "MAX_CLIP_STEPS",
    "ClipRecipe",
    "HiddenScoreVectorEnv",
    "ScoreStep",
    "Task",
    "TaskError",
    "find_task",
    "make_vec",
    "render_clip",
    "tasks",
]
