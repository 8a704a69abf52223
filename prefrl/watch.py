"""The window of `prefrl watch`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from prefrl.film import draw, frame_stride
from prefrl.loop.play import Player

AHEAD = 5.0  # seconds of play that are drawn while the ones before are shown
FRESH = 120.0  # seconds after which Atari starts anew: its clips are replayed from the reset
WINDOW = 720  # pixels, about


def show(player: Player, *, title: str, seconds: float | None = None) -> None:
    """Play in a window until it is closed, or for `seconds` of play."""
    task = player.venv.task
    stride = frame_stride(task)
    left = None if seconds is None else max(round(task.fps * seconds / stride), 1)
    with ThreadPoolExecutor(1) as worker:  # draws the next pictures while these are shown
        pieces = _pieces(player, stride)
        pending = worker.submit(next, pieces)
        window = Window(title=title, fps=task.fps / stride)
        try:
            while left is None or left > 0:
                frames = pending.result()
                pending = worker.submit(next, pieces)
                for frame in frames[:left]:
                    if not window.show(frame):
                        return
                left = None if left is None else left - len(frames)
        finally:
            window.close()


def _pieces(player: Player, stride: int) -> Iterator[list[np.ndarray]]:
    """Pictures of the next few seconds, again and again."""
    venv = player.venv
    length = round(venv.task.fps * AHEAD)
    while True:
        if venv.task.domain == "atari" and venv.steps_since_reset >= FRESH * venv.task.fps:
            player.restart()
        start = player.advance(length)
        yield list(draw(venv, start=start, steps=length, stride=stride))


class Window:
    """A pygame window, without sound; one picture at a time, at `fps`."""

    def __init__(self, *, title: str, fps: float) -> None:
        import pygame

        from clip_viewer.show.display import open_display

        self._pygame, self._fps, self._clock = pygame, fps, pygame.time.Clock()
        self._screen: pygame.Surface | None = None
        self._paused = False
        open_display("use --record FILE.mp4")
        pygame.display.set_caption(title)

    def show(self, frame: np.ndarray) -> bool:
        """Show [H, W, 3] and wait for its time to pass; False once the window is closed."""
        pygame = self._pygame
        if self._screen is None:
            scale = max(1, WINDOW // max(frame.shape[:2]))
            self._screen = pygame.display.set_mode((frame.shape[1] * scale, frame.shape[0] * scale))
        picture = pygame.surfarray.make_surface(frame.swapaxes(0, 1))
        self._screen.blit(pygame.transform.scale(picture, self._screen.get_size()), (0, 0))
        pygame.display.flip()
        self._clock.tick(self._fps)
        alive = self._listen()
        while self._paused and alive:
            self._clock.tick(20)
            alive = self._listen()
        return alive

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()

    def _listen(self) -> bool:
        pygame = self._pygame
        for event in pygame.event.get():
            key = event.key if event.type == pygame.KEYDOWN else None
            if event.type == pygame.QUIT or key in (pygame.K_ESCAPE, pygame.K_q):
                return False
            if key == pygame.K_SPACE:
                self._paused = not self._paused
        return True
