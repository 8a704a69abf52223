"""Segments: ids by content, bytes that come back exactly or are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from prefrl.feedback import DamagedSegment, Provenance, Segment, decode_segment, encode_segment
from prefrl.feedback.codec import MAGIC, MAX_BODY_BYTES, unpack
from prefrl.feedback.segment import encode_view
from tests.feedback.helpers import pixels, segment

GOLDEN = "bc608905af117197ea3ee7c281d0bfe6cf385a6e24ee590a4ce35e3f389fd05b"


def same(a: Segment, b: Segment) -> bool:
    """Are all fields equal, dtypes and bits included?"""
    arrays = ("observations", "actions", "true_reward")
    return all(
        getattr(a, n).dtype == getattr(b, n).dtype
        and getattr(a, n).shape == getattr(b, n).shape
        and getattr(a, n).tobytes() == getattr(b, n).tobytes()
        for n in arrays
    ) and (a.ended, a.provenance, a.clip) == (b.ended, b.provenance, b.clip)


@pytest.mark.parametrize(
    "original", [segment(), segment(ended=True), pixels(), pixels(1), pixels(3, 2)]
)
def test_a_segment_comes_back_bit_for_bit(original: Segment) -> None:
    again = decode_segment(encode_segment(original))
    assert same(original, again)
    assert original.id == again.id
    assert again.observations.flags.writeable  # torch.from_numpy warns otherwise


@given(
    observations=npst.arrays(
        st.sampled_from([np.uint8, np.float32, np.float64, np.int32]),
        npst.array_shapes(min_dims=1, max_dims=4, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    clip=st.binary(max_size=40),
)
def test_any_finite_observations_come_back(observations: np.ndarray, clip: bytes) -> None:
    T = len(observations)
    original = dataclasses.replace(segment([0.5] * T), observations=observations, clip=clip)
    assert same(original, decode_segment(encode_segment(original)))


def test_stacked_frames_are_stored_once() -> None:
    _, arrays = unpack(encode_segment(pixels(T=3, C=4)))
    assert arrays["observations"].shape == (3, 5, 6, 4)
    header = encode_segment(pixels(T=3, C=4))
    assert b'"shape": [6, 5, 6], "stack": 4' in header  # 3 + 4 - 1 frames


def test_stacked_frames_come_back_as_a_view_of_each_once() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (28, 4, 4), dtype=np.uint8)
    stacked = np.lib.stride_tricks.sliding_window_view(frames, 4, axis=0)
    original = dataclasses.replace(segment([0.5] * 25), observations=stacked)
    back = decode_segment(encode_segment(original))
    assert np.array_equal(back.observations, original.observations)
    assert back.id == original.id
    assert np.shares_memory(back.observations[0, ..., 1], back.observations[1, ..., 0])


def test_uint8_that_is_no_sliding_window_comes_back_too() -> None:
    stack = pixels().observations.copy()
    stack[1, 0, 0, 0] ^= 1
    original = dataclasses.replace(pixels(), observations=stack)
    assert same(original, decode_segment(encode_segment(original)))


def test_the_id_is_the_same_in_every_process_and_version() -> None:
    assert segment().id == GOLDEN


def test_the_id_depends_on_what_is_seen_and_where_it_comes_from() -> None:
    base = segment()
    other = dataclasses.replace(base.provenance, env=4)
    changed = [
        dataclasses.replace(base, observations=base.observations + 1),
        dataclasses.replace(base, actions=base.actions + 1),
        dataclasses.replace(base, actions=base.actions.astype(np.int32)),
        dataclasses.replace(base, provenance=other),
    ]
    assert len({s.id for s in [base, *changed]}) == 5


def test_the_id_does_not_depend_on_hidden_fields() -> None:
    hidden = dataclasses.replace(segment(), true_reward=np.array([9.0, 9.0]), ended=True)
    assert hidden.id == segment().id


def test_the_view_of_a_rater_holds_neither_reward_nor_end() -> None:
    lazy = dataclasses.replace(segment(), true_reward=np.array([9.0, 9.0]), ended=True)
    assert encode_view(lazy) == encode_view(segment())


def test_every_flipped_bit_is_noticed() -> None:
    data = encode_segment(segment())
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(DamagedSegment):
            decode_segment(bytes(damaged))


@pytest.mark.parametrize("cut", [0, 5, 41, 42, 100, -1])
def test_every_cut_is_noticed(cut: int) -> None:
    with pytest.raises(DamagedSegment):
        decode_segment(encode_segment(segment())[:cut])


def forged(header: object, body: bytes = b"") -> bytes:
    """Bytes with a right checksum and a hostile content."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    rest = struct.pack("<I", len(text)) + text + zstandard.ZstdCompressor().compress(body)
    return MAGIC + hashlib.sha256(rest).digest() + rest


def spec(**changes: object) -> dict[str, object]:
    return {"dtype": "|u1", "shape": [4], "stack": 0, **changes}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 9000,
        b"\xff",
        [],
        {},
        {"fields": {}, "arrays": []},
        {"fields": {}, "arrays": {"x": 1}},
        {"fields": {}, "arrays": {"x": spec(dtype="|O")}},
        {"fields": {}, "arrays": {"x": spec(dtype=["|u1"])}},
        {"fields": {}, "arrays": {"x": spec(shape=[-4])}},
        {"fields": {}, "arrays": {"x": spec(shape=[MAX_BODY_BYTES + 1])}},
        {"fields": {}, "arrays": {"x": spec(shape=[MAX_BODY_BYTES, 2])}},
        {"fields": {}, "arrays": {"x": spec(shape=[5])}},
        {"fields": {}, "arrays": {"x": spec(stack=4)}},
        {"fields": {}, "arrays": {"x": spec(stack=10**9)}},
        {"fields": {"ended": True}, "arrays": {"x": spec()}},
    ],
)
def test_hostile_headers_are_refused(header: object) -> None:
    with pytest.raises(DamagedSegment):
        decode_segment(forged(header, b"abcd"))


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    arrays = {"x": spec()}
    with pytest.raises(DamagedSegment, match="a body of 50000000 bytes, wanted 4"):
        decode_segment(forged({"fields": {}, "arrays": arrays}, bytes(50_000_000)))


def test_numbers_that_are_not_finite_are_not_stored() -> None:
    broken = dataclasses.replace(segment(), observations=np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="observations: holds nan"):
        encode_segment(broken)
    with pytest.raises(ValueError, match="true_reward"):
        segment([np.inf, 0.0])


def test_objects_are_not_stored() -> None:
    broken = dataclasses.replace(segment(), actions=np.array([{}, {}], dtype=object))
    with pytest.raises(ValueError, match="actions: got dtype object"):
        encode_segment(broken)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"wanted \[T, \*obs\]"):
        dataclasses.replace(segment(), true_reward=np.zeros(3))


def test_provenance_wants_plain_numbers() -> None:
    with pytest.raises(ValueError, match=r"provenance\.t0: got -1"):
        Provenance(task="Dot", seed=0, policy_step=0, env=0, episode=0, t0=-1)
