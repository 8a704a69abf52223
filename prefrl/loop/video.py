"""An MP4 of what a policy does (H.264, which every browser plays)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

QUALITY = "20"  # constant rate factor: 0 is lossless, 51 is the worst; 18 to 23 looks clean


def write_video(frames: Iterable[np.ndarray], path: Path, *, fps: float) -> Path:
    """Write `frames` to `path`, whole or not at all.

    Args:
        frames: uint8 [H, W, 3] each, all of one size; drawn one at a time, so a long film
            needs little memory.
        path: ends in ".mp4"; its folder is made.
        fps: frames per second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        _encode(frames, temporary, fps)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _encode(frames: Iterable[np.ndarray], path: Path, fps: float) -> None:
    options = {"movflags": "+faststart"}  # a browser can begin before it has all of the file
    with av.open(str(path), "w", format="mp4", options=options) as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            picture = np.ascontiguousarray(_even(frame))
            if index == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _even(frame: np.ndarray) -> np.ndarray:
    """The frame with its last row or column doubled where H.264 needs an even number."""
    H, W = frame.shape[:2]
    return np.pad(frame, ((0, H % 2), (0, W % 2), (0, 0)), mode="edge")
