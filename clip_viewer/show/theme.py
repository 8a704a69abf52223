"""Colours and letters.

Answers have the colours of Okabe and Ito (2008), which people with any colour vision tell
apart, and a shape each.
"""

from __future__ import annotations

from functools import lru_cache

import pygame

from ..control.views import Mark

Colour = tuple[int, int, int]

GROUND: Colour = (13, 16, 22)
PANEL: Colour = (22, 27, 36)
RAISED: Colour = (32, 39, 51)
HOVER: Colour = (43, 52, 68)
LINE: Colour = (49, 58, 74)
FAINT: Colour = (96, 107, 126)
DIM: Colour = (151, 162, 180)
TEXT: Colour = (228, 233, 240)
WHITE: Colour = (255, 255, 255)

BLUE: Colour = (0, 114, 178)
SKY: Colour = (86, 180, 233)
ORANGE: Colour = (230, 159, 0)
GREEN: Colour = (0, 158, 115)
PURPLE: Colour = (204, 121, 167)
VERMILION: Colour = (213, 94, 0)
YELLOW: Colour = (240, 228, 66)

MARKS: dict[Mark, Colour] = {
    "left": BLUE,
    "right": ORANGE,
    "equal": GREEN,
    "cannot": PURPLE,
    "number": SKY,
    "none": LINE,
}

FAMILIES = "inter,segoeui,helveticaneue,cantarell,notosans,ubuntu"
"""Looked for in this order; else the font that comes with pygame."""
NOWHERE = "\U0010fffe"  # a character no font has
TAB = " " * 4  # fonts have no glyph for it


@lru_cache(maxsize=1)
def _file() -> str | None:
    return pygame.font.match_font(FAMILIES)


@lru_cache(maxsize=64)
def font(pixels: int) -> pygame.font.Font:
    """Letters of that height."""
    return pygame.font.Font(_file(), pixels)


@lru_cache(maxsize=256)
def written(text: str, pixels: int, colour: Colour) -> pygame.Surface:
    """A line of text as a picture."""
    return font(pixels).render(legible(text), True, colour)


def width(text: str, pixels: int) -> int:
    """Of a line of text."""
    return font(pixels).size(legible(text))[0]


def forget() -> None:
    """Fonts do not outlive `pygame.font.quit`."""
    for cached in (_file, font, written, _known, _tofu):
        cached.cache_clear()


def legible(text: str) -> str:
    """What can be drawn: a tab becomes spaces, a glyph that is missing a question mark."""
    text = text.replace("\t", TAB)
    if text.isascii():
        return text.replace("\0", "?")
    return "".join(c if c.isascii() or _known(c) else "?" for c in text).replace("\0", "?")


def missing(text: str) -> bool:
    """Are there characters that the font lacks?"""
    return not text.isascii() and any(not c.isascii() and not _known(c) for c in text)


@lru_cache(maxsize=8192)
def _known(character: str) -> bool:
    try:
        return _pixels(character) != _tofu()
    except (pygame.error, UnicodeError, ValueError):
        return False


@lru_cache(maxsize=1)
def _tofu() -> bytes:
    return _pixels(NOWHERE)


def _pixels(character: str) -> bytes:
    picture = font(24).render(character, False, WHITE)
    return bytes(str(picture.get_size()), "ascii") + pygame.image.tobytes(picture, "RGB")
