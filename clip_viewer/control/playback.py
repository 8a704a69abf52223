"""One clock for all clips of a question."""

from __future__ import annotations

import math
from collections.abc import Sequence

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0)
LONGEST_GAP = 1.0  # seconds; after a longer one the machine slept, and nobody watched
TINY = 1e-6  # of a frame: a time that means frame 7 must not show frame 6


class Playback:
    """Loops clips by elapsed time: a slow screen drops frames, never time.

    A clip that is shorter than the longest holds its last frame.

        play = Playback(lengths=[50, 25], fps=[10.0, 10.0], speed=1.0)
        play.advance(3.0)      # play.frame(0) == 30, play.frame(1) == 24

    Args:
        lengths: [K] frames of each clip.
        fps: [K] frames per second of each clip at speed 1.
        speed: one of `SPEEDS`.
    """

    def __init__(self, *, lengths: Sequence[int], fps: Sequence[float], speed: float) -> None:
        self.lengths, self.fps, self.speed = tuple(lengths), tuple(fps), speed
        self.duration = max(n / f for n, f in zip(lengths, fps, strict=True))
        self.paused = False
        self.watched = 0.0
        """Seconds of clip time that were played."""
        self.seconds = 0.0
        """Seconds of real time since the first frame, however fast and whether paused."""
        self._time = 0.0

    @property
    def loops(self) -> float:
        """How many times the longest clip was played."""
        return self.watched / self.duration

    @property
    def position(self) -> float:
        """Of the present loop, 0 to 1."""
        return min(self._time / self.duration, 1.0)

    def frame(self, place: int) -> int:
        """Which frame of a clip is to be seen."""
        return min(int(self._time * self.fps[place] + TINY), self.lengths[place] - 1)

    def advance(self, seconds: float) -> None:
        """That much time has passed since the last call."""
        seconds = min(max(seconds, 0.0), LONGEST_GAP)
        self.seconds += seconds
        if not self.paused:
            self.watched += seconds * self.speed
            self._time = math.fmod(self._time + seconds * self.speed, self.duration)

    def toggle(self) -> None:
        """Pause, or go on."""
        self.paused = not self.paused

    def step(self, frames: int) -> None:
        """Pause, and move by whole frames of the clip with the most of them a second."""
        self.paused = True
        fps = max(self.fps)
        count = math.ceil(self.duration * fps - TINY)
        present = int(self._time * fps + TINY)
        self._time = ((present + frames) % count) / fps

    def restart(self) -> None:
        """Play on from the first frame."""
        self._time, self.paused = 0.0, False

    def faster(self, steps: int) -> None:
        """That many speeds up, or down."""
        place = SPEEDS.index(self.speed) + steps
        self.speed = SPEEDS[min(max(place, 0), len(SPEEDS) - 1)]
