"""Draws clips in a process of its own, so that neither a slow nor a crashing one is felt."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .material import Broken, Clip, Material

Draw = Callable[[bytes], tuple[np.ndarray, float]]
"""Recipe -> (frames uint8 [T, H, W, 3], frames per second); raises ValueError on a bad one.

A module's function, since another process imports it.
"""
LONGEST = 60.0  # seconds for one clip; robots take 0.15 a frame without a graphics card
MAX_BYTES = 256 * 2**20  # of one clip


@dataclass(frozen=True, slots=True)
class _Order:
    id: str
    recipe: bytes


class Drawer:
    """One clip at a time, in the order asked for; results come from `poll`.

    Args:
        draw: what draws.
        directory: the working directory of the process: MuJoCo writes a log there.
        clock: seconds.
    """

    def __init__(
        self, draw: Draw, *, directory: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._draw, self._directory, self._clock = draw, directory, clock
        self._waiting: deque[_Order] = deque()
        self._present: _Order | None = None
        self._since = 0.0
        self._process: Any = None
        self._pipe: Connection | None = None

    def request(self, id: str, recipe: bytes) -> None:
        """Draw this one too."""
        self._waiting.append(_Order(id, recipe))

    def forget(self, wanted: set[str]) -> None:
        """Orders of other clips need not be begun."""
        self._waiting = deque(order for order in self._waiting if order.id in wanted)

    def poll(self) -> list[tuple[str, Material]]:
        """What is ready; begins what is next."""
        done = [] if self._present is None else self._collect(self._present)
        if self._present is None and self._waiting:
            self._begin(self._waiting.popleft())
        return done

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()  # it holds nothing that could be lost
            self._process.join()
        self._process = self._pipe = self._present = None

    def _begin(self, order: _Order) -> None:
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        self._present, self._since = order, self._clock()
        with contextlib.suppress(OSError):  # the process is gone, as the next poll will see
            self._pipe.send_bytes(order.recipe)

    def _collect(self, order: _Order) -> list[tuple[str, Material]]:
        assert self._pipe is not None
        try:
            if self._pipe.poll():
                material = _receive(self._pipe)
            elif self._clock() - self._since > LONGEST:
                material = self._lost(f"it took longer than {LONGEST:.0f} s to draw")
            else:
                return []
        except (EOFError, OSError):
            material = self._lost("the process that draws it ended")
        self._present = None
        return [(order.id, material)]

    def _lost(self, why: str) -> Broken:
        self.close()
        return Broken(reason=why, damaged=False)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, self._draw, str(self._directory)), daemon=True
        )
        self._process.start()
        theirs.close()


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
