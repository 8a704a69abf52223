"""Three people rate beside a live Pong run: real windows, real keys, one killed, one undoing.

    .venv/bin/python benchmarks/viewer_live.py --out /tmp/live --screens docs/viewer

Each person has a virtual display (Xvfb) and a keyboard (xdotool): Debian's packages `xvfb` and
`xdotool`. The trainer is `prefrl train ALE/Pong-v5 --rater human`; it waits for the answers that
are due. One person is killed with -9 between two answers and comes back, one takes an answer back.
At the end the database must hold what was pressed, in that order, and nothing else, and the
trainer must have learned from all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from prefrl.errors import UserError
from prefrl.feedback import Comparison, FeedbackStore
from prefrl.loop.metrics import read_metrics

SIZE = (1280, 800)
BROWN = (144, 72, 17)  # Pong's court
WATCHED = 1.2  # seconds before a key counts for sure
PATIENCE = 20.0  # seconds for an answer to reach the database
LONGEST = 1800.0  # seconds for everything
KEYS = ("Left", "Right", "Left", "Up", "Right", "Down", "Left", "Right", "Right", "Left")
TRAIN = [
    *("--rater", "human", "--schedule", "strict", "--labels", "30", "--steps", "6000"),
    *("--num-envs", "4", "--rollout-steps", "128", "--seed", "0", "--threads", "1"),
    *("--queries.initial", "0.5", "--queries.every", "1024", "--queries.pool", "100"),
    *("--model.batch", "4", "--model.pretrain-epochs", "4", "--no-video"),
]


class Display:
    """A virtual screen with a keyboard; closed with the context."""

    def __init__(self, number: int, folder: Path) -> None:
        self.name, self._memory = f":{number}", folder / f"screen-{number}"
        self._memory.mkdir(parents=True)
        size = f"{SIZE[0]}x{SIZE[1]}x24"
        command = ["Xvfb", self.name, "-screen", "0", size, "-fbdir", str(self._memory)]
        self._server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda: Path(f"/tmp/.X11-unix/X{number}").exists(), "the virtual display")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait()

    @property
    def environment(self) -> dict[str, str]:
        """For programs that are to be seen on it."""
        return {**os.environ, "DISPLAY": self.name, "SDL_VIDEODRIVER": "x11"}

    def press(self, key: str) -> None:
        """As if somebody sat there."""
        subprocess.run(["xdotool", "key", key], env=self.environment, check=True)

    def window(self) -> str:
        """Wait for the window, and give it the keyboard, as a window manager would."""
        found = ""

        def look() -> bool:
            nonlocal found
            command = ["xdotool", "search", "--onlyvisible", "--class", "."]  # the only one there
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
            found = done.stdout.strip()
            return bool(found)

        until(look, "a window")
        subprocess.run(["xdotool", "windowfocus", found], env=self.environment, check=True)
        return found

    def picture(self) -> Image.Image:
        """What is on it: X's own dump of its memory (XWD, 32 bits a pixel)."""
        data = (self._memory / "Xvfb_screen0").read_bytes()
        about = struct.unpack(">25I", data[:100])
        width, height, line, colours = about[4], about[5], about[12], about[19]
        start = about[0] + 12 * colours
        rows = np.frombuffer(data[start : start + line * height], np.uint8).reshape(height, line)
        pixels = rows[:, : 4 * width].reshape(height, width, 4)[..., 2::-1]
        return Image.fromarray(np.ascontiguousarray(pixels))


@dataclass(slots=True)
class Person:
    """Somebody at a display."""

    name: str
    display: Display
    run: Path
    script: list[str] = field(default_factory=list)
    """Keys whose answers should stand in the database, in order."""
    process: subprocess.Popen[bytes] | None = None
    _next: int = 0
    _waiting: str = ""

    def sit_down(self, shoot: Callable[[str], None] = lambda _: None) -> None:
        """Open the viewer, agree, read the instructions."""
        command = [sys.executable, "-m", "prefrl.cli", "rate", str(self.run), "--name", self.name]
        self.process = subprocess.Popen(command, env=self.display.environment)
        self.display.window()
        shoot("sign-in")
        self.display.press("Return")
        until(lambda: self.name in sessions(self.run), f"{self.name} to sign in")
        shoot("instructions")
        time.sleep(2)
        self.display.press("Return")
        time.sleep(2)

    def answer(self) -> bool:
        """Press the next key, if there is a question; has it arrived?"""
        before = len(answers(self.run, self.name))
        if self._waiting and before > len(self.script):  # the last key has come late
            self._arrived()
            return True
        self._waiting = KEYS[(self._next + len(self.name)) % len(KEYS)]
        time.sleep(WATCHED)
        self.display.press(self._waiting)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if len(answers(self.run, self.name)) > before:
                self._arrived()
                return True
            time.sleep(0.1)
        self.display.press("Return")  # answers nothing, but ends a break
        return False

    def _arrived(self) -> None:
        self.script.append(self._waiting)
        self._waiting, self._next = "", self._next + 1

    def undo(self) -> None:
        """Take the last answer back."""
        before = len(answers(self.run, self.name))
        time.sleep(1)
        self.display.press("BackSpace")
        until(lambda: len(answers(self.run, self.name)) < before, "an answer to be taken back")
        self.script.pop()

    def leave(self) -> int:
        """Escape, and Escape again at the summary; returns the exit code."""
        assert self.process is not None
        self.display.press("Escape")
        time.sleep(2)
        self.display.press("Escape")
        return self.process.wait(60)

    def kill(self) -> None:
        """As when the power fails."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Set them at it, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; made anew")
    parser.add_argument("--screens", type=Path, help="keep pictures here, as live-*.png")
    args = parser.parse_args()
    for tool in ("Xvfb", "xdotool"):
        if shutil.which(tool) is None:
            raise UserError(f"{tool} is missing: install Debian's packages xvfb and xdotool")
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    started, run = time.monotonic(), args.out / "run"
    with ExitStack() as stack:
        displays = [stack.enter_context(Display(90 + i, args.out)) for i in range(3)]
        people = [
            Person(name=name, display=display, run=run)
            for name, display in zip(("ann", "bob", "cyd"), displays, strict=True)
        ]
        trainer = subprocess.Popen(
            [sys.executable, "-m", "prefrl.cli", "train", "ALE/Pong-v5", "--out", str(run), *TRAIN]
        )
        stack.callback(trainer.kill)
        told = rate(people, trainer, Camera(args.screens))
    told |= compare(run, people)
    told["minutes"] = round((time.monotonic() - started) / 60, 1)
    print(json.dumps(told, indent=1))
    sys.exit(not told["equal"])


@dataclass(slots=True)
class Camera:
    """Keeps small pictures of what is on a display, once there is something new on it."""

    folder: Path | None
    _last: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, display: Display, name: str, *, court: bool = False) -> None:
        """Take one.

        Args:
            court: wait for Pong's brown, that is, until the clips are drawn.
        """
        pixels = np.asarray(display.picture())
        end = time.monotonic() + 60
        while time.monotonic() < end and not self._is_new(display, pixels, court):
            time.sleep(0.5)
            pixels = np.asarray(display.picture())
        self._last[display.name] = pixels
        if self.folder is not None:
            picture = Image.fromarray(pixels).resize((960, 600), Image.Resampling.LANCZOS)
            small = picture.quantize(128, dither=Image.Dither.NONE)
            small.save(self.folder / f"live-{name}.png", optimize=True)

    def _is_new(self, display: Display, pixels: np.ndarray, court: bool) -> bool:
        if court and (np.abs(pixels.astype(int) - BROWN).max(-1) < 12).mean() < 0.2:
            return False
        last = self._last.get(display.name)
        changed = np.ones(1) if last is None else (pixels != last).any(-1)
        return bool(changed.mean() > 0.01 and pixels.std() > 5)


def rate(people: list[Person], trainer: subprocess.Popen[bytes], camera: Camera) -> dict[str, Any]:
    """Everybody answers in turn until the trainer has what it wants."""
    ann, bob, cyd = people
    run = ann.run
    until(lambda: (run / "labels.db").exists(), "the trainer's store")
    ann.sit_down(lambda name: camera(ann.display, name))
    camera(ann.display, "waiting")
    bob.sit_down()
    cyd.sit_down()
    until(lambda: open_queries(run) > 0, "the first questions")
    _see_around(ann, camera)
    undone = killed = False
    end = time.monotonic() + LONGEST
    while trainer.poll() is None:
        assert time.monotonic() < end, "the trainer never had enough"
        for person in people:
            if open_queries(run) == 0:
                time.sleep(0.5)
                continue
            person.answer()
        if len(bob.script) >= 3 and not undone:
            bob.undo()
            time.sleep(0.5)
            camera(bob.display, "undone")
            undone = True
        if len(cyd.script) >= 2 and not killed:
            cyd.kill()
            cyd.sit_down()
            killed = True
    camera(bob.display, "end-of-run")
    codes = [person.leave() for person in people]
    return {"undone": undone, "killed": killed, "exit_codes": codes, "trainer": trainer.returncode}


def _see_around(person: Person, camera: Camera) -> None:
    """The screens that lie beside the answers."""
    camera(person.display, "pair", court=True)
    for keys, name in ((("space", "minus"), "paused"), (("n",), "note"), (("F1",), "help")):
        for key in keys:
            person.display.press(key)
        time.sleep(1)  # else what is new may be what lay below the screen before
        camera(person.display, name)
        person.display.press("space" if name == "paused" else "Escape")
        time.sleep(1)
    person.display.press("plus")


def compare(run: Path, people: list[Person]) -> dict[str, Any]:
    """The database beside the scripts, and the training beside the database."""
    with FeedbackStore.open(run) as store:
        store.check()
        live = list(store.feedback())
        every = store.answers()
        acts = [act.kind for act in store.acts()]
        used = [x for x in store.labels(after=0) if x.trainable]
        open_left = store.open_queries()
    keys = {
        p.name: [x.viewing.key for x in live if x.rater == p.name and x.viewing] for p in people
    }
    rows = read_metrics(run / "metrics.jsonl")
    told = {
        "answers": {p.name: len(p.script) for p in people},
        "keys_equal_script": all(keys[p.name] == p.script for p in people),
        "replies_mean_what_was_pressed": all(_means(x) for x in live),
        "answered_twice": len(live) - len({x.query.id for x in live}),
        "undone_rows": len(every) - len(live),
        "acts": acts,
        "queries_left_open": open_left,
        "labels_in_the_store": len(used),
        "labels_trained_on": int(rows[-1]["feedback/labels"]),
        "fits": sum("reward/updates" in row for row in rows),
    }
    told["equal"] = bool(
        told["keys_equal_script"]
        and told["replies_mean_what_was_pressed"]
        and told["answered_twice"] == 0
        and told["undone_rows"] == acts.count("undo") == 1
        and told["labels_in_the_store"] == told["labels_trained_on"]
        and told["fits"] > 1
    )
    return told


def _means(label: Any) -> bool:
    """Is the reply what its key says, given what lay where?"""
    key, order = label.viewing.key, label.viewing.order
    wanted = {"Up": "tie", "Down": "cannot"}.get(key)
    if wanted is None:
        wanted = ("first", "second")[order[0 if key == "Left" else 1]]
    return bool(label.reply == Comparison(choice=wanted))  # type: ignore[arg-type]


# ---- beside the programs, reading only ------------------------------------------------------


def answers(run: Path, rater: str) -> list[str]:
    """Ids of somebody's answers that stand."""
    return _ask(run, "SELECT id FROM label WHERE rater = ? AND live = 1 ORDER BY seq", rater)


def sessions(run: Path) -> list[str]:
    """Who has signed in."""
    return _ask(run, "SELECT rater FROM session")


def open_queries(run: Path) -> int:
    """Questions that want an answer."""
    return int(_ask(run, "SELECT count(*) FROM queue")[0])


def _ask(run: Path, sql: str, *about: str) -> list[Any]:
    connection = sqlite3.connect(f"file:{run / 'labels.db'}?mode=ro", uri=True, timeout=30)
    try:
        return [row[0] for row in connection.execute(sql, about)]
    finally:
        connection.close()


def until(done: Callable[[], object], what: str) -> None:
    """Wait for it, five minutes at most."""
    end = time.monotonic() + 300
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"waited for {what}")
        time.sleep(0.2)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
