"""Clip recipes: what a rater will see, stored as how to draw it instead of as pictures.

A recipe is the task, its options, the seed of one sub-environment, and a trace: for Atari
the actions since the last reset (the emulator repeats itself bit for bit), else the states.
Its bytes come from outside, so nothing in them is code, and every size is bounded:

    b"PFCLIP\\x01"  SHA-256 of the rest (32)  header length (4, little-endian)  header  body

where the header is JSON and the body is the trace as one zstandard frame.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import zstandard

from .task import Task, TaskError

MAGIC = b"PFCLIP\x01"
MAX_HEADER_BYTES = 4096
MAX_TRACE_BYTES = 64 * 2**20
MAX_STEPS = 2000
DTYPES = {"uint8": "|u1", "float32": "<f4"}
HEADER_TYPES = {
    "task": str,
    "options": dict,
    "seed": int,
    "steps": int,
    "lead": int,
    "dtype": str,
    "shape": list,
}


class Rows(Protocol):
    """A `StepLog`, or rows read from bytes."""

    def column(self, env: int, start: int, stop: int) -> np.ndarray:
        """A copy [stop - start, *item] of one sub-environment's rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A part of a log, copied only when it is needed."""

    log: Rows
    """Where the rows are."""
    env: int
    """Whose column."""
    start: int
    """First row."""
    stop: int
    """Row after the last."""
    lead: int
    """How many frames are played before the clip begins."""

    def rows(self) -> np.ndarray:
        """[stop - start, *item]."""
        return self.log.column(self.env, self.start, self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRows:
    """Rows [n, *item] read from bytes; stands in for a log of one sub-environment."""

    values: np.ndarray
    """[n, *item]."""

    def column(self, env: int, start: int, stop: int) -> np.ndarray:
        """The rows [start, stop)."""
        assert env == 0
        return self.values[start:stop].copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecipe:
    """Everything needed to draw a clip later, elsewhere."""

    task: str
    """Task id."""
    options: Mapping[str, Any]
    """The options of `make_vec` that change what happens."""
    seed: int
    """Seed of the sub-environment at its last reset."""
    steps: int
    """Frames of the clip."""
    trace: Trace
    """Actions or states."""

    def to_bytes(self) -> bytes:
        """The recipe as bytes that another process can read."""
        rows = self.trace.rows()
        header = {
            "task": self.task,
            "options": dict(self.options),
            "seed": self.seed,
            "steps": self.steps,
            "lead": self.trace.lead,
            "dtype": rows.dtype.name,
            "shape": list(rows.shape),
        }
        _check_header(header)
        text = json.dumps(header, sort_keys=True).encode()
        body = zstandard.compress(rows.astype(DTYPES[rows.dtype.name]).tobytes(), 3)
        rest = struct.pack("<I", len(text)) + text + body
        return MAGIC + hashlib.sha256(rest).digest() + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> ClipRecipe:
        """Read what `to_bytes` wrote; refuse anything else with a `TaskError`."""
        header, body = _split(bytes(data))
        rows = StoredRows(values=_unpack(body, DTYPES[header["dtype"]], header["shape"]))
        return cls(
            task=header["task"],
            options=header["options"],
            seed=header["seed"],
            steps=header["steps"],
            trace=Trace(log=rows, env=0, start=0, stop=len(rows.values), lead=header["lead"]),
        )


def render_clip(recipe: ClipRecipe | bytes, *, masked: bool = True) -> np.ndarray:
    """Draw a clip: uint8 [T, H, W, 3] at native resolution, the score blanked if `masked`."""
    from .registry import drawer, find_task

    if not isinstance(recipe, ClipRecipe):
        recipe = ClipRecipe.from_bytes(recipe)
    task = find_task(recipe.task)
    return drawer(task)(
        task,
        dict(recipe.options),
        recipe.seed,
        recipe.trace.rows(),
        recipe.trace.lead,
        masked=masked,
    )


def check_states(task: Task, states: np.ndarray, size: int) -> None:
    """Refuse rows that are not states [T, size] of a robot or a toy."""
    fits = states.dtype == np.float32 and states.shape[1:] == (size,)
    if not fits or not np.isfinite(states).all():
        raise TaskError(f"damaged clip: these are not states of {task.id}")


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Checked header and body."""
    start = len(MAGIC) + 32
    if data[: len(MAGIC)] != MAGIC:
        raise TaskError(f"not a clip recipe: wanted {MAGIC!r} first; got {data[:7]!r}")
    rest = data[start:]
    if len(rest) < 4 or hashlib.sha256(rest).digest() != data[len(MAGIC) : start]:
        raise TaskError("damaged clip recipe: its checksum is wrong")
    (size,) = struct.unpack("<I", rest[:4])
    if size > min(MAX_HEADER_BYTES, len(rest) - 4):
        raise TaskError(f"damaged clip recipe: a header of {size} bytes")
    try:
        header = json.loads(rest[4 : 4 + size])
    except (ValueError, RecursionError) as error:
        raise TaskError(f"damaged clip recipe: the header is not JSON ({error})") from None
    _check_header(header)
    return header, rest[4 + size :]


def _check_header(header: Any) -> None:
    """Types, names and sizes, before anything is allocated."""
    fits = isinstance(header, dict) and header.keys() == HEADER_TYPES.keys()
    if not fits or any(type(header[name]) is not kind for name, kind in HEADER_TYPES.items()):
        raise TaskError(f"damaged clip recipe: the header needs {', '.join(HEADER_TYPES)}")
    shape, steps, lead = header["shape"], header["steps"], header["lead"]
    if not (1 <= steps <= MAX_STEPS and lead >= 0 and 0 <= header["seed"] < 2**31):
        raise TaskError(f"clip recipe out of bounds: {steps=}, {lead=}, seed={header['seed']}")
    if header["dtype"] not in DTYPES or not 1 <= len(shape) <= 2:
        raise TaskError(f"damaged clip recipe: rows {header['dtype']} {shape}")
    if any(type(size) is not int or size < 0 for size in shape) or not _fits(shape):
        raise TaskError(f"clip recipe out of bounds: rows of shape {shape}")
    played = header["dtype"] == "uint8"
    if shape[0] != (lead + steps - 1 if played else steps) or (lead and not played):
        raise TaskError(f"damaged clip recipe: {shape[0]} rows for {lead} + {steps} frames")


def _fits(shape: list[int]) -> bool:
    """An empty axis does not excuse a huge one."""
    return math.prod(max(size, 1) for size in shape) * 4 <= MAX_TRACE_BYTES


def _unpack(body: bytes, dtype: str, shape: list[int]) -> np.ndarray:
    """Decompress exactly the bytes that the header declares."""
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        declared = zstandard.get_frame_parameters(body).content_size
        if declared != wanted:
            raise TaskError(f"damaged clip recipe: {declared} bytes of rows; wanted {wanted}")
        raw = zstandard.decompress(body, max_output_size=wanted) if wanted else b""
    except zstandard.ZstdError as error:
        raise TaskError(f"damaged clip recipe: {error}") from None
    return np.frombuffer(raw, dtype).reshape(shape)
