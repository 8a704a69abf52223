"""The newest policy of a run, seen: played in fresh environments, drawn, filmed."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from envs import HiddenScoreVectorEnv, Task, make_vec, render_clip
from prefrl.config import read_toml
from prefrl.errors import UserError
from prefrl.loop.play import Player, load_policy
from prefrl.loop.rundir import RunDir
from prefrl.loop.video import write_video

PLAY_SEED = 1_000_000  # apart from the seeds that runs are given
SECONDS = {"atari": 60.0, "mujoco": 10.0, "toy": 16.0}
MAX_FPS = 30.0  # robots drawn in software take 0.1 s a picture, so faster ones skip some
ATARI_PIECE = 900  # pictures of 100 KB


def open_player(
    directory: RunDir,
    *,
    num_envs: int,
    seed: int,
    greedy: bool,
    whole: bool = False,
) -> tuple[Player, int]:
    """The newest policy of a run in fresh environments, to be closed, and the step it comes from.

    Args:
        whole: in episodes as long as the task's own, where the run has shorter ones.

    Raises:
        UserError: not a run, or one without a checkpoint.
    """
    config = read_toml(directory.config)
    env = replace(config.env, horizon=None) if whole else config.env
    venv = make_vec(config.task, num_envs=num_envs, seed=seed, **env.options())
    device = torch.device("cpu")
    try:
        policy, step = load_policy(directory, config, venv, device=device)
    except BaseException:
        venv.close()
        raise
    return Player(venv, policy, device=device, seed=seed, greedy=greedy), step


def record(player: Player, path: Path, *, seconds: float | None = None) -> Path:
    """Film the one environment of `player`, the score in view: this is for the researcher.

    Raises:
        UserError: nothing can be written there; nothing has been played.
    """
    _check_place(path)
    task = player.venv.task
    steps = max(round(task.fps * (seconds or SECONDS[task.domain])), 1)
    stride = frame_stride(task)
    start = player.advance(steps)
    frames = draw(player.venv, start=start, steps=steps, stride=stride)
    return write_video(frames, path, fps=task.fps / stride)


def _check_place(path: Path) -> None:
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(f".{path.name}.part")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(
            f"record: {path} cannot be written ({error.strerror}): wanted another place"
        ) from error


def frame_stride(task: Task) -> int:
    """One step in so many is drawn."""
    return math.ceil(task.fps / MAX_FPS)


def draw(
    venv: HiddenScoreVectorEnv, *, start: int, steps: int, stride: int = 1
) -> Iterator[np.ndarray]:
    """Colour frames of the only environment, [H, W, 3] each, the score in view.

    An Atari clip is played again from the last reset, so it is drawn in long pieces; a robot
    is drawn from its states, one picture at a time.
    """
    piece = ATARI_PIECE if venv.task.domain == "atari" else 1
    for t in range(start, start + steps, stride * piece):
        recipe = venv.clip_recipe(env=0, start=t, steps=min(piece, start + steps - t))
        yield from render_clip(recipe, masked=False)


def check_drawing(task: Task) -> None:
    """Draw one picture: MuJoCo needs EGL, OSMesa or a display for that.

    Raises:
        UserError: this machine cannot.
    """
    if task.domain != "mujoco":
        return
    import mujoco

    venv = make_vec(task.id, num_envs=1, seed=0)
    venv.reset_at(0)
    venv.step(venv.action_space.sample())
    try:
        next(draw(venv, start=0, steps=1))
    except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
        raise UserError(
            f"{task.id} cannot be drawn here ({type(error).__name__}: {error}): "
            "install libegl1 and libgl1-mesa-dri, or set MUJOCO_GL=osmesa or glfw"
        ) from error
    finally:
        venv.close()
