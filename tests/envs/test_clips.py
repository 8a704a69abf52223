"""Clip recipes: what a rater sees is what the agent saw; bytes from outside are only data."""

import hashlib
import json
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import zstandard

from envs import ClipRecipe, TaskError, find_task, make_vec, render_clip, tasks
from envs.atari import AtariOptions, _emulator
from envs.clips import MAGIC
from envs.masks import blank
from envs.registry import drawer


def played(task, steps, *, num_envs=2, seed=0, **options):
    """A vector environment after random play, and the observations before each step."""
    venv = make_vec(task, num_envs=num_envs, seed=seed, **options)
    venv.action_space.seed(seed)
    seen = [venv.reset_at(0)]
    for _ in range(steps):
        seen.append(venv.step(venv.action_space.sample())[0])
    return venv, np.stack(seen)


HEADER = {
    "task": "prefrl/Dot-v0",
    "options": {},
    "seed": 0,
    "steps": 2,
    "lead": 0,
    "dtype": "float32",
    "shape": [2, 4],
}
PONG = {"task": "ALE/Pong-v5", "dtype": "uint8", "shape": [1]}


def forged(rows=b"\0" * 32, *, body=None, text=None, **changes):
    """Recipe bytes with a right checksum and whatever else inside."""
    text = json.dumps({**HEADER, **changes}).encode() if text is None else text
    body = zstandard.compress(rows) if body is None else body
    rest = struct.pack("<I", len(text)) + text + body
    return MAGIC + hashlib.sha256(rest).digest() + rest


@pytest.mark.parametrize("task", ["ALE/Pong-v5", "Hopper-v5", "Pendulum-v1", "prefrl/Dot-v0"])
def test_a_recipe_survives_the_way_through_bytes(task):
    venv, _ = played(task, 30)
    recipe = venv.clip_recipe(env=1, start=12, steps=10)
    copy = ClipRecipe.from_bytes(recipe.to_bytes())
    assert (copy.task, dict(copy.options), copy.seed) == (task, dict(recipe.options), recipe.seed)
    assert (copy.steps, copy.trace.lead) == (10, recipe.trace.lead)
    assert np.array_equal(copy.trace.rows(), recipe.trace.rows())
    assert copy.to_bytes() == recipe.to_bytes()
    venv.close()


def error_of(frames, observations, mask):
    """Mean grey difference of a clip [T, 210, 160, 3] from the agent's frames [T, 84, 84]."""
    total = 0.0
    for frame, observation in zip(frames, observations, strict=True):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
        blank(grey, mask)
        total += abs(grey.astype(float) - observation).mean()
    return total / len(frames)


ATARI_CASES = [
    ("ALE/Pong-v5", {"sticky": 0.25}),
    ("ALE/Breakout-v5", {}),
    ("ALE/Seaquest-v5", {"actions": "full", "noop_max": 3}),
    ("ALE/Pong-v5", {"actions": "reduced"}),
]


@pytest.mark.parametrize(("task", "options"), ATARI_CASES)
def test_an_atari_clip_shows_the_observations_that_the_agent_saw(task, options):
    """Up to rounding, and to sprites that flicker: the maximum is taken per colour."""
    venv, seen = played(task, 260, **options)
    for env, start in ((0, 1), (1, 230)):
        frames = render_clip(venv.clip_recipe(env=env, start=start, steps=25).to_bytes())
        assert frames.shape == (25, 210, 160, 3)
        near, early, late = (
            error_of(frames, seen[at : at + 25, env, -1], venv._mask)
            for at in (start, start - 1, start + 1)
        )
        assert near < 0.5
        assert near < min(early, late), "no step too early or too late"
    venv.close()


@pytest.mark.parametrize(("task", "options"), ATARI_CASES[::2])
def test_a_recipes_actions_and_seed_repeat_the_agents_frames_bit_for_bit(task, options):
    venv, seen = played(task, 260, num_envs=3, **options)
    recipe = venv.clip_recipe(env=2, start=235, steps=25)
    settings = AtariOptions(**recipe.options)
    lone = _emulator(venv.task.details.rom, 1, settings, stack_num=1, num_threads=1)
    frames = [lone.reset(seed=np.array([recipe.seed]))[0][0, 0]]
    for action in venv._action_table[recipe.trace.rows()]:
        frames.append(lone.step(action[None])[0][0, 0])
    blank(frames := np.stack(frames[recipe.trace.lead :]), venv._mask)
    assert np.array_equal(frames, seen[235:260, 2, -1])
    lone.close()
    venv.close()


def test_an_atari_clip_goes_on_across_a_hidden_end():
    venv = make_vec("ALE/Breakout-v5", num_envs=1, seed=0)
    rng, seen, end = np.random.default_rng(0), [venv.reset_at(0)], None
    while end is None or len(seen) < end + 8:
        seen.append(venv.step(rng.integers(0, 4, 1))[0])
        if venv.score.episode_end[0]:
            end = len(seen) - 1
    frames = render_clip(venv.clip_recipe(env=0, start=end - 4, steps=10))
    wanted = np.stack(seen[end - 4 : end + 6])[:, 0, -1]
    assert error_of(frames, wanted, venv._mask) < 0.5
    venv.close()


@pytest.mark.parametrize("task", [t.id for t in tasks() if t.domain == "atari"])
def test_a_clip_is_masked_unless_one_asks_for_the_score(task):
    venv, _ = played(task, 120, num_envs=1)
    recipe = venv.clip_recipe(env=0, start=110, steps=5)
    masked, bare = render_clip(recipe), render_clip(recipe, masked=False)
    for top, bottom, left, right in find_task(task).details.score:
        assert not masked[:, top:bottom, left:right].any()
        assert bare[:, top:bottom, left:right].any()
        bare[:, top:bottom, left:right] = 0
    assert np.array_equal(masked, bare), "nothing else is blanked"
    venv.close()


def test_a_clip_of_the_toy_shows_the_dot_where_it_was():
    venv, seen = played("prefrl/Dot-v0", 20)
    frames = render_clip(venv.clip_recipe(env=1, start=5, steps=10))
    assert frames.shape == (10, 128, 128, 3)
    for frame, (x, y, _, _) in zip(frames, seen[5:15, 1], strict=True):
        rows, columns = np.nonzero((frame == 240).all(axis=-1))
        assert abs(columns.mean() - (10 + 107 * x)) < 1.5
        assert abs(rows.mean() - (10 + 107 * (1 - y))) < 1.5


def test_a_clip_of_the_pendulum_points_where_it_pointed():
    venv, seen = played("Pendulum-v1", 8)
    frames = render_clip(venv.clip_recipe(env=0, start=2, steps=6))
    assert frames.shape == (6, 480, 480, 3)
    for frame, (cosine, sine, _) in zip(frames, seen[2:8, 0], strict=True):
        rows, columns = np.nonzero((frame == (204, 77, 77)).all(axis=-1))
        assert np.allclose((239.5 - rows.mean()) / 96, cosine, atol=0.12)
        assert np.allclose((239.5 - columns.mean()) / 96, sine, atol=0.12)


@pytest.fixture(scope="module")
def egl():
    """Skips where MuJoCo cannot draw; asked in a process of its own, for a context once freed
    takes the next ones with it."""
    ask = "import envs.mujoco as robots; robots.mujoco.GLContext(8, 8)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no EGL here: {done.stderr.splitlines()[-1:]}")


def test_a_robot_clip_is_drawn_from_its_states(egl):
    venv, _ = played("Hopper-v5", 60, num_envs=1)
    recipe = venv.clip_recipe(env=0, start=0, steps=60)
    rows = recipe.trace.rows()
    assert rows.shape == (60, 12)
    assert abs(rows[0, 1] - 1.25) < 0.01, "the first state is the one before the first action"
    short = venv.clip_recipe(env=0, start=57, steps=2)
    frames = render_clip(short.to_bytes())
    assert frames.shape == (2, 480, 480, 3)
    assert frames.std() > 10
    assert not np.array_equal(frames[0], frames[1])
    venv.close()


@pytest.mark.parametrize("place", [-1.0, 1.0])
def test_the_cart_of_the_pendulum_is_seen_at_both_ends_of_its_rail(egl, place):
    states = np.array([[place, 0.0, 0.0, 0.0]], np.float32)
    task = find_task("InvertedPendulum-v5")
    (frame,) = drawer(task)(task, {}, 0, states, 0, masked=True)
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    yellow = np.minimum(red, green) > blue + 30
    assert yellow.sum() > 500
    assert not yellow[:, [0, -1]].any(), "all of it"


def test_a_recipe_keeps_what_was_logged_when_the_environment_restarts():
    venv, _ = played("prefrl/Dot-v0", 20)
    recipe = venv.clip_recipe(env=0, start=3, steps=10)
    before = recipe.to_bytes()
    venv.reset_at(99)
    for _ in range(20):
        venv.step(np.array([1, 2]))
    assert recipe.to_bytes() == before


@pytest.mark.parametrize(
    ("env", "start", "steps"), [(0, -1, 5), (0, 0, 0), (0, 16, 5), (2, 0, 5), (-1, 0, 5)]
)
def test_a_clip_out_of_bounds_is_refused(env, start, steps):
    venv, _ = played("prefrl/Dot-v0", 20)
    with pytest.raises(TaskError, match=r"no clip of steps|no sub-environment"):
        venv.clip_recipe(env=env, start=start, steps=steps)


def test_the_forger_of_these_tests_can_write_a_good_recipe():
    assert render_clip(forged()).shape == (2, 128, 128, 3)
    pong = forged(b"\0", **PONG)
    assert render_clip(pong).shape == (2, 210, 160, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        b"\x80\x04K\x01.",
        MAGIC + bytes(40),
        forged()[:-1],
        forged() + b"x",
        forged(text=b"[1]"),
        forged(text=b"{" * 3000),
        forged(text=b'"' + b"x" * 5000 + b'"'),
        forged(body=b""),
        forged(body=b"not zstandard"),
        forged(rows=b"\0" * 31),
        forged(rows=b"\0" * 33),
        forged(body=zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * 32)),
        forged(steps=0),
        forged(steps=True),
        forged(steps=10**9, shape=[10**9, 4]),
        forged(seed=-1),
        forged(seed=2**31),
        forged(lead=-1),
        forged(lead=1),
        forged(lead=1.0),
        forged(dtype="object"),
        forged(dtype="float64"),
        forged(shape=[]),
        forged(shape=[2, 4, 1]),
        forged(shape=[2, -4]),
        forged(shape=[2, 10**12]),
        forged(shape=[2, "4"]),
        forged(rows=b"", shape=[0, 2**70], steps=1, dtype="uint8"),
        forged(options=[]),
        forged(extra=1),
    ],
)
def test_hostile_bytes_are_refused_when_read(data):
    with pytest.raises(TaskError):
        ClipRecipe.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        forged(task="os.system"),
        forged(rows=b"\0" * 24, shape=[2, 3]),
        forged(rows=struct.pack("<8f", *[float("nan")] * 8)),
        forged(rows=struct.pack("<8f", *[2.0] * 8)),
        forged(rows=b"\0" * 4, dtype="uint8", shape=[1, 4]),
        forged(rows=b"\0" * 40000, dtype="uint8", shape=[10000, 4], lead=9999),
        forged(task="Pendulum-v1"),
        forged(rows=b"\0" * 16, task="Pendulum-v1", shape=[2, 2], dtype="uint8", lead=1),
        forged(task="ALE/Pong-v5"),
        forged(b"\x06", **PONG),
        forged(b"\0", **PONG, options={"rom": "/etc/passwd"}),
        forged(b"\0", **PONG, options={"sticky": -1}),
        forged(b"\0", **PONG, options={"actions": []}),
        forged(b"\0", **PONG, options={"noop_max": 10**9}),
    ],
)
def test_hostile_recipes_are_refused_when_drawn(data):
    with pytest.raises(TaskError):
        render_clip(data)
