"""What a task is: its identity, its segment length, and what a rater should prefer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np

from .masks import Rectangle

Domain = Literal["atari", "mujoco", "toy"]


class TaskError(ValueError):
    """What a user got wrong about a task: what was given, what was wanted, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """What an Atari task needs beyond a `Task`."""

    rom: str
    """Name of the ROM that ships with ale-py: "pong"."""
    score: tuple[Rectangle, ...]
    """Where the score stands on the native 210x160 screen; blanked everywhere."""
    reduced: tuple[str, ...] = ()
    """The minimal actions that differ in effect; () where all of them do."""
    switches_on: int = 0
    """Frames of a new episode in which the console shows something else than the game."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Robot:
    """What a robot task needs beyond a `Task`."""

    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Constructor arguments of Gymnasium's environment."""
    unhealthy_penalty: float = 0.0
    """Charged in the true reward at every step at which Gymnasium would terminate."""
    height: tuple[int, float] | None = None
    """(i, h): the true reward has qpos[i] - h, how far the torso is above h metres."""
    true_reward: str
    """The hidden reward in words."""
    source: str
    """Where the choice comes from."""

    def counted(self) -> dict[str, Any]:
        """All that decides the true reward, as JSON has it."""
        height = None if self.height is None else list(self.height)
        return {**self.options, "unhealthy_penalty": self.unhealthy_penalty, "height": height}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task: `tasks()` lists them, `make_vec(task.id, ...)` makes its environments."""

    id: str
    """"ALE/Pong-v5", "HalfCheetah-v5", "prefrl/Dot-v0"."""
    domain: Domain
    """"mujoco" stands for every robot with continuous actions, Pendulum-v1 included."""
    segment_steps: int
    """Default length of a segment, in agent steps."""
    fps: float
    """Agent steps per second when a clip plays at normal speed."""
    horizon: int | None
    """Episode length in agent steps, shown as truncation; None: episode ends are hidden."""
    end_penalty: float = 0.0
    """What an oracle charges at the last step of a hidden episode end."""
    instructions: str
    """One line: what a rater should prefer."""
    details: Game | Robot | None = None
    """What only this domain needs."""

    def counted(self) -> dict[str, Any] | None:
        """All that decides the true reward, where the task chooses it; None: it is the score."""
        return self.details.counted() if isinstance(self.details, Robot) else None


OptionsT = TypeVar("OptionsT")


def read_options(cls: type[OptionsT], given: Mapping[str, Any], *, task: str) -> OptionsT:
    """Build an options record from keywords; an unknown name is an error, not ignored."""
    known = [entry.name for entry in fields(cls)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            wanted = f"valid options: {', '.join(known)}" if known else "it has no options"
            hint = did_you_mean(name, known)
            raise TaskError(f"unknown option {name!r} for {task};{hint} {wanted}")
    return cls(**given)


def is_count(value: object) -> bool:
    """An integer of 0 or more; `True` is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return False
    return bool(value >= 0)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A hint with the nearest known name, or "".

    >>> did_you_mean("pong", ["ALE/Pong-v5", "Ant-v5"])
    " did you mean 'ALE/Pong-v5'?"
    """
    by_key: dict[str, str] = {}
    for name in known:
        by_key[name.lower()] = name
        by_key[_bare(name)] = name
    close = difflib.get_close_matches(given.lower(), by_key, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(_bare(given), by_key, n=1, cutoff=0.5)
    return f" did you mean {by_key[close[0]]!r}?" if close else ""


def _bare(name: str) -> str:
    """ "ALE/Pong-v5" -> "pong"."""
    return name.lower().split("/")[-1].split("-v")[0]
