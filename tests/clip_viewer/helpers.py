"""A desk, a library, a clock and a clerk for tests of the viewer."""

from __future__ import annotations

import itertools
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from clip_viewer.control.actions import Action, Press
from clip_viewer.control.clerk import TROUBLE, Job
from clip_viewer.control.controller import Controller
from clip_viewer.control.desk import Seat
from prefrl.feedback import Assignment, Instructions, Pictures, Progress, Query

GUIDE = "Prefer winning points.\n\nMoving well is not enough."


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class PromptClerk:
    """Does at once, in `poll`, what the real one does in its thread."""

    def __init__(self, seat) -> None:
        self.seat, self.trouble = seat, None
        self.jobs, self.stuck = deque(), False

    def call(self, work, then=lambda _: None) -> None:
        self.jobs.append(Job(work, then))

    def poll(self) -> None:
        while self.jobs and not self.stuck:
            try:
                result = self.jobs[0].work(self.seat)
            except TROUBLE as error:
                self.stuck = True
                return self.trouble(error)
            self.jobs.popleft().then(result)

    def retry(self) -> None:
        self.stuck = False


@dataclass
class FakeDesk:
    """Keeps a list of queries in memory; `fails` is raised by the next submits."""

    queries: list[Query]
    swapped: bool = False
    answers: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    flagged: list = field(default_factory=list)
    beats: int = 0
    left: int = 0
    fails: Exception | None = None
    age: float | None = 4.0
    for_others: int = 0
    outcome: str = "ok"
    tokens: itertools.count = field(default_factory=itertools.count)
    leases: dict = field(default_factory=dict)

    def take(self, count):
        open_queries = [q for q in self.queries if q not in self._closed()]
        return [self._leased(query) for query in open_queries[:count]]

    def submit(self, assignment, reply, viewing):
        if self.fails is not None:
            raise self.fails
        self.answers.append((assignment.query, reply, viewing))
        return self.outcome

    def undo(self):
        if not self.answers:
            return None
        query = self.answers.pop()[0]
        self.leases.pop(query.id, None)
        return self._leased(query)

    def skip(self, assignment):
        self.skipped.append(assignment.query)

    def flag(self, assignment, note):
        self.flagged.append((assignment.query, note))

    def heartbeat(self):
        self.beats += 1

    def leave(self):
        self.left += 1
        self.leases.clear()

    def progress(self):
        return Progress(
            answered=len(self.answers), answered_today=len(self.answers), labels=212, due=280,
            per_hour=300.0, heartbeat_age=self.age, behind=3, waiting=len(self.queries),
            open=self.for_others + len(self.queries),
        )  # fmt: skip

    def _closed(self):
        return [a[0] for a in self.answers] + self.skipped + [f[0] for f in self.flagged]

    def _leased(self, query):
        if query.id not in self.leases:
            order = tuple(range(len(query.segments)))
            order = order[::-1] if self.swapped else order
            token = str(next(self.tokens))
            self.leases[query.id] = Assignment(query=query, token=token, order=order, expires=0.0)
        return self.leases[query.id]


@dataclass
class FakeLibrary:
    """Clips by segment; what is missing here must be drawn."""

    clips: dict = field(default_factory=dict)
    texts: dict = field(default_factory=dict)
    prompts: dict = field(default_factory=dict)
    recipes: dict = field(default_factory=dict)

    def pictures(self, id):
        found = self.clips.get(id)
        if isinstance(found, Exception):
            raise found
        return found

    def clip(self, id):
        return self.recipes[id]

    def text(self, id):
        return self.texts.get(id)

    def prompt(self, id):
        return self.prompts.get(id)


class FakeDrawer:
    """Draws when told to."""

    def __init__(self) -> None:
        self.asked, self.ready = [], []

    def request(self, id, recipe):
        self.asked.append((id, recipe))

    def forget(self, wanted):
        self.asked = [order for order in self.asked if order[0] in wanted]

    def poll(self):
        done, self.ready = self.ready, []
        return done


def pictures(seed: int = 0, *, frames: int = 20, fps: float = 10.0) -> Pictures:
    """A small clip of one colour that changes from frame to frame."""
    shade = ((np.arange(frames) * 5 + seed * 60) % 256).astype(np.uint8)[:, None, None, None]
    return Pictures(frames=np.broadcast_to(shade, (frames, 21, 16, 3)).copy(), fps=fps)


@dataclass
class Room:
    """A controller among fakes."""

    controller: Controller
    desk: FakeDesk
    library: FakeLibrary
    drawer: FakeDrawer
    clock: Clock

    def wait(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass, and tick."""
        for _ in range(max(round(seconds / step), 1)):
            self.clock.now += step
            self.controller.tick()

    def tap(self, action: Action, key: str | None = None, number: int = 0) -> None:
        """Press, release, tick."""
        key = key or action.name.title()
        self.controller.press(Press(action=action, key=key, number=number))
        self.controller.release(key)
        self.controller.tick()

    @property
    def screen(self) -> str:
        """The name of the present screen."""
        return type(self.controller.screen).__name__

    def begin(self) -> Room:
        """Sign in, read the instructions, see the first question."""
        self.controller.tick()
        self.tap(Action.ENTER)
        self.tap(Action.ENTER)
        self.wait(0.1)
        return self

    def answer(self, action: Action = Action.LEFT, number: int = 0) -> None:
        """Watch long enough, answer, and see the flash out."""
        self.wait(1.0)
        self.tap(action, number=number)
        self.wait(0.4)


def segment_id(number: int) -> str:
    """As segments are called."""
    return f"{number:064x}"


def pairs(count: int, **settings) -> list[Query]:
    """Queries about segments of their own."""
    return [query((2 * i, 2 * i + 1), **settings) for i in range(count)]


def query(numbers, **settings) -> Query:
    """About segments of these numbers."""
    ids = tuple(map(segment_id, numbers))
    return Query(segments=ids, policy_step=0, reason="uniform", priority=0.0, **settings)


def room(queries, *, name: str = "ann", swapped: bool = False, library=None) -> Room:
    """A controller at a desk with these queries; all of their clips are there."""
    desk, drawer, clock = FakeDesk(list(queries), swapped=swapped), FakeDrawer(), Clock()
    if library is None:
        ids = sorted({s for query in queries for s in query.segments})
        library = FakeLibrary({s: pictures(i) for i, s in enumerate(ids)})
    place = SimpleNamespace(
        library=library,
        task="ALE/Pong-v5",
        instructions=lambda: Instructions(version=7, text=GUIDE),
        sit=lambda name: desk,
    )
    clerk = PromptClerk(Seat(place))
    controller = Controller(clerk=clerk, drawer=drawer, name=name, clock=clock)
    return Room(controller, desk, library, drawer, clock)


@contextmanager
def opened(place):
    """An opener's context around a place that is open already."""
    yield place
