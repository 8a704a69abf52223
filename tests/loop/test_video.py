import av
import numpy as np
import pytest

from prefrl.loop.video import write_video


def frames(count, height=210, width=160):
    """A white square that walks over orange."""
    for t in range(count):
        frame = np.full((height, width, 3), (200, 100, 20), np.uint8)
        frame[40:60, 2 * t : 2 * t + 20] = 255
        yield frame


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [f.to_ndarray(format="rgb24") for f in container.decode(stream)], stream.average_rate


def test_frames_come_back_in_size_order_and_colour(tmp_path):
    path = write_video(frames(30), tmp_path / "videos" / "final.mp4", fps=15)
    got, rate = read(path)
    assert len(got) == 30
    assert rate == 15
    for want, have in zip(frames(30), got, strict=True):
        assert have.shape == (210, 160, 3)
        assert np.abs(want[100:].astype(int) - have[100:]).max() < 8  # flat orange
        assert np.abs(want.astype(int) - have).mean() < 6  # edges blur: half the colours
    assert [p.name for p in path.parent.iterdir()] == ["final.mp4"]


def test_odd_sizes_get_one_more_row_or_column(tmp_path):
    got, _ = read(write_video(frames(3, height=211, width=161), tmp_path / "x.mp4", fps=12.5))
    assert got[0].shape == (212, 162, 3)


def test_a_film_that_fails_leaves_the_old_one(tmp_path):
    path = write_video(frames(2), tmp_path / "x.mp4", fps=15)
    before = path.read_bytes()

    def broken():
        yield from frames(1)
        raise RuntimeError("the emulator died")

    with pytest.raises(RuntimeError, match="the emulator died"):
        write_video(broken(), path, fps=15)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]
