"""Score masks: rectangles on the native screen, and the same on the resized picture.

Blanking *after* the resize is as leak-proof as blanking before it when every output pixel
is blanked whose resize support touches a rectangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NATIVE_HEIGHT, NATIVE_WIDTH = 210, 160


class Rectangle(NamedTuple):
    """Half-open: rows [top, bottom), columns [left, right)."""

    top: int
    bottom: int
    left: int = 0
    right: int = NATIVE_WIDTH


def resized(rectangle: Rectangle, *, height: int, width: int) -> Rectangle:
    """The output pixels that an area resize computes from any pixel of `rectangle`.

    Output row i averages the native rows [i*210/height, (i+1)*210/height):

    >>> resized(Rectangle(0, 22), height=84, width=84)
    Rectangle(top=0, bottom=9, left=0, right=84)
    """
    return Rectangle(
        rectangle.top * height // NATIVE_HEIGHT,
        -(-rectangle.bottom * height // NATIVE_HEIGHT),
        rectangle.left * width // NATIVE_WIDTH,
        -(-rectangle.right * width // NATIVE_WIDTH),
    )


def blank(frames: np.ndarray, rectangles: Sequence[Rectangle]) -> None:
    """Blacken grey frames [..., H, W] in place."""
    for top, bottom, left, right in rectangles:
        frames[..., top:bottom, left:right] = 0


def blank_colour(frames: np.ndarray, rectangles: Sequence[Rectangle]) -> None:
    """Blacken colour frames [..., H, W, 3] in place."""
    for top, bottom, left, right in rectangles:
        frames[..., top:bottom, left:right, :] = 0
