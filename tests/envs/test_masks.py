"""Other scores poked into the console's memory change no masked pixel, in all seven games."""

import ale_py
import cv2
import numpy as np
import pytest
from ale_py import roms

from envs import find_task, make_vec, tasks
from envs.atari import AtariOptions, _emulator
from envs.masks import NATIVE_HEIGHT, NATIVE_WIDTH, Rectangle, blank, resized

ALE_TASKS = [task.id for task in tasks() if task.domain == "atari"]
NOOP = ale_py.Action.NOOP
SCORE_BYTES = {
    "ALE/BeamRider-v5": (9, 10, 11),
    "ALE/Breakout-v5": (76, 77),
    "ALE/Enduro-v5": (39, 40, 41, 42),
    "ALE/Pong-v5": (13, 14),
    "ALE/Qbert-v5": (89, 90, 91),
    "ALE/Seaquest-v5": (56, 57, 58),
    "ALE/SpaceInvaders-v5": (102, 104),
}
"""Where each game keeps its score: the emulator's own reward follows these bytes.

Enduro's four are the mileage; its reward is the count of cars, which has a test of its own.
"""


def console(task, seed=1):
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(find_task(task).details.rom))
    ale.reset_game()
    return ale


def random_score(rng, task):
    """One byte of score: two decimal digits; in Pong a number below the final 21."""
    if task == "ALE/Pong-v5":
        return int(rng.integers(15))
    return int(rng.integers(10)) * 16 + int(rng.integers(10))


def colours(ale, rectangles):
    """The native screen as palette indices, blanked."""
    frame = ale.getScreen().copy()
    blank(frame, rectangles)
    return frame


def agents_view(ale, rectangles):
    """One 84x84 frame, made and masked as the agent's."""
    grey = ale.getScreenGrayscale().reshape(NATIVE_HEIGHT, NATIVE_WIDTH)
    frame = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
    blank(frame, [resized(area, height=84, width=84) for area in rectangles])
    return frame


@pytest.mark.parametrize("task", ALE_TASKS)
def test_a_poked_score_never_shows_through_the_mask_during_play(task):
    """Twin consoles play the same; every 15 steps one gets another score for the next 15."""
    mask, rng = find_task(task).details.score, np.random.default_rng(0)
    honest, poked = console(task), console(task)
    moves = honest.getMinimalActionSet()
    shown = paid = 0
    for step in range(360):
        if step % 15 == 0:
            poked.restoreState(honest.cloneState())
            for address in SCORE_BYTES[task]:
                poked.setRAM(address, random_score(rng, task))
        move = moves[rng.integers(len(moves))]
        for _ in range(4):
            paid += honest.act(move) != poked.act(move)
        assert honest.game_over() == poked.game_over()
        if honest.game_over():
            honest.reset_game()
            poked.reset_game()
        assert np.array_equal(colours(honest, mask), colours(poked, mask)), step
        assert np.array_equal(agents_view(honest, mask), agents_view(poked, mask)), step
        shown += not np.array_equal(agents_view(honest, ()), agents_view(poked, ()))
    assert shown > 100, "the pokes never showed, even without a mask"
    assert paid > 15 or task == "ALE/Enduro-v5", "these bytes are not the score"


@pytest.mark.parametrize(
    ("task", "pokes"),
    [
        ("ALE/BeamRider-v5", [{84: count} for count in range(1, 16)]),
        ("ALE/Enduro-v5", [{43: low, 44: 1, 45: day} for low in (1, 0x55, 0x99) for day in (1, 4)]),
    ],
    ids=["enemies left in BeamRider", "cars left and day in Enduro"],
)
def test_counters_that_tell_the_score_are_masked_too(task, pokes):
    mask, ale = find_task(task).details.score, console(task)
    for _ in range(400):
        ale.act(NOOP)
    before, shown = ale.cloneState(), 0
    ale.act(NOOP)
    honest, bare = colours(ale, mask), colours(ale, ())
    for poke in pokes:
        ale.restoreState(before)
        for address, value in poke.items():
            ale.setRAM(address, value)
        ale.act(NOOP)
        assert np.array_equal(colours(ale, mask), honest), poke
        shown += not np.array_equal(colours(ale, ()), bare)
    assert shown >= len(pokes) - 1


def test_enduros_reward_is_the_count_of_cars_that_the_mask_hides():
    ale = console("ALE/Enduro-v5")
    for _ in range(400):
        ale.act(NOOP)
    ale.setRAM(43, 0x55)
    ale.setRAM(44, 1)
    assert ale.act(NOOP) != 0


@pytest.mark.parametrize("task", ALE_TASKS)
def test_a_mask_hides_little_and_leaves_the_game_visible(task):
    hidden = np.zeros((NATIVE_HEIGHT, NATIVE_WIDTH), np.uint8)
    for top, bottom, left, right in find_task(task).details.score:
        hidden[top:bottom, left:right] = 1
    whole_rows = {"ALE/Pong-v5": 0.11, "ALE/Breakout-v5": 0.08}
    assert 0 < hidden.mean() < whole_rows.get(task, 0.07)


@pytest.mark.parametrize(("byte", "values"), [(59, (0, 2)), (102, (10, 40))])
def test_seaquests_lives_and_oxygen_stay_visible(byte, values):
    mask, ale = find_task("ALE/Seaquest-v5").details.score, console("ALE/Seaquest-v5")
    for _ in range(400):
        ale.act(NOOP)
    before, views = ale.cloneState(), []
    for value in values:
        ale.restoreState(before)
        ale.setRAM(byte, value)
        ale.act(NOOP)
        ale.act(NOOP)
        views.append(agents_view(ale, mask))
    assert not np.array_equal(*views)


@pytest.mark.parametrize("task", ALE_TASKS)
def test_every_frame_of_an_observation_is_masked(task):
    venv = make_vec(task, num_envs=2, seed=0)
    rng, seen = np.random.default_rng(0), [venv.reset_at(0)]
    for _ in range(10):
        seen.append(venv.step(rng.integers(0, venv.single_action_space.n, 2))[0])
    for area in venv.task.details.score:
        top, bottom, left, right = resized(area, height=84, width=84)
        assert not np.stack(seen)[..., top:bottom, left:right].any()
    assert np.stack(seen)[..., 30:, :].any()
    venv.close()


def test_the_agents_frame_is_an_area_resize_of_the_native_frame():
    """Otherwise the masks would not sit where the scores are."""
    venv = make_vec("ALE/Seaquest-v5", num_envs=2, seed=3)
    native = _emulator(
        "seaquest", 2, AtariOptions(), stack_num=1, img_height=210, img_width=160, num_threads=1
    )
    rng, seen = np.random.default_rng(0), venv.reset_at(0)
    full, _ = native.reset(seed=venv._seeds)
    for _ in range(20):
        for env in range(2):
            wanted = cv2.resize(full[env, 0], (84, 84), interpolation=cv2.INTER_AREA)
            blank(wanted, venv._mask)
            assert np.array_equal(seen[env, -1], wanted)
        actions = rng.integers(0, 18, 2)
        seen, (full, *_) = venv.step(actions)[0], native.step(actions)
    venv.close()
    native.close()


def test_a_resized_rectangle_holds_the_pixels_that_the_native_one_can_change_and_no_more():
    rng = np.random.default_rng(0)
    for _ in range(60):
        top, left = int(rng.integers(200)), int(rng.integers(150))
        height, width = rng.integers(1, [211 - top, 161 - left])
        area = Rectangle(top, top + int(height), left, left + int(width))
        frame = np.zeros((NATIVE_HEIGHT, NATIVE_WIDTH), np.float32)
        frame[area.top : area.bottom, area.left : area.right] = 255
        touched = cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA) > 1e-3
        wanted = np.zeros((84, 84), bool)
        small = resized(area, height=84, width=84)
        wanted[small.top : small.bottom, small.left : small.right] = True
        assert np.array_equal(touched, wanted), area
