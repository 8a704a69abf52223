"""Named arrays as bytes: checked, bounded, and never code.

    b"PFSEG\\x01"  SHA-256 of the rest (32)  header length (4, little-endian)  header  body

The header is JSON; the body is one zstandard frame with all arrays, sorted by name.
Stacked frames are kept as the T + C - 1 frames they were made of: a quarter of the bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any, NoReturn

import numpy as np
import zstandard
from numpy.lib.stride_tricks import sliding_window_view

from prefrl.feedback.errors import DamagedSegment

MAGIC = b"PFSEG\x01"
MAX_HEADER_BYTES = 16 * 2**10
MAX_BODY_BYTES = 128 * 2**20
MAX_DIMENSIONS = 8
MAX_STACK = 16
ZSTD_LEVEL = 3
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
_PREFIX = len(MAGIC) + 32 + 4


def pack(fields: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """`fields` (plain JSON values) and `arrays` as bytes; `unpack` is the inverse.

    Raises:
        ValueError: a dtype that is not plain numbers, a number that is not finite, or more
            than `MAX_BODY_BYTES`.
    """
    specs, parts = {}, []
    for name, array in sorted(arrays.items()):  # as the header sorts them
        stored, stack = _unstacked(_plain(name, array))
        specs[name] = {"dtype": stored.dtype.str, "shape": list(stored.shape), "stack": stack}
        parts.append(stored.tobytes())
    body = b"".join(parts)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a segment of {len(body)} bytes: wanted at most {MAX_BODY_BYTES}")
    header = json.dumps({"fields": fields, "arrays": specs}, sort_keys=True, allow_nan=False)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(header)} bytes: wanted at most {MAX_HEADER_BYTES}")
    compressed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)
    rest = struct.pack("<I", len(header)) + header.encode("ascii") + compressed
    return MAGIC + hashlib.sha256(rest).digest() + rest


def unpack(
    data: bytes, *, limit: int | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `pack`; the arrays are writable.

    Args:
        limit: refuse more bytes than these, frames stacked, before anything is unpacked.

    Raises:
        DamagedSegment: anything else than what `pack` returned.
    """
    header, body = _split(data)
    specs = {name: _Spec(name, spec) for name, spec in _mapping(header, "arrays").items()}
    size = sum(spec.nbytes for spec in specs.values())
    if size > MAX_BODY_BYTES:
        _damaged(f"{size} bytes declared, at most {MAX_BODY_BYTES} allowed")
    whole = sum(spec.nbytes * max(spec.stack, 1) for spec in specs.values())
    if limit is not None and whole > limit:
        _damaged(f"{whole} bytes declared, at most {limit} allowed")
    raw = _decompress(body, size)
    arrays, offset = {}, 0
    for name, spec in specs.items():
        arrays[name] = spec.read(raw, offset)
        offset += spec.nbytes
    return _mapping(header, "fields"), arrays


class _Spec:
    """How one array lies in the body."""

    def __init__(self, name: str, spec: Any) -> None:
        if not isinstance(spec, dict) or set(spec) != {"dtype", "shape", "stack"}:
            _damaged(f"array {name!r} is not described by dtype, shape and stack")
        self.shape, self.stack = spec["shape"], spec["stack"]
        if spec["dtype"] not in DTYPES:
            _damaged(f"array {name!r} of dtype {spec['dtype']!r}")
        if not isinstance(self.shape, list) or len(self.shape) > MAX_DIMENSIONS:
            _damaged(f"array {name!r} of shape {self.shape!r}")
        if not all(type(n) is int and 0 <= n <= MAX_BODY_BYTES for n in self.shape):
            _damaged(f"array {name!r} of shape {self.shape!r}")
        if type(self.stack) is not int or not 0 <= self.stack <= MAX_STACK:
            _damaged(f"array {name!r} stacked {self.stack!r} times")
        if self.stack and (len(self.shape) != 3 or self.shape[0] < self.stack):
            _damaged(f"array {name!r} of shape {self.shape!r} stacked {self.stack} times")
        self.dtype = np.dtype(spec["dtype"])
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    def read(self, raw: bytearray, offset: int) -> np.ndarray:
        """The array at `offset`."""
        count = math.prod(self.shape)
        flat = np.frombuffer(raw, self.dtype, count, offset) if count else np.zeros(0, self.dtype)
        array = flat.reshape(self.shape).copy()
        if not self.stack:
            return array
        # each frame is there once; writable, for torch.from_numpy warns otherwise
        return sliding_window_view(array, self.stack, axis=0, writeable=True)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Contiguous and little-endian."""
    little = array.dtype.newbyteorder("<")
    if little.str not in DTYPES:
        raise ValueError(f"{name}: got dtype {array.dtype}, wanted one of {', '.join(DTYPES)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name}: holds nan or inf, wanted finite numbers")
    return np.asarray(array, dtype=little, order="C")


def _unstacked(array: np.ndarray) -> tuple[np.ndarray, int]:
    """[T, H, W, C] uint8, a sliding window: ([T + C - 1, H, W], C); anything else: (it, 0)."""
    if array.dtype != np.uint8 or array.ndim != 4 or not 2 <= array.shape[-1] <= MAX_STACK:
        return array, 0
    if not array.size or not slides(array):
        return array, 0
    oldest = np.moveaxis(array[0], -1, 0)
    return np.concatenate([oldest, array[1:, ..., -1]]), array.shape[-1]


def slides(array: np.ndarray) -> bool:
    """Is [T, H, W, C] uint8 a sliding window over frames, newest last?"""
    if array.shape[-1] == 4:  # whole pixels at once: 20 times faster than byte by byte
        word = np.ascontiguousarray(array).view("<u4")
        return bool((word[1:] & np.uint32(0xFFFFFF) == word[:-1] >> np.uint32(8)).all())
    return np.array_equal(array[1:, ..., :-1], array[:-1, ..., 1:])


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, compressed body) of bytes with a sound checksum."""
    if len(data) < _PREFIX or not data.startswith(MAGIC):
        _damaged(f"{len(data)} bytes that do not begin like a segment")
    checksum, rest = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if hashlib.sha256(rest).digest() != checksum:
        _damaged("its checksum does not match")
    (length,) = struct.unpack_from("<I", rest)
    if length > MAX_HEADER_BYTES or length > len(rest) - 4:
        _damaged(f"a header of {length} bytes")
    try:
        header = json.loads(rest[4 : 4 + length].decode("ascii"), parse_constant=_damaged)
    except (ValueError, RecursionError) as error:
        raise DamagedSegment(f"damaged segment: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        _damaged("its header is not a JSON object")
    return header, rest[4 + length :]


def _decompress(body: bytes, size: int) -> bytearray:
    """Exactly `size` bytes: the declared size is checked before anything is unpacked."""
    try:
        declared = zstandard.frame_content_size(body)
        if declared != size:
            _damaged(f"a body of {declared} bytes, wanted {size}")
        raw = bytearray(zstandard.ZstdDecompressor().decompress(body))
    except zstandard.ZstdError as error:
        raise DamagedSegment(f"damaged segment: its body does not unpack ({error})") from error
    if len(raw) != size:
        _damaged(f"a body that unpacks to {len(raw)} bytes, wanted {size}")
    return raw


def _mapping(header: dict[str, Any], name: str) -> dict[str, Any]:
    value = header.get(name)
    if not isinstance(value, dict):
        _damaged(f"its header has no {name}")
    return value


def _damaged(what: str) -> NoReturn:
    raise DamagedSegment(f"damaged segment: {what}; read it from a backup or leave it out")
