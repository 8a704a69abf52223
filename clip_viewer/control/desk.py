"""What the viewer needs of the store: a desk for one rater, and a library of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from prefrl.feedback import Assignment, Instructions, Pictures, Progress, Reply, Viewing


class Desk(Protocol):
    """One rater's place; `prefrl.feedback.Desk` is it."""

    def take(self, count: int) -> Sequence[Assignment]: ...
    def submit(self, assignment: Assignment, reply: Reply, viewing: Viewing) -> str: ...
    def heartbeat(self) -> None: ...
    def undo(self) -> Assignment | None: ...
    def skip(self, assignment: Assignment) -> None: ...
    def flag(self, assignment: Assignment, note: str) -> None: ...
    def leave(self) -> None: ...
    def progress(self) -> Progress: ...


class Library(Protocol):
    """Where clips and instructions are read; `prefrl.feedback.FeedbackStore` is it."""

    def pictures(self, id: str) -> Pictures | None: ...
    def clip(self, id: str) -> bytes: ...
    def text(self, id: str) -> str | None: ...
    def prompt(self, id: str) -> str | None: ...


class Place(Protocol):
    """An opened run directory."""

    @property
    def library(self) -> Library: ...
    @property
    def task(self) -> str: ...
    def instructions(self) -> Instructions: ...
    def sit(self, name: str) -> Desk:
        """The desk of a rater, who has agreed to take part."""
        ...


Opener = Callable[[], AbstractContextManager[Place]]
"""Opens the run directory; called in the thread that will use it."""


@dataclass(slots=True)
class Seat:
    """What the clerk works with."""

    place: Place
    """The run directory."""
    desk: Desk | None = None
    """None before the rater has signed in."""

    @property
    def library(self) -> Library:
        """Of the place."""
        return self.place.library

    @property
    def at(self) -> Desk:
        """The desk, once there is one."""
        assert self.desk is not None, "not signed in"
        return self.desk
