"""Atari with the score hidden, on ALE's own vector environment.

As in Christiano et al. 2017, appendix A: 0 to 30 no-ops at the start, the maximum of two
frames, a skip of four frames, a stack of four 84x84 frames; resets go on, but life loss and
episode ends are hidden: the agent lives in one endless film, and the frame stack runs on
across a reset too. ALE would pad it with black: a plain sign of the end, and a picture so
strange that a reward model's answer to it is ten times as large as any other (docs/log.md).
Pong's console switches on in its first three frames, and shows an empty court in other colours:
the picture of a step later, or the last episode's last, stands in their place.

No FIRE is pressed at a reset. Only Breakout needs it, to serve each of its five balls, and
because lost lives are hidden the agent has to learn to serve anyway.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from .clips import Trace
from .hidden import Advance, HiddenScoreVectorEnv, chosen
from .log import StepLog
from .masks import NATIVE_HEIGHT, NATIVE_WIDTH, blank, blank_colour, resized
from .task import Game, Task, TaskError, read_options
from .threads import one_to_a_core

STACK, SIDE = 4, 84
ACTION_SETS = ("minimal", "full", "reduced")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtariOptions:
    """Options of an Atari task; all but `threads` change what happens."""

    sticky: float = 0.0
    """Chance that the console repeats the last action; Gymnasium's -v5 games use 0.25."""
    noop_max: int = 30
    """Up to so many no-ops after a reset, drawn at random."""
    actions: Literal["minimal", "full", "reduced"] = "minimal"
    """"reduced" leaves out actions without an effect of their own (Pong: FIRE and its kin)."""
    threads: int = 0
    """Emulator threads; 0: one per core. `make_vec` has checked them."""

    def __post_init__(self) -> None:
        _check(_is_number(self.sticky) and 0 <= self.sticky <= 1, "sticky", self.sticky, "0 to 1")
        _check(_is_count(self.noop_max, 1000), "noop_max", self.noop_max, "an integer, 0 to 1000")
        _check(self.actions in ACTION_SETS, "actions", self.actions, " | ".join(ACTION_SETS))

    def replay(self) -> dict[str, Any]:
        """The options that a clip needs to be played again."""
        return {name: value for name, value in asdict(self).items() if name != "threads"}


class AtariVec(HiddenScoreVectorEnv):
    """Endless Atari films without a score: observations uint8 [B, 4, 84, 84], newest last."""

    def __init__(self, task: Task, *, num_envs: int, seed: int, options: AtariOptions) -> None:
        game = _game(task)
        with one_to_a_core():
            self._ale = _emulator(
                game.rom, num_envs, options, num_threads=options.threads, stack_num=STACK
            )
        names, self._action_table = _action_table(game, options.actions)
        self.action_names = names
        self._mask = [resized(area, height=SIDE, width=SIDE) for area in game.score]
        self._early = game.switches_on
        self._switched_on = _first_picture(game, options) if self._early else None
        super().__init__(
            task,
            num_envs=num_envs,
            seed=seed,
            observation_space=Box(0, 255, (STACK, SIDE, SIDE), np.uint8),
            action_space=Discrete(len(names)),
            replay_options=options.replay(),
        )

    def _begin(self, seeds: np.ndarray) -> tuple[np.ndarray, StepLog]:
        frames, about = self._ale.reset(seed=seeds)
        if self._switched_on is not None:
            frames[about["episode_frame_number"] < self._early] = self._switched_on
        blank(frames, self._mask)
        frames[:, :-1] = frames[:, -1:]  # a still picture
        self._film = np.repeat(frames[None, :, -1], STACK - 1, axis=0)
        self._age = np.zeros(self.num_envs, np.int64)
        return frames, StepLog(self.num_envs, (), np.uint8)

    def _advance(self, actions: np.ndarray, log: StepLog) -> Advance:
        actions = chosen(self, actions)
        log.append(actions)
        frames, reward, terminated, truncated, about = self._ale.step(self._action_table[actions])
        end = terminated | truncated
        blank(frames, self._mask)
        early = end & (about["episode_frame_number"] < self._early)
        frames[early, -1] = self._film[self.steps_since_reset % len(self._film), early]
        self._splice(frames, end)
        return Advance(observation=frames, true_reward=reward.astype(np.float64), episode_end=end)

    def _splice(self, frames: np.ndarray, end: np.ndarray) -> None:
        """Until a new episode has filled its stack, the older frames are those that were shown.

        The emulator has black, or a picture left out, in their place. The film's slot `t % 3`
        holds the newest frame of observation t.
        """
        now = self.steps_since_reset + 1
        self._age = np.where(end, 0, self._age + 1)
        oldest_first = (now + np.arange(STACK - 1)) % len(self._film)
        for env in np.flatnonzero(self._age < STACK):
            frames[env, :-1] = self._film[oldest_first, env]
        self._film[now % len(self._film)] = frames[:, -1]

    def _trace(self, log: StepLog, *, env: int, start: int, steps: int) -> Trace:
        return Trace(log=log, env=env, start=0, stop=start + steps - 1, lead=start)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the emulators and their threads."""
        self._ale.close()
        del self._ale.ale  # ale-py 0.12 ends them where its C++ object is deleted, not in close


def draw(
    task: Task, options: dict[str, Any], seed: int, actions: np.ndarray, lead: int, *, masked: bool
) -> np.ndarray:
    """Play `actions` [lead + T - 1] again, in colour: the frames [T, 210, 160, 3] from `lead` on.

    A lone emulator with the seed of the sub-environment repeats it bit for bit.
    """
    game, settings = _game(task), read_options(AtariOptions, options, task=task.id)
    _, table = _action_table(game, settings.actions)
    if actions.dtype != np.uint8 or actions.ndim != 1 or (actions >= len(table)).any():
        raise TaskError(f"damaged clip: these are not actions of {task.id}")
    emulator = _emulator(
        game.rom,
        1,
        settings,
        num_threads=1,
        stack_num=1,
        grayscale=False,
        img_height=NATIVE_HEIGHT,
        img_width=NATIVE_WIDTH,
    )
    frames = np.empty((len(actions) + 1 - lead, NATIVE_HEIGHT, NATIVE_WIDTH, 3), np.uint8)
    frame, _ = emulator.reset(seed=np.array([seed]))
    frames[0] = frame[0, 0]
    for index, action in enumerate(table[actions], start=1):
        frame = emulator.step(action[None])[0]
        frames[max(index - lead, 0)] = frame[0, 0]
    if masked:
        blank_colour(frames, game.score)
    return frames


def _emulator(rom: str, num_envs: int, options: AtariOptions, **settings: Any) -> AtariVectorEnv:
    return AtariVectorEnv(
        rom,
        num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        repeat_action_probability=options.sticky,
        full_action_space=options.actions == "full",
        noop_max=options.noop_max,
        use_fire_reset=False,
        reward_clipping=False,
        episodic_life=False,
        frameskip=4,
        maxpool=True,
        **settings,
    )


def _first_picture(game: Game, options: AtariOptions) -> np.ndarray:
    """[84, 84] what the game shows one idle step after its start."""
    emulator = _emulator(
        game.rom, 1, replace(options, sticky=0.0, noop_max=0), num_threads=1, stack_num=1
    )
    emulator.reset(seed=np.array([0]))
    picture: np.ndarray = emulator.step(np.array([0]))[0][0, -1].copy()
    emulator.close()
    return picture


@lru_cache
def _console_actions(rom: str, full: bool) -> tuple[str, ...]:
    """Names of the console's actions, in the emulator's order."""
    emulator = AtariVectorEnv(rom, 1, full_action_space=full)
    return tuple(action.name for action in emulator.ale.get_action_set())


def _action_table(game: Game, which: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The agent's actions by name, and the emulator's index of each."""
    console = _console_actions(game.rom, which == "full")
    names = (game.reduced or console) if which == "reduced" else console
    return names, np.array([console.index(name) for name in names])


def _game(task: Task) -> Game:
    assert isinstance(task.details, Game), task
    return task.details


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _check(fits: bool, name: str, got: object, wanted: str) -> None:
    if not fits:
        raise TaskError(f"option {name}={got!r}: wanted {wanted}")
