"""Random keys, clicks, resizes and focus changes: no crash, flat memory, no lost answer.

    .venv/bin/python benchmarks/viewer_monkey.py --events 100000

The window is drawn without a display, at a clock that runs ahead; store, desk, clerk thread and
drawing process are the real ones. Every answer that the desk acknowledged must be in the
database at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pygame

from clip_viewer.control.actions import Action
from clip_viewer.control.clerk import Clerk
from clip_viewer.control.controller import Controller
from clip_viewer.control.drawing import Drawer
from clip_viewer.show.window import Window
from prefrl.feedback import (
    Assignment,
    Desk,
    FeedbackStore,
    Instructions,
    Provenance,
    Query,
    Reply,
    Segment,
    Viewing,
)

SEGMENTS, AT_ONCE = 60, 40
TURN_SECONDS = 0.002
SETTLED = 0.3  # of the events, after which memory should not grow any more
ARROWS = (pygame.K_LEFT, pygame.K_RIGHT, pygame.K_UP, pygame.K_DOWN)
KEYS = (*ARROWS * 6, *(pygame.K_RETURN,) * 4, pygame.K_BACKSPACE, pygame.K_DELETE,
        pygame.K_F1, pygame.K_F11, pygame.K_HOME, pygame.K_END, pygame.K_PAGEDOWN,
        pygame.K_PAGEUP, pygame.K_TAB, pygame.K_LSHIFT, 0)  # fmt: skip
LEAVING = 0.01  # of the keys: more would mean to sign in most of the time
LETTERS = "snfr,.-+= 123456789qäß漢\U0001f600"
SIZES = ((1, 1), (320, 240), (640, 480), (1280, 800), (200, 900), (3840, 2160))
CHANGES = (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED, pygame.WINDOWFOCUSGAINED,
           pygame.WINDOWMINIMIZED, *(pygame.WINDOWRESTORED,) * 4,
           pygame.WINDOWLEAVE, pygame.WINDOWEXPOSED)  # fmt: skip


Acknowledged = tuple[str, Reply, str]
"""Query, answer, and what the desk said."""


@dataclass(slots=True)
class Found:
    """What came of it."""

    events: int
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    """What was acknowledged and is not in the database."""
    sittings: int = 0
    windows_drawn: int = 0
    screens: set[str] = field(default_factory=set)
    megabytes: list[float] = field(default_factory=list)
    """Resident memory, every hundredth of the way."""

    @property
    def growth(self) -> float:
        """Megabytes, from when it had settled to the end; medians, as memory comes and goes."""
        settled = self.megabytes[int(len(self.megabytes) * SETTLED) :]
        few = max(len(settled) // 7, 1)
        return float(np.median(settled[-few:]) - np.median(settled[:few]))


def main() -> None:
    """Let the monkey loose and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = monkey(Path(folder) / "run", events=args.events, seed=args.seed)
    report = {
        "events": found.events,
        "acknowledged": found.acknowledged,
        "lost": found.lost,
        "sittings": found.sittings,
        "windows_drawn": found.windows_drawn,
        "screens": sorted(found.screens),
        "megabytes_first_last": [found.megabytes[0], found.megabytes[-1]],
        "megabytes_grown_after_settling": round(found.growth, 1),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(json.dumps(report, indent=1))
    sys.exit(bool(found.lost))


def monkey(run: Path, *, events: int, seed: int) -> Found:
    """Play with the viewer of a new run directory; raises whatever the viewer raises."""
    chance = random.Random(seed)
    found = Found(events=events)
    acknowledged: list[Acknowledged] = []
    with make_run(run) as trainer:
        left = events
        while left > 0:
            found.sittings += 1
            left = _sit(run, trainer, acknowledged, found, left, chance)
        found.acknowledged = len(acknowledged)
        stored = {(label.query.id, label.reply) for label in trainer.answers()}
        found.lost = [str(answer) for answer in acknowledged if answer[:2] not in stored]
    return found


def _sit(
    run: Path,
    trainer: FeedbackStore,
    acknowledged: list[Acknowledged],
    found: Found,
    left: int,
    chance: random.Random,
) -> int:
    """One window, from sign-in until it is closed or no event is left; returns how many are."""
    now = [0.0]
    clerk, drawer = Clerk(lambda: _opened(run, acknowledged)), Drawer(draw, directory=run)
    controller = Controller(clerk=clerk, drawer=drawer, name="monkey", clock=lambda: now[0])
    largest_once = SIZES[-1] if left == found.events else (640, 480)  # its memory stays
    window = Window(controller, size=largest_once)
    try:
        while left > 0 and not controller.done:
            for _ in range(chance.randint(1, 4)):
                _do_something(window, chance)
                left -= 1
                if left % max(found.events // 100, 1) == 0:
                    found.megabytes.append(resident_megabytes())
            now[0] += chance.choice((0.01, 0.05, 0.3, 1.0))
            window.turn(wait_ms=0)
            time.sleep(TURN_SECONDS)  # the store is written in real time
            found.screens.add(type(controller.front).__name__)
            if type(controller.screen).__name__ == "Waiting" and not left_to_ask(trainer):
                ask(trainer, chance)
    finally:
        found.windows_drawn += window.pictures
        window.close()
        drawer.close()
        assert clerk.close(seconds=60)
    return left


def _do_something(window: Window, chance: random.Random) -> None:
    """Post one event, or resize."""
    kind = chance.random()
    if kind < 0.4:
        key = pygame.K_ESCAPE if chance.random() < LEAVING else chance.choice(KEYS)
        _post(pygame.KEYDOWN, key=key, unicode="", mod=_mod(chance))
        if chance.random() < 0.8:
            _post(pygame.KEYUP, key=key, mod=0)
    elif kind < 0.6:
        letter = chance.choice(LETTERS)
        _post(pygame.KEYDOWN, key=ord(letter), unicode=letter, mod=_mod(chance))
        _post(pygame.TEXTINPUT, text=letter)
    elif kind < 0.8:
        _post(pygame.KEYUP, key=chance.choice((*KEYS, *map(ord, LETTERS))), mod=0)
    elif kind < 0.88:
        _mouse(window, chance)
    elif kind < 0.95:
        _pad(chance)
    elif kind < 0.97:
        size = chance.choice(SIZES if chance.random() < 0.1 else SIZES[:3])
        pygame.display.set_mode(size, pygame.RESIZABLE)
    elif kind < 0.9998:
        _post(chance.choice(CHANGES))
    else:
        _post(pygame.QUIT)


def _mouse(window: Window, chance: random.Random) -> None:
    width, height = pygame.display.get_window_size()
    at = (chance.randrange(-5, width + 5), chance.randrange(-5, height + 5))
    stays = [area for area, press in window.drawn.zones if press.action is not Action.LEAVE]
    if stays and chance.random() < 0.5:
        at = chance.choice(stays).center
    if chance.random() < 0.3:
        _post(pygame.MOUSEWHEEL, x=0, y=chance.randint(-3, 3))
    _post(pygame.MOUSEMOTION, pos=at, rel=(0, 0), buttons=(0, 0, 0))
    _post(pygame.MOUSEBUTTONDOWN, pos=at, button=chance.randint(1, 3))


def _pad(chance: random.Random) -> None:
    kind = chance.randrange(5)
    if kind == 0:
        _post(pygame.JOYHATMOTION, value=(chance.randint(-1, 1), chance.randint(-1, 1)))
    elif kind == 1:
        axis, value = chance.randint(0, 6), chance.uniform(-1, 1)
        _post(pygame.JOYAXISMOTION, axis=axis, value=value)
    elif kind == 2:
        _post(pygame.JOYDEVICEADDED, device_index=chance.randint(0, 9))
    elif kind == 3:
        _post(pygame.JOYDEVICEREMOVED, instance_id=chance.randint(0, 9))
    else:
        button = chance.choice([n for n in range(12) if n != 6])  # "leave" would end too often
        _post(chance.choice((pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP)), button=button)


def _mod(chance: random.Random) -> int:
    return int(pygame.KMOD_CTRL) if chance.random() < 0.1 else 0


def _post(kind: int, **about: Any) -> None:
    pygame.event.post(pygame.event.Event(kind, **about))


# ---- the run it plays with ------------------------------------------------------------


@contextmanager
def _opened(run: Path, acknowledged: list[Acknowledged]) -> Iterator[Place]:
    with FeedbackStore.open(run) as store:
        yield Place(store, acknowledged)


class Place:
    """A run directory that remembers what its desks acknowledged."""

    def __init__(self, store: FeedbackStore, acknowledged: list[Acknowledged]) -> None:
        self.library, self.task, self._acknowledged = store, store.task, acknowledged

    def instructions(self) -> Instructions:
        """Of the store."""
        return self.library.instructions()

    def sit(self, name: str) -> Desk:
        """A desk."""
        return Witnessed(self.library, rater=name, acknowledged=self._acknowledged)


class Witnessed(Desk):
    """A desk whose acknowledgements are written down."""

    def __init__(
        self, store: FeedbackStore, *, rater: str, acknowledged: list[Acknowledged]
    ) -> None:
        super().__init__(store, rater=rater)
        self._acknowledged = acknowledged

    def submit(self, assignment: Assignment, reply: Reply, viewing: Viewing | None) -> Any:
        """Only what has returned was acknowledged."""
        outcome = super().submit(assignment, reply, viewing)
        if viewing is not None:  # None: a skip, which is no answer
            self._acknowledged.append((assignment.query.id, reply, outcome))
        return outcome


@contextmanager
def make_run(run: Path) -> Iterator[FeedbackStore]:
    """A store of small clips: with pictures, to be drawn, and some damaged."""
    with FeedbackStore.create(run, task="monkey", seed=0) as store:
        segments = [_segment(i) for i in range(SEGMENTS)]
        store.add_segments(segments)
        for i, segment in enumerate(segments):
            if i % 10:
                frames = np.full((10, 21, 16, 3), 4 * i, dtype=np.uint8)
                store.add_pictures(segment.id, frames, fps=10.0)
        store.set_instructions("Prefer what you like.\n\n" + "A second paragraph. " * 40)
        ask(store, random.Random(0))
        yield store


def _segment(number: int) -> Segment:
    return Segment(
        observations=np.full((2, 1), number, dtype=np.float32),
        actions=np.zeros(2, dtype=np.int64),
        true_reward=np.zeros(2),
        ended=False,
        provenance=Provenance(task="monkey", seed=0, policy_step=0, env=0, episode=0, t0=number),
        clip=b"damaged" if number % 15 == 0 else b"%d" % number,
    )


def ask(store: FeedbackStore, chance: random.Random) -> None:
    """More queries, of every form."""
    ids = [_segment(i).id for i in range(SEGMENTS)]
    forms = {"comparison": 2, "ranking": chance.randint(3, 6), "rating": 1, "edit": 1}
    queries = []
    for _ in range(AT_ONCE):
        form: Any = chance.choice(("comparison", "comparison", *forms))
        queries.append(
            Query(
                segments=tuple(chance.sample(ids, forms[form])),
                policy_step=chance.randrange(10**9),
                reason="monkey",
                priority=0.0,
                form=form,
            )
        )
    store.add_queries(queries)
    store.beat(step=0, labels_due=1000, labels=0)


def left_to_ask(store: FeedbackStore) -> bool:
    """Is anything left that the monkey has neither answered nor passed over?"""
    return bool(store.queue.upcoming("monkey", now=time.time(), cap=None, count=1))


def draw(recipe: bytes) -> tuple[np.ndarray, float]:
    """Runs in the drawing process."""
    if recipe == b"damaged":
        raise ValueError("its checksum is wrong")
    return np.full((8, 30, 40, 3), int(recipe), dtype=np.uint8), 12.0


def resident_megabytes() -> float:
    """Memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    main()
