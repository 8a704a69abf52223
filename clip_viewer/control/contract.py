"""Stand-ins for the records of `prefrl.feedback` that are being built beside this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from prefrl.feedback import Comparison

Form = Literal["comparison", "ranking", "rating", "edit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    segments: tuple[str, ...]
    policy_step: int = 0
    reason: str = ""
    priority: float = 0.0
    form: Form = "comparison"
    need: int = 1
    purpose: str = "normal"
    expected: str = ""
    repeat_of: str = ""

    @property
    def id(self) -> str:
        return "/".join((*self.segments, self.form, self.purpose))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    order: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    text: str


Reply = Comparison | Ranking | Rating | Edit


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    order: tuple[int, ...]
    key: str
    seconds: float
    first_frame_seconds: float
    loops: float
    speed: float
    note: str = ""
    instructions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    query: Query
    token: str
    order: tuple[int, ...]
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    answered: int
    answered_today: int
    labels: int
    due: int | None
    per_hour: float
    heartbeat_age: float | None
    behind: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    version: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    frames: np.ndarray
    fps: float
