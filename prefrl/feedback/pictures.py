"""What a rater sees of a segment, as pictures: where drawing it again would take too long."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from prefrl.feedback.codec import pack, unpack
from prefrl.feedback.errors import DamagedSegment

MAX_BYTES = 64 * 2**20
MAX_FPS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictures:
    """A short film."""

    frames: np.ndarray
    """uint8 [T, H, W, 3]"""
    fps: float
    """Frames a second at real time."""

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise ValueError(
                f"pictures: got {self.frames.dtype} {shape}, wanted uint8 [T, H, W, 3]"
            )
        if self.frames.nbytes > MAX_BYTES:
            raise ValueError(f"pictures: {self.frames.nbytes} bytes, wanted at most {MAX_BYTES}")
        if not (math.isfinite(self.fps) and 0 < self.fps <= MAX_FPS):
            raise ValueError(f"pictures: got {self.fps} frames a second, wanted 0 to {MAX_FPS:.0f}")


def encode_pictures(pictures: Pictures) -> bytes:
    """As stored."""
    return pack({"fps": float(pictures.fps)}, {"frames": pictures.frames})


def read_pictures(data: bytes) -> Pictures:
    """The inverse of `encode_pictures`.

    Raises:
        DamagedSegment: anything else.
    """
    about, arrays = unpack(data, limit=MAX_BYTES)
    if set(arrays) != {"frames"} or not isinstance(about.get("fps"), float):
        raise DamagedSegment(f"damaged pictures: hold {sorted(arrays)} and {sorted(about)}")
    try:
        return Pictures(frames=arrays["frames"], fps=about["fps"])
    except ValueError as error:
        raise DamagedSegment(f"damaged pictures: {error}") from error
