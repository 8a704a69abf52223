"""Is there a screen to open a window on?"""

from __future__ import annotations

import os

import pygame

from prefrl.errors import UserError

UNSEEN = ("offscreen", "dummy")  # drivers that SDL falls back to where there is no screen


def open_display(instead: str) -> None:
    """Start SDL's video, and nothing else: `pygame.init` opens a sound device too.

    Args:
        instead: what to do where there is no screen.

    Raises:
        UserError: no window can be opened, or none that anybody would see.
    """
    try:
        pygame.display.init()
    except pygame.error as error:
        raise UserError(f"no window can be opened here ({error}): {instead}") from None
    driver = pygame.display.get_driver()
    if driver in UNSEEN and "SDL_VIDEODRIVER" not in os.environ:  # else it was asked for
        pygame.display.quit()
        raise UserError(f"no window can be opened here (no display): {instead}")
