"""Clips drawn in another process: slow, failing and dying ones too."""

import time

import pytest

from clip_viewer.control.drawing import Drawer
from clip_viewer.control.material import Broken, Clip
from tests.clip_viewer.drawers import draw


@pytest.fixture
def drawer(tmp_path):
    made = Drawer(draw, directory=tmp_path, longest=20.0)
    yield made
    made.close()


def results(drawer, count):
    """That many results, by id."""
    found, end = {}, time.monotonic() + 60
    while len(found) < count and time.monotonic() < end:
        found |= dict(drawer.poll())
        time.sleep(0.005)
    return found


def test_a_clip_comes_back_as_it_was_drawn(drawer):
    drawer.request("a", b"clip 7")
    drawer.request("b", b"clip 9")
    found = results(drawer, 2)
    assert found["a"].frames.shape == (3, 4, 5, 3)
    assert (found["a"].frames == 7).all()
    assert (found["b"].frames == 9).all()
    assert found["a"].fps == 12.5


def test_bad_data_is_told_from_a_machine_that_cannot_draw(drawer):
    for word in (b"bad", b"fail", b"odd", b"clip 1"):
        drawer.request(word.decode(), word)
    found = results(drawer, 4)
    assert found["bad"] == Broken(reason="its checksum is wrong", damaged=True)
    assert found["fail"] == Broken(reason="RuntimeError: no EGL here", damaged=False)
    assert found["odd"].damaged
    assert isinstance(found["clip 1"], Clip)


def test_a_process_that_dies_costs_one_clip(drawer):
    drawer.request("a", b"die")
    drawer.request("b", b"clip 1")
    found = results(drawer, 2)
    assert not found["a"].damaged
    assert "ended" in found["a"].reason
    assert isinstance(found["b"], Clip)


def test_a_clip_that_takes_for_ever_is_given_up(tmp_path):
    drawer = Drawer(draw, directory=tmp_path, longest=0.2)
    drawer.request("a", b"hang")
    found = results(drawer, 1)
    drawer.close()
    assert "longer than" in found["a"].reason


def test_what_is_no_longer_wanted_is_not_drawn(drawer):
    drawer.request("a", b"clip 1")
    drawer.request("b", b"hang")
    drawer.request("c", b"clip 3")
    drawer.forget({"a", "c"})
    assert set(results(drawer, 2)) == {"a", "c"}


def test_it_works_in_the_directory_it_is_given(drawer, tmp_path):
    drawer.request("a", b"where")
    assert results(drawer, 1)["a"].frames[0, 0, 0, 0] == len(str(tmp_path)) % 256


def test_closing_ends_the_process_even_while_it_draws(drawer):
    drawer.request("a", b"clip 1")
    results(drawer, 1)
    process = drawer._process
    drawer.request("b", b"hang")
    time.sleep(0.05)
    drawer.close()
    assert not process.is_alive()
