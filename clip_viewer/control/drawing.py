"""Draws clips in a process of its own, so that neither a slow nor a crashing one is felt."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from .material import Broken, Clip, Material

Draw = Callable[[bytes], tuple[np.ndarray, float]]
"""Recipe -> (frames uint8 [T, H, W, 3], frames per second); raises ValueError on a bad one.

A module's function, since another process imports it.
"""
LONGEST = 60.0  # seconds for one clip; robots take 0.01 a frame without a graphics card
LOOK = 0.1  # seconds between two looks at whether it is still wanted
MAX_BYTES = 256 * 2**20  # of one clip


@dataclass(frozen=True, slots=True)
class _Order:
    id: str
    recipe: bytes


class Drawer:
    """One clip at a time, in the order asked for; results come from `poll`.

    A thread waits for the process: a robot's clip is 34 MB, too much to take in between two
    pictures of the window.

    Args:
        draw: what draws.
        directory: the working directory of the process: MuJoCo writes a log there.
        longest: seconds after which a clip is given up.
    """

    def __init__(self, draw: Draw, *, directory: Path, longest: float = LONGEST) -> None:
        self._draw, self._directory, self._longest = draw, directory, longest
        self._inbox: SimpleQueue[_Order | None] = SimpleQueue()
        self._outbox: SimpleQueue[tuple[str, Material]] = SimpleQueue()
        self._wanted: set[str] = set()
        self._closing = False
        self._process: Any = None
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="drawer", daemon=True)
        self._thread.start()

    def request(self, id: str, recipe: bytes) -> None:
        """Draw this one too."""
        self._wanted = self._wanted | {id}
        self._inbox.put(_Order(id, recipe))

    def forget(self, wanted: set[str]) -> None:
        """Orders of other clips need not be begun."""
        self._wanted = wanted

    def poll(self) -> list[tuple[str, Material]]:
        """What has become ready."""
        done = []
        while not self._outbox.empty():
            done.append(self._outbox.get())
        return done

    def close(self) -> None:
        """End the process and the thread."""
        self._wanted, self._closing = set(), True
        self._inbox.put(None)
        self._thread.join()

    # ---- in the thread ------------------------------------------------------------------

    def _run(self) -> None:
        while (order := self._inbox.get()) is not None:
            if order.id in self._wanted:
                self._outbox.put((order.id, self._drawn(order)))
        self._stop()

    def _drawn(self, order: _Order) -> Material:
        try:
            pipe = self._pipe or self._start()
            pipe.send_bytes(order.recipe)
            if self._arrives(pipe):
                return _receive(pipe)
            why = f"it took longer than {self._longest:.0f} s to draw"
        except (EOFError, OSError):
            why = "the process that draws it ended"
        self._stop()
        return Broken(reason=why, damaged=False)

    def _arrives(self, pipe: Connection) -> bool:
        """Is the clip there in time, and still wanted?"""
        for _ in range(max(round(self._longest / LOOK), 1)):
            if self._closing or pipe.poll(LOOK):
                break
        return not self._closing and pipe.poll()

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, self._draw, str(self._directory)), daemon=True
        )
        self._process.start()
        theirs.close()
        return self._pipe

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


def _receive(pipe: Connection) -> Material:
    about = pipe.recv_bytes(4096).decode()
    kind, _, rest = about.partition(" ")
    if kind != "clip":
        return Broken(reason=rest, damaged=kind == "damaged")
    fps, *shape = rest.split()
    frames = np.frombuffer(pipe.recv_bytes(MAX_BYTES), dtype=np.uint8)
    return Clip(frames=frames.reshape([int(n) for n in shape]), fps=float(fps))


def _work(pipe: Connection, draw: Draw, directory: str) -> None:
    """The process; ends with the pipe, so with its parent too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(directory)
    try:
        while True:
            recipe = pipe.recv_bytes()
            for part in _drawn(draw, recipe):
                pipe.send_bytes(part)
    except (EOFError, OSError):
        return


def _drawn(draw: Draw, recipe: bytes) -> list[bytes]:
    """A line that says what follows, and the frames."""
    try:
        frames, fps = draw(recipe)
        clip = Clip(frames=np.ascontiguousarray(frames), fps=float(fps))
    except ValueError as error:
        return [f"damaged {error}".encode()[:4000]]
    except Exception as error:
        return [f"failed {type(error).__name__}: {error}".encode()[:4000]]
    about = " ".join(["clip", repr(clip.fps), *map(str, clip.frames.shape)])
    return [about.encode(), clip.frames.tobytes()]
