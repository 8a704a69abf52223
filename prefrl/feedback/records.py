"""Queries and answers: what is put to a rater, and what came back."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Literal, get_args

Choice = Literal["first", "second", "tie", "cannot", "skip"]
CHOICES: tuple[str, ...] = get_args(Choice)
TARGETS = {"first": 0.0, "second": 1.0, "tie": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """K segments put to a rater together; K = 2 is a clip pair."""

    segments: tuple[str, ...]
    """[K] ids; "first" and "second" in an answer count from here, however a screen shows them."""
    policy_step: int
    """Agent steps of the run when it was asked."""
    reason: str
    """The strategy that chose it."""
    priority: float
    """Higher ones are asked first."""

    def __post_init__(self) -> None:
        if len(self.segments) < 2 or len(set(self.segments)) != len(self.segments):
            raise ValueError(f"query.segments: got {self.segments!r}, wanted 2 or more, distinct")
        for segment in self.segments:
            _check_id("query.segments", segment)
        if type(self.policy_step) is not int or self.policy_step < 0:
            raise ValueError(f"query.policy_step: got {self.policy_step!r}, wanted 0 or more")
        if not math.isfinite(self.priority):
            raise ValueError(f"query.priority: got {self.priority}, wanted a finite number")

    @property
    def id(self) -> str:
        """Hex SHA-256 of the segments, in order, and the step: a resumed run repeats it."""
        return sha256_of("query", list(self.segments), self.policy_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Which of two segments a rater prefers.

    >>> Comparison(choice="second").target
    1.0
    """

    choice: Choice
    """A preference, a tie ("equally good"), "cannot" (cannot be compared: final, not trained
    on), or "skip" (passed over: recorded and counted, the query stays open)."""

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"choice: got {self.choice!r}, wanted one of {', '.join(CHOICES)}")

    @property
    def target(self) -> float | None:
        """Probability that the second is better: 0, 1, or 0.5 for a tie; None: do not train."""
        return TARGETS.get(self.choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A comparison on its way into the store."""

    id: str
    """Made by whoever answers, before sending: sent twice, it is stored once."""
    query: str
    """The query's id."""
    rater: str
    """The rater's name or pseudonym."""
    comparison: Comparison
    """What was answered."""

    def __post_init__(self) -> None:
        _check_id("answer.query", self.query)
        for name in ("id", "rater"):
            value = getattr(self, name)
            if not isinstance(value, str) or not 1 <= len(value) <= 128:
                raise ValueError(f"answer.{name}: got {value!r}, wanted 1 to 128 characters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A stored answer."""

    seq: int
    """Its place in the order of arrival, from 1; never used twice."""
    id: str
    """The answer's id."""
    query: Query
    """What was asked."""
    rater: str
    """Who answered."""
    comparison: Comparison
    """What was answered."""


def answer_id(query: str, rater: str) -> str:
    """The id of the answer of a rater who answers each query once, such as an oracle."""
    return sha256_of("answer", query, rater)


def sha256_of(*parts: object) -> str:
    """Hex SHA-256 of plain values, the same in every process and on every machine."""
    return hashlib.sha256(json.dumps(parts, allow_nan=False).encode()).hexdigest()


def _check_id(name: str, value: str) -> None:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"{name}: got {value!r}, wanted 64 hexadecimal digits")
