"""The toy world can be learnt: its actions matter, and its reward tells how."""

import numpy as np

from envs import make_vec


def towards_goal(observation):
    """Step along the longer axis of the way to the goal: stay, left, right, up, down."""
    way = observation[:, 2:] - observation[:, :2]
    along_x = abs(way[:, 0]) > abs(way[:, 1])
    move = np.where(along_x, np.where(way[:, 0] < 0, 1, 2), np.where(way[:, 1] < 0, 4, 3))
    return np.where(abs(way).max(axis=1) < 0.05, 0, move)


def mean_return(policy):
    venv = make_vec("prefrl/Dot-v0", num_envs=64, seed=0)
    observation = venv.reset_at(0)
    for _ in range(venv.task.horizon):
        observation, *_ = venv.step(policy(observation))
    return venv.score.episode_return.mean()


def test_walking_towards_the_goal_beats_random_and_standing_still():
    rng = np.random.default_rng(0)
    greedy = mean_return(towards_goal)
    # The mean distance of two random points is 0.52, so standing still returns about -21.
    assert greedy > -5
    assert mean_return(lambda seen: rng.integers(0, 5, len(seen))) < -15
    assert mean_return(lambda seen: np.zeros(len(seen), int)) < -15


def test_the_five_moves_are_stay_left_right_up_down():
    venv = make_vec("prefrl/Dot-v0", num_envs=5, seed=0)
    before = venv.reset_at(0)
    venv._state[:, :2] = 0.5
    after, *_ = venv.step(np.arange(5))
    moved = after[:, :2] - 0.5
    assert np.allclose(moved, [[0, 0], [-0.1, 0], [0.1, 0], [0, 0.1], [0, -0.1]])
    assert np.array_equal(after[:, 2:], before[:, 2:]), "the goal stays"


def test_the_true_reward_is_minus_the_distance_after_the_step():
    venv = make_vec("prefrl/Dot-v0", num_envs=8, seed=0)
    venv.reset_at(0)
    seen, *_ = venv.step(np.arange(8) % 5)
    distance = np.hypot(seen[:, 0] - seen[:, 2], seen[:, 1] - seen[:, 3])
    assert np.allclose(venv.score.true_reward, -distance, atol=1e-6)


def test_the_dot_stays_in_the_unit_square():
    venv = make_vec("prefrl/Dot-v0", num_envs=2, seed=0)
    venv.reset_at(0)
    for _ in range(20):
        seen, *_ = venv.step(np.array([1, 2]))
    assert seen[0, 0] == 0.0
    assert seen[1, 0] == 1.0
