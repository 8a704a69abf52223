"""How long a rater waits: for the window, and from an answer to the next pair.

    .venv/bin/python benchmarks/viewer_pace.py --pairs 30

Measured from the key going down to the moment the next pair's first frame is on the screen: the
flash that names the choice takes 250 ms of it by design. The clips have the size of an Atari
screen; half are stored as pictures, half are drawn by the drawing process. Without a display
(SDL_VIDEODRIVER=dummy) unless --display is given, which needs one (Xvfb will do).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pygame

from clip_viewer.control.clerk import Clerk
from clip_viewer.control.controller import Controller
from clip_viewer.control.drawing import Drawer
from clip_viewer.control.questions import FLASH_SECONDS, LEAST_SECONDS, Question
from clip_viewer.show.window import FRAME_MS, SIZE, Window
from prefrl.commands.rate import RunPlace
from prefrl.feedback import FeedbackStore, Provenance, Query, Segment

STEPS, FPS = 25, 15.0
TIMED = """
import os, sys, time, pygame
flip = pygame.display.flip
def first():
    flip()
    print(time.time() - float(os.environ["STARTED"]))
    sys.stdout.flush()
    os._exit(0)
pygame.display.flip = first
from prefrl.cli import main
main(["rate", sys.argv[1], "--name", "pace"])
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--openings", type=int, default=5)
    parser.add_argument("--display", action="store_true", help="use the display there is")
    args = parser.parse_args()
    if not args.display:
        os.environ["SDL_VIDEODRIVER"] = "dummy"
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make_run(run, pairs=args.pairs + 1)
        opening = [window_opens(run) for _ in range(args.openings)]
        waits = answer_all(run, count=args.pairs)
    beyond = [wait - FLASH_SECONDS for wait in waits]
    report = {
        "driver": "display" if args.display else "dummy",
        "load_average": round(os.getloadavg()[0], 1),
        "window_open_seconds": summary(opening),
        "key_to_next_pair_ms": summary([1000 * wait for wait in waits]),
        "of_it_beyond_the_flash_ms": summary([1000 * wait for wait in beyond]),
    }
    print(json.dumps(report, indent=1))


def summary(values: list[float]) -> dict[str, float]:
    """Median, 90th percentile, largest."""
    low, high = np.percentile(values, [50, 90])
    return {"median": round(low, 2), "p90": round(high, 2), "max": round(max(values), 2)}


def window_opens(run: Path) -> float:
    """Seconds from starting the program to the first picture of its window."""
    about = {**os.environ, "STARTED": str(time.time()), "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    command = [sys.executable, "-c", TIMED, str(run)]
    done = subprocess.run(command, env=about, capture_output=True, text=True, check=True)
    return float(done.stdout)


def answer_all(run: Path, *, count: int) -> list[float]:
    """Seconds from each key to the next pair."""

    @contextmanager
    def opened() -> Any:
        with FeedbackStore.open(run) as store:
            yield RunPlace(store)

    clerk, drawer = Clerk(opened), Drawer(draw, directory=run)
    controller = Controller(clerk=clerk, drawer=drawer, name="pace")
    window = Window(controller, size=SIZE)
    try:
        _press(window, pygame.K_RETURN)
        _until(window, lambda: type(controller.screen).__name__ == "Instructions")
        _press(window, pygame.K_RETURN)
        return [_answer(window) for _ in range(count)]
    finally:
        window.close()
        drawer.close()
        clerk.close(seconds=30)


def _answer(window: Window) -> float:
    """Watch a pair for as long as one must, answer it, wait for the next one."""
    controller = window.controller
    _until(window, lambda: _plays(controller))
    question = controller.screen
    _until(window, lambda: question.play.seconds >= LEAST_SECONDS + 0.5)  # type: ignore[attr-defined]
    started = time.perf_counter()
    _press(window, pygame.K_LEFT)
    _until(window, lambda: controller.screen is not question and _plays(controller))
    return time.perf_counter() - started


def _plays(controller: Controller) -> bool:
    screen = controller.screen
    return isinstance(screen, Question) and screen.play is not None


def _press(window: Window, key: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode="", mod=0))
    pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key, mod=0))
    window.turn(wait_ms=FRAME_MS)


def _until(window: Window, done: Any) -> None:
    """Turn as the program does; each turn ends with the picture on the screen."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, window.controller.view()
        window.turn(wait_ms=FRAME_MS)


def make_run(run: Path, *, pairs: int) -> None:
    """A run directory with that many pairs."""
    with FeedbackStore.create(run, task="ALE/Pong-v5", seed=0) as store:
        segments = [_segment(i) for i in range(2 * pairs)]
        store.add_segments(segments)
        for i, segment in enumerate(segments):
            if i % 4 < 2:
                store.add_pictures(segment.id, draw(segment.clip)[0], fps=FPS)
        ids = [segment.id for segment in segments]
        store.add_queries(
            [
                Query(segments=(a, b), policy_step=0, reason="pace", priority=0.0)
                for a, b in zip(ids[::2], ids[1::2], strict=True)
            ]
        )


def _segment(number: int) -> Segment:
    about = Provenance(task="ALE/Pong-v5", seed=0, policy_step=0, env=0, episode=0, t0=number)
    return Segment(
        observations=np.full((STEPS, 1), number, dtype=np.float32),
        actions=np.zeros(STEPS, dtype=np.int64),
        true_reward=np.zeros(STEPS),
        ended=False,
        provenance=about,
        clip=b"%d" % number,
    )


def draw(recipe: bytes) -> tuple[np.ndarray, float]:
    """A picture that moves; stands for the emulator, which takes as long."""
    frames = np.full((STEPS, 210, 160, 3), int(recipe) * 7 % 256, dtype=np.uint8)
    for t, frame in enumerate(frames):
        frame[20 + 5 * t : 40 + 5 * t, 60:70] = 255
    return frames, FPS


if __name__ == "__main__":
    main()
