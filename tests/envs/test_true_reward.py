"""The robots are Gymnasium's, and the true reward is Gymnasium's without what nobody can see."""

import gymnasium
import numpy as np
import pytest

from envs import make_vec
from envs.hidden import sub_seeds
from envs.mujoco import _quiet_models


def side_by_side(task, steps, *, size=1.0):
    """Per step: our observation and true reward; Gymnasium's observation, reward, end, info."""
    venv = make_vec(task, num_envs=1, seed=4)
    with _quiet_models():
        theirs = gymnasium.make(task).unwrapped
    ours, (start, _) = venv.reset_at(0), theirs.reset(seed=int(sub_seeds(4, 0, 1)[0]))
    assert np.array_equal(ours[0], start[: ours.shape[1]].astype(np.float32))
    rng, space = np.random.default_rng(0), venv.single_action_space
    for _ in range(steps):
        action = (size * rng.uniform(space.low, space.high)).astype(np.float32)
        ours, *_ = venv.step(action[None])
        yield ours[0], venv.score.true_reward[0], *theirs.step(action)[:3], theirs, action
    venv.close()
    theirs.close()


@pytest.mark.parametrize(
    ("task", "per_unit_of_control"),
    [("HalfCheetah-v5", 0.1), ("Swimmer-v5", 1e-4), ("Reacher-v5", 1.0)],
)
def test_true_reward_is_gymnasiums_without_the_control_cost(task, per_unit_of_control):
    for ours, true_reward, theirs, reward, _, _, action in side_by_side(task, 40):
        assert np.array_equal(ours, theirs.astype(np.float32))
        assert true_reward == pytest.approx(
            reward + per_unit_of_control * np.square(action).sum(), abs=1e-9
        )


@pytest.mark.parametrize(
    ("task", "place", "above"),
    [("Hopper-v5", 1, 0.0), ("Walker2d-v5", 1, 1.0), ("Ant-v5", 2, 1.2)],
)
def test_what_walks_earns_its_speed_and_the_height_of_its_torso(task, place, above):
    heights = []
    for ours, true_reward, theirs, reward, _, twin, action in side_by_side(task, 300):
        assert np.array_equal(ours, theirs[: ours.size].astype(np.float32))
        costs = twin.control_cost(action) + getattr(twin, "contact_cost", 0.0)
        speed = reward - twin.healthy_reward + costs
        heights.append(twin.data.qpos[place])
        assert true_reward == pytest.approx(speed + heights[-1] - above, abs=1e-9)
    assert max(heights) - min(heights) > 0.3


def test_an_inverted_pendulum_earns_one_while_it_stands_and_loses_one_when_it_lies():
    seen = {
        (bool(ended), true_reward)
        for _, true_reward, _, _, ended, _, _ in side_by_side("InvertedPendulum-v5", 60)
    }
    assert seen == {(False, 1.0), (True, -1.0)}


def test_an_inverted_double_pendulum_loses_one_when_it_lies():
    ends = 0
    steps = side_by_side("InvertedDoublePendulum-v5", 60)
    for _, true_reward, _, reward, ended, _, _ in steps:
        assert true_reward == pytest.approx(reward - (1.0 if ended else 0.0), abs=1e-9)
        ends += ended
    assert ends


def test_actions_beyond_the_bounds_are_clipped():
    venv = make_vec("HalfCheetah-v5", num_envs=1, seed=0)
    films = []
    for size in (1.0, 50.0, np.inf):
        venv.reset_at(0)
        films.append(venv.step(np.full((1, 6), size))[0].tobytes())
    assert films[0] == films[1] == films[2]
    venv.close()


def test_pendulum_moves_as_gymnasiums_does():
    venv = make_vec("Pendulum-v1", num_envs=3, seed=0)
    venv.reset_at(0)
    twins = [gymnasium.make("Pendulum-v1").unwrapped for _ in range(3)]
    for twin, state in zip(twins, venv._states(), strict=True):
        twin.reset(seed=0)
        twin.state = state.copy()
    rng = np.random.default_rng(0)
    for _ in range(100):
        torque = rng.uniform(-3, 3, (3, 1)).astype(np.float32)
        ours, *_ = venv.step(torque)
        for env, twin in enumerate(twins):
            theirs, reward, *_ = twin.step(torque[env])
            cost_of_torque = 0.001 * float(np.clip(torque[env, 0], -2, 2)) ** 2
            assert np.allclose(ours[env], theirs, atol=1e-5)
            assert venv.score.true_reward[env] == pytest.approx(reward + cost_of_torque, abs=1e-5)


def test_pendulum_starts_where_gymnasiums_may_start():
    venv = make_vec("Pendulum-v1", num_envs=500, seed=0)
    venv.reset_at(0)
    angle, speed = venv._states().T
    assert 3.0 < abs(angle).max() <= np.pi
    assert 0.95 < abs(speed).max() <= 1.0
