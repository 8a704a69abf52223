"""Clips stored as pictures: bit for bit, bounded, and checked."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from prefrl.feedback import DamagedSegment, DamagedStore, Pictures
from prefrl.feedback.codec import pack
from prefrl.feedback.pictures import encode_pictures, read_pictures
from tests.feedback.helpers import filled

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def test_pictures_come_back_bit_for_bit(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store:
        store.add_pictures(a.segments[0], FRAMES, fps=12.5)
        store.add_pictures(a.segments[0], FRAMES[:2], fps=1.0)  # what is there is left alone
        got = store.pictures(a.segments[0])
        assert got is not None
        assert np.array_equal(got.frames, FRAMES)
        assert got.fps == 12.5
        assert store.pictures(a.segments[1]) is None
        store.check()


def test_changed_pictures_are_not_read(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store:
        for id in a.segments:
            store.add_pictures(id, FRAMES + (id == a.segments[0]), fps=5.0)
    connection = sqlite3.connect(tmp_path / "clips.db")
    connection.execute("UPDATE picture SET data = (SELECT max(data) FROM picture)")
    connection.commit()
    connection.close()
    with type(store).open(tmp_path) as store, pytest.raises(DamagedStore, match="not what was"):
        [store.pictures(id) for id in a.segments]
    with type(store).open(tmp_path) as store, pytest.raises(DamagedStore, match="pictures"):
        store.check()


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (FRAMES[0], 5.0),
        (FRAMES[..., :1], 5.0),
        (FRAMES[:0], 5.0),
        (FRAMES.astype(np.float32), 5.0),
        (FRAMES, 0.0),
        (FRAMES, float("inf")),
        (np.zeros((65, 1024, 342, 3), np.uint8), 5.0),
    ],
)
def test_what_are_no_pictures_are_refused(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(ValueError, match="pictures"):
        Pictures(frames=frames, fps=fps)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = pack({"fps": 5.0}, {"frames": np.zeros((70, 1024, 342, 3), np.uint8)})
    assert len(bomb) < 20_000
    with pytest.raises(DamagedSegment, match="bytes declared"):
        read_pictures(bomb)
    with pytest.raises(DamagedSegment):
        read_pictures(encode_pictures(Pictures(frames=FRAMES, fps=5.0))[:-1])
