"""Atari's episode ends are invisible: the agent sees one endless film."""

from functools import lru_cache

import numpy as np
import pytest

from envs import make_vec


@lru_cache
def film(task, *, num_envs, steps, seed=0):
    """Observations [steps + 1, B, 4, 84, 84] of random play, and hidden ends [steps, B]."""
    venv = make_vec(task, num_envs=num_envs, seed=seed)
    rng, seen, ends = np.random.default_rng(seed), [venv.reset_at(0)], []
    for _ in range(steps):
        actions = rng.integers(0, venv.single_action_space.n, num_envs)
        observation, reward, terminated, truncated, info = venv.step(actions)
        assert info == {}
        assert not np.stack([reward, terminated, truncated]).any()
        seen.append(observation)
        ends.append(venv.score.episode_end)
    venv.close()
    return np.stack(seen), np.stack(ends)


@pytest.mark.parametrize("task", ["ALE/Breakout-v5", "ALE/SpaceInvaders-v5"])
def test_the_frame_stack_runs_on_across_hidden_ends(task):
    seen, ends = film(task, num_envs=4, steps=420)
    assert 2 <= ends.sum() < 40
    assert np.array_equal(seen[1:, :, :-1], seen[:-1, :, 1:]), "the older frames are the last ones"
    black = ~seen.any(axis=(-1, -2))
    assert not black.any(), "the first stack after a reset is a still picture, not black"


def test_the_frame_after_a_hidden_end_is_the_first_of_the_next_episode():
    """Breakout's wall of bricks stands whole again."""
    seen, ends = film("ALE/Breakout-v5", num_envs=4, steps=420)
    wall = slice(24, 37)
    whole = seen[0, 0, -1, wall, 4:80]
    for step, env in np.argwhere(ends):
        assert np.array_equal(seen[step + 1, env, -1, wall, 4:80], whole)
    damaged = [not np.array_equal(seen[s, e, -1, wall, 4:80], whole) for s, e in np.argwhere(ends)]
    assert any(damaged), "no brick was ever hit: the test shows nothing"


@pytest.mark.parametrize(("num_envs", "noop_max"), [(1, 3), (8, 3), (1, 0), (2, 1), (2, 2)])
def test_nobody_sees_pongs_console_switch_on(num_envs, noop_max):
    """Not at a reset nor after a hidden end, nor in a later stack of frames."""
    venv = make_vec("ALE/Pong-v5", num_envs=num_envs, seed=3, noop_max=noop_max)
    seen, ends = [venv.reset_at(0)[:, :, 20:40]], 0
    for _ in range(780):
        seen.append(venv.step(np.zeros(num_envs, int))[0][:, :, 20:40])
        ends += venv.score.episode_end.sum()
    venv.close()
    stacks = np.stack(seen)
    assert ends == num_envs
    assert np.array_equal(stacks[1:, :, :-1], stacks[:-1, :, 1:]), "the older ones are as shown"
    assert np.unique(stacks[..., 10, 2]).size == 1, "a pixel where neither ball nor paddle comes"


def test_the_score_channel_tells_true_returns_and_lengths_of_hidden_episodes():
    venv = make_vec("ALE/Breakout-v5", num_envs=3, seed=2)
    venv.reset_at(0)
    rng, total, length, ends = np.random.default_rng(2), np.zeros(3), np.zeros(3, int), 0
    for _ in range(400):
        venv.step(rng.integers(0, 4, 3))
        score = venv.score
        total, length = total + score.true_reward, length + 1
        assert np.array_equal(score.episode_return, np.where(score.episode_end, total, 0))
        assert np.array_equal(score.episode_length, np.where(score.episode_end, length, 0))
        total, length = np.where(score.episode_end, 0, total), length * ~score.episode_end
        ends += score.episode_end.sum()
    assert ends >= 2
    venv.close()


def test_a_lost_life_is_no_episode_end():
    _, ends = film("ALE/Breakout-v5", num_envs=1, steps=300)
    assert ends.sum() <= 3, "five balls are one episode"
