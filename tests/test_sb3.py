"""Stable-baselines3 trains on a learned reward, and sees nothing of the true one."""

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize

import prefrl
from prefrl.loop.state import spaces_of
from prefrl.rewards import RewardConfig, RewardModel
from prefrl.sb3 import LearnedRewardVecEnv


def random_model(env):
    """A reward model with random weights, normalised on random steps."""
    model = RewardModel.build(
        spaces_of(env),
        RewardConfig(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
    )
    n = 64
    spaces = model.spaces
    if spaces.kind == "pixels":
        observation = torch.randint(0, 256, (n, *spaces.observation), dtype=torch.uint8)
    else:
        observation = torch.randn(n, *spaces.observation)
    discrete = torch.randint(0, spaces.actions, (n,))
    model.normalise_on(observation, discrete if spaces.discrete else torch.randn(n, spaces.actions))
    return model


def wrapped(task, num_envs, **options):
    env = prefrl.make_vec(task, num_envs=num_envs, seed=0, **options)
    return LearnedRewardVecEnv(env, random_model(env))


def moved(agent, steps):
    """Whether training changed the policy."""
    before = [p.detach().clone() for p in agent.policy.parameters()]
    agent.learn(steps)
    after = agent.policy.parameters()
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_ppo_trains_on_a_learned_reward():
    venv = wrapped("prefrl/Dot-v0", 4)
    agent = PPO("MlpPolicy", venv, n_steps=50, batch_size=50, seed=0, device="cpu")
    assert moved(agent, 400)


def test_sac_trains_on_a_learned_reward():
    venv = wrapped("Pendulum-v1", 2)
    agent = SAC("MlpPolicy", venv, learning_starts=100, batch_size=32, seed=0, device="cpu")
    assert moved(agent, 300)


def test_ppo_reads_pixels_channels_first():
    venv = wrapped("ALE/Pong-v5", 2, threads=1)
    assert venv.observation_space.shape == (4, 84, 84)
    agent = PPO("CnnPolicy", venv, n_steps=8, batch_size=16, n_epochs=1, seed=0, device="cpu")
    assert moved(agent, 16)


def test_the_reward_is_the_models_for_the_observation_acted_upon():
    venv = wrapped("Pendulum-v1", 3)
    observation = venv.reset().copy()
    action = np.array([[0.5], [-1.0], [2.0]], np.float32)
    reward = venv.step(action)[1]
    want = venv.model.score_steps(
        torch.from_numpy(observation)[:, None], torch.from_numpy(action)[:, None]
    )
    assert reward == pytest.approx(want[:, 0].numpy(), abs=1e-6)


@pytest.mark.parametrize("seed", [None, 0])
def test_a_time_limit_brings_the_final_observation_and_nothing_else(seed):
    venv = wrapped("prefrl/Dot-v0", 2)
    if seed is not None:
        venv.seed(seed)  # as every algorithm with a seed does
    venv.reset()
    ends = []
    for t in range(1, 61):  # the horizon is 40; the second one begins half-way
        observation, _, done, infos = venv.step(np.zeros(2, np.int64))
        for env, (row, info) in enumerate(zip(observation, infos, strict=True)):
            shown = {"terminal_observation", "TimeLimit.truncated"} if done[env] else set()
            assert set(info) == shown
            if done[env]:
                ends.append((t, env))
                assert info["TimeLimit.truncated"] is True
                assert not np.array_equal(info["terminal_observation"], row)
    assert ends == [(20, 1), (40, 0), (60, 1)]


def test_episodes_of_one_phase_are_all_whole():
    env = prefrl.make_vec("prefrl/Dot-v0", num_envs=2, seed=0)
    venv = LearnedRewardVecEnv(env, random_model(env), phases=False)
    venv.reset()
    ends = [venv.step(np.zeros(2, np.int64))[2].tolist() for _ in range(40)]
    assert ends == [[False, False]] * 39 + [[True, True]]


def test_a_seed_repeats_the_episode():
    venv = wrapped("prefrl/Dot-v0", 2)
    venv.seed(5)
    first = venv.reset().copy()
    assert not np.array_equal(wrapped("prefrl/Dot-v0", 2).reset(), first)
    venv.seed(5)
    assert np.array_equal(venv.reset(), first)


def test_a_model_of_other_spaces_or_unfitted_is_refused():
    dot = prefrl.make_vec("prefrl/Dot-v0", num_envs=2, seed=0)
    pendulum = prefrl.make_vec("Pendulum-v1", num_envs=2, seed=0)
    with pytest.raises(prefrl.UserError, match="the reward model reads"):
        LearnedRewardVecEnv(pendulum, random_model(dot))
    model = random_model(dot)
    model.fitted = False
    with pytest.raises(prefrl.UserError, match="never fitted"):
        LearnedRewardVecEnv(dot, model)


def test_environments_of_stable_baselines3_are_wrapped_too():
    dot = prefrl.make_vec("Pendulum-v1", num_envs=2, seed=0)
    inside = DummyVecEnv([lambda: Monitor(gymnasium.make("Pendulum-v1"))] * 2)
    venv = LearnedRewardVecEnv(inside, random_model(dot))
    assert isinstance(venv, VecEnvWrapper)
    observation = venv.reset().copy()
    action = np.array([[0.5], [-1.0]], np.float32)
    reward = venv.step(action)[1]
    want = venv.model.score_steps(
        torch.from_numpy(observation)[:, None], torch.from_numpy(action)[:, None]
    )
    assert reward == pytest.approx(want[:, 0].numpy(), abs=1e-6)
    for _ in range(199):
        infos = venv.step(action)[3]
    assert all(set(x) == {"terminal_observation", "TimeLimit.truncated"} for x in infos)
    assert venv.env_is_wrapped(Monitor) == [False, False]
    agent = PPO("MlpPolicy", venv, n_steps=50, batch_size=50, seed=0, device="cpu")
    assert moved(agent, 100)


def test_a_single_environment_is_refused():
    dot = prefrl.make_vec("Pendulum-v1", num_envs=2, seed=0)
    with pytest.raises(prefrl.UserError, match="wanted several environments"):
        LearnedRewardVecEnv(gymnasium.make("Pendulum-v1"), random_model(dot))


@pytest.mark.parametrize("given", ["runs/dot", None])
def test_what_is_no_reward_model_is_refused(given):
    dot = prefrl.make_vec("Pendulum-v1", num_envs=2, seed=0)
    with pytest.raises(prefrl.UserError, match=f"model: got {given!r}, wanted a reward model"):
        LearnedRewardVecEnv(dot, given)


def test_other_spaces_and_changed_observations_are_refused():
    dot = prefrl.make_vec("Pendulum-v1", num_envs=2, seed=0)
    inside = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")])
    with pytest.raises(prefrl.UserError, match="got a VecNormalize"):
        LearnedRewardVecEnv(VecNormalize(inside), random_model(dot))
    inside.observation_space = gymnasium.spaces.Dict({"x": inside.observation_space})
    with pytest.raises(prefrl.UserError, match="env: got observations Dict"):
        LearnedRewardVecEnv(inside, random_model(dot))


def test_later_resets_begin_elsewhere():
    venv = wrapped("prefrl/Dot-v0", 2)
    first = venv.reset().copy()
    venv.step(np.zeros(2, np.int64))
    second = venv.reset().copy()
    assert not np.array_equal(first, second)
    assert np.array_equal(wrapped("prefrl/Dot-v0", 2).reset(), first)


def test_options_reach_the_environment():
    venv = wrapped("prefrl/Dot-v0", 2)
    venv.set_options({"wind": 1})
    with pytest.raises(ValueError, match=r"takes no options here; got \['wind'\]"):
        venv.reset()


def test_episodes_that_restart_at_another_moment_are_refused():
    env = gymnasium.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync")
    with pytest.raises(prefrl.UserError, match=r"wanted AutoresetMode\.SAME_STEP"):
        LearnedRewardVecEnv(env, random_model(env))
