"""What there is to be seen or read of a segment."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback import DamagedStore

from .desk import Library

MAX_FPS = 240.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Pictures."""

    frames: np.ndarray
    """[T, H, W, 3] uint8, T >= 1."""
    fps: float
    """Frames per second at normal speed."""

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise ValueError(f"frames: got {self.frames.dtype} {shape}, wanted uint8 [T, H, W, 3]")
        if not (math.isfinite(self.fps) and 0 < self.fps <= MAX_FPS):
            raise ValueError(f"fps: got {self.fps}, wanted more than 0, at most {MAX_FPS:.0f}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """Nothing."""

    reason: str
    """Why, in words."""
    damaged: bool
    """The data is at fault; False: this machine could not draw it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to draw a clip that has no pictures yet."""

    data: bytes
    """For the function that draws."""


Material = Clip | Broken | str
"""A clip, the reason why there is none, or a text."""


def read_prompt(library: Library, query: str) -> str | None:
    """What the completions of a query answer; None where there is none, or damage hides it.

    Damage is told by `read_material`, of the same segment; other trouble is raised.
    """
    try:
        return library.prompt(query)
    except DamagedStore:
        return None
    except UserError:  # a locked database, say
        raise
    except ValueError:
        return None


def read_material(library: Library, id: str) -> Material | Recipe:
    """What the store holds of segment `id`; damage is a result, other trouble is raised."""
    try:
        text = library.text(id)
        if text is not None:
            return text
        pictures = library.pictures(id)
        if pictures is not None:
            return Clip(frames=pictures.frames, fps=pictures.fps)
        return Recipe(data=library.clip(id))
    except DamagedStore as error:
        return Broken(reason=str(error), damaged=True)
    except UserError:  # a locked database, say
        raise
    except ValueError as error:
        return Broken(reason=str(error), damaged=True)
