"""Recipes: the settings of published runs, one readable file for each domain."""

from __future__ import annotations

from prefrl.config import TrainConfig
from prefrl.recipes import christiano2017_atari, christiano2017_mujoco, dot

RECIPES = {
    "atari": christiano2017_atari.recipe,
    "mujoco": christiano2017_mujoco.recipe,
    "toy": dot.recipe,
}


def recipe_for(task: str) -> TrainConfig:
    """The settings a task starts from; unknown tasks raise `envs.TaskError`."""
    from envs import find_task

    found = find_task(task)
    return RECIPES[found.domain](found.id)
