import numpy as np
import pytest
import torch

from envs import make_vec
from prefrl.agents import PolicyConfig, make_policy
from prefrl.loop.play import Player, episode_returns, estimate


def player(num_envs, seed=0):
    venv = make_vec("prefrl/Dot-v0", num_envs=num_envs, seed=seed)
    policy = make_policy(
        venv.single_observation_space,
        venv.single_action_space,
        PolicyConfig(widths=(8,)),
        device=torch.device("cpu"),
        generator=torch.Generator(),
    )
    return Player(venv, policy, device=torch.device("cpu"), seed=seed, greedy=False)


def test_every_environment_plays_its_share_of_the_episodes():
    returns = episode_returns(player(3), episodes=7)  # 3 + 2 + 2
    assert len(returns) == 7
    assert np.array_equal(returns, episode_returns(player(3), episodes=7))


def test_a_restart_goes_elsewhere():
    one = player(2)
    before = one._observation.clone()
    assert one.advance(5) == 0
    one.restart()
    assert not torch.equal(one._observation, before)
    assert one.advance(5) == 0


def test_the_interval_contains_the_mean_and_narrows_with_more_values():
    values = np.random.default_rng(0).normal(10, 2, size=400)
    few, many = estimate(values[:20]), estimate(values)
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    assert many.high - many.low == pytest.approx(2 * 1.96 * 2 / np.sqrt(400), rel=0.15)
    assert many.std == pytest.approx(2, rel=0.1)


def test_one_value_has_no_spread():
    got = estimate(np.array([3.0]))
    assert (got.mean, got.std, got.low, got.high, got.n) == (3.0, 0.0, 3.0, 3.0, 1)
