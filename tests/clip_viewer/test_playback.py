"""One clock for all clips."""

import pytest

from clip_viewer.control.playback import Playback


def play(lengths=(50, 25), fps=(10.0, 10.0), speed=1.0):
    return Playback(lengths=lengths, fps=fps, speed=speed)


def test_the_shorter_clip_holds_its_last_frame():
    clock = play()
    for _ in range(6):
        clock.advance(0.5)
    assert (clock.frame(0), clock.frame(1)) == (30, 24)


def test_clips_of_different_rates_keep_step_in_time():
    clock = play(lengths=(60, 30), fps=(20.0, 10.0))
    clock.advance(1.0)
    assert (clock.frame(0), clock.frame(1)) == (20, 10)


def test_a_slow_screen_drops_frames_not_time():
    quick, slow = play(), play()
    for _ in range(90):
        quick.advance(0.01)
    slow.advance(0.9)
    assert quick.frame(0) == slow.frame(0) == 9


def test_it_loops_and_counts():
    clock = play(lengths=(10, 10))  # one second
    for _ in range(5):
        clock.advance(0.5)
    assert clock.loops == pytest.approx(2.5)
    assert clock.frame(0) == 5
    assert clock.position == pytest.approx(0.5)


def test_a_machine_that_slept_did_not_watch():
    clock = play()
    clock.advance(3600.0)
    assert clock.watched == 1.0
    clock.advance(-3600.0)
    assert clock.watched == 1.0


@pytest.mark.parametrize(("speed", "frame"), [(0.25, 2), (0.5, 5), (1.0, 10), (2.0, 20), (4.0, 40)])
def test_speed_scales_time(speed, frame):
    clock = play(speed=speed)
    clock.advance(1.0)
    assert clock.frame(0) == frame


def test_speed_ends_at_a_quarter_and_at_four():
    clock = play()
    for _ in range(9):
        clock.faster(-1)
    assert clock.speed == 0.25
    for _ in range(9):
        clock.faster(1)
    assert clock.speed == 4.0


def test_a_pause_stops_the_clips_but_not_the_seconds():
    clock = play()
    clock.toggle()
    clock.advance(1.0)
    assert (clock.frame(0), clock.watched, clock.seconds) == (0, 0.0, 1.0)
    clock.toggle()
    clock.advance(1.0)
    assert clock.frame(0) == 10


@pytest.mark.parametrize("fps", [10.0, 15.0, 29.97, 3.0, 60.0])
def test_stepping_shows_each_frame_once_and_comes_round(fps):
    clock = play(lengths=(7, 7), fps=(fps, fps))
    seen = [clock.frame(0)]
    for _ in range(7):
        clock.step(1)
        seen.append(clock.frame(0))
    assert seen == [0, 1, 2, 3, 4, 5, 6, 0]
    clock.step(-1)
    assert clock.frame(0) == 6
    assert clock.paused


def test_restart_plays_from_the_first_frame():
    clock = play()
    clock.advance(1.0)
    clock.toggle()
    clock.restart()
    assert (clock.frame(0), clock.paused) == (0, False)
