"""The collector in small worlds whose every number is known."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from prefrl.agents import (
    Action,
    Collector,
    ControlPolicy,
    PolicyConfig,
    few_threads,
    make_policy,
)


class Corridor:
    """Observation [env, age, sum of actions]; a time limit after every 3 steps of each."""

    single_observation_space = Box(-100, 100, (3,), np.float32)

    def __init__(self, num_envs: int, action_space: gymnasium.Space) -> None:  # type: ignore[type-arg]
        self.num_envs, self.single_action_space = num_envs, action_space
        self.calls: list[np.ndarray] = []

    def reset_at(self, step: int, *, phases: bool = False) -> np.ndarray:
        self.state = np.zeros((self.num_envs, 3), np.float32)
        self.state[:, 0], self.state[:, 2] = np.arange(self.num_envs), step
        return self.state

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        self.calls.append(actions)
        self.state[:, 1] += 1  # in place: a collector must copy what it keeps
        self.state[:, 2] += actions.reshape(self.num_envs, -1).sum(1)
        final, ended = self.state.copy(), self.state[:, 1] == 3
        self.score = SimpleNamespace(
            true_reward=final[:, 0] * 10 + final[:, 1],
            episode_end=ended,
            episode_return=np.where(ended, 6.0, 0.0),
            episode_length=np.where(ended, 3, 0),
        )
        self.state[ended, 1] = 0
        zero = np.zeros(self.num_envs)
        return self.state, zero, zero > 0, ended, {"final_obs": final} if ended.any() else {}


class Fixed(ControlPolicy):
    """Always the same action; the value of a state is 100 env + age."""

    def __init__(self, action: Tensor) -> None:
        super().__init__()
        self.action = action

    def act(self, prepared: Tensor, *, generator: torch.Generator, greedy: bool = False) -> Action:
        B = len(prepared)
        return Action(
            action=self.action.expand(B, *self.action.shape),
            logp=torch.full((B,), -0.5),
            value=self.value(prepared),
        )

    def value(self, prepared: Tensor) -> Tensor:
        return 100 * prepared[:, 0] + prepared[:, 1]


def collector(venv: Any, policy: ControlPolicy) -> Collector:
    made = Collector(
        venv,
        policy,
        gamma=0.9,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
    )
    made.reset_at(0)
    return made


def one() -> Tensor:
    return torch.tensor(1)


def test_a_time_limit_bootstraps_from_the_final_observation() -> None:
    # ages 0 1 2 | 0, cut after the third step in a state of age 3 (not 0, where it restarts)
    rollout = collector(Corridor(2, Discrete(2)), Fixed(one())).collect(4).rollout
    assert rollout.value.tolist() == [[0, 1, 2, 0], [100, 101, 102, 100]]
    assert rollout.next_value.tolist() == [[1, 2, 3, 1], [101, 102, 103, 101]]
    assert rollout.trace.tolist() == [[1, 1, 0, 1]] * 2
    torch.testing.assert_close(rollout.discount, torch.full((2, 4), 0.9))
    assert rollout.logp.tolist() == [[-0.5] * 4] * 2
    assert rollout.mask.all()
    assert not rollout.reward.any()


def test_a_time_limit_in_the_last_step_of_a_rollout_bootstraps_too() -> None:
    rollout = collector(Corridor(1, Discrete(2)), Fixed(one())).collect(3).rollout
    assert rollout.next_value.tolist() == [[1, 2, 3]]
    assert rollout.trace.tolist() == [[1, 1, 0]]


def test_observations_are_those_on_which_the_actions_were_taken() -> None:
    venv = Corridor(2, Discrete(2))
    experience = collector(venv, Fixed(one())).collect(4)
    # [env, age, sum of actions before]; never the buffer that the environment writes into
    wanted = [[b, t % 3, t] for b in range(2) for t in range(4)]
    assert experience.observation.reshape(-1, 3).tolist() == wanted
    assert experience.action.tolist() == [[1] * 4] * 2
    assert [a.tolist() for a in venv.calls] == [[1, 1]] * 4


def test_rollouts_follow_on_one_another() -> None:
    run = collector(Corridor(1, Discrete(2)), Fixed(one()))
    first = run.collect(4)
    assert first.observation[0, :, 2].tolist() == [0, 1, 2, 3]
    second = run.collect(4)
    assert second.observation[0, :, 2].tolist() == [4, 5, 6, 7]
    assert (first.first_step, second.first_step) == (0, 4)


@pytest.mark.parametrize("steps", [[3, 3], [3, 5], [5, 3]])
def test_what_ppo_reads_is_what_was_observed_prepared(steps: list[int]) -> None:
    venv, device = Corridor(2, Discrete(2)), torch.device("cpu")
    draws = torch.Generator().manual_seed(0)
    space = venv.single_observation_space
    policy = make_policy(space, Discrete(2), PolicyConfig(), device=device, generator=draws)
    policy.observe(5 + torch.randn(2, 9, 3, generator=draws))
    run = Collector(venv, policy, gamma=0.9, device=device, generator=draws)
    run.reset_at(0)
    memory = []
    for T in steps:
        experience = run.collect(T)
        memory.append(experience.observation.data_ptr())
        assert experience.observation.shape == (2, T, 3)
        read = experience.rollout.inputs.observation  # type: ignore[attr-defined]
        assert torch.equal(read, policy.prepare(experience.observation))
        assert not torch.equal(read, experience.observation)
    assert (memory[0] == memory[1]) == (steps[0] == steps[1])  # used again where it fits


class Watched(Fixed):
    """Notes under what circumstances it acts."""

    def __init__(self, action: Tensor) -> None:
        super().__init__(action)
        self.threads: set[int] = set()
        self.inside = False

    @contextmanager
    def acting(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def act(self, prepared: Tensor, *, generator: torch.Generator, greedy: bool = False) -> Action:
        assert self.inside
        self.threads.add(torch.get_num_threads())
        return super().act(prepared, generator=generator, greedy=greedy)


def test_a_policy_acts_with_one_thread_and_its_weights_ready() -> None:
    before, policy = torch.get_num_threads(), Watched(one())
    torch.set_num_threads(2)
    try:
        collector(Corridor(2, Discrete(2)), policy).collect(3)
        assert policy.threads == {1}
        assert not policy.inside
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_few_rows_leave_cores_to_the_environments() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for rows, wanted in ((1, 1), (16, 1), (31, 1), (32, 2), (256, 2)):
            with suppress(KeyError), few_threads(rows):
                assert torch.get_num_threads() == wanted
                raise KeyError
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_true_reward_and_the_ends_travel_apart_from_the_rollout() -> None:
    experience = collector(Corridor(2, Discrete(2)), Fixed(one())).collect(4)
    assert experience.true_reward.tolist() == [[1, 2, 3, 1], [11, 12, 13, 11]]
    assert experience.episode_end.tolist() == [[False, False, True, False]] * 2
    assert experience.episode_returns == [6.0, 6.0]
    assert experience.episode_lengths == [3, 3]
    assert not experience.rollout.reward.any()


def test_continuous_actions_are_clipped_for_the_world_but_not_for_ppo() -> None:
    venv = Corridor(1, Box(-1, 1, (2,), np.float32))
    experience = collector(venv, Fixed(torch.tensor([1.5, -0.25]))).collect(4)
    assert venv.calls[0].tolist() == [[1.0, -0.25]]
    assert experience.action[0, 0].tolist() == [1.0, -0.25]
    sampled = experience.rollout.inputs.action  # type: ignore[attr-defined]
    assert sampled[0, 0].tolist() == [1.5, -0.25]


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,), np.float32)], ids=["d", "c"])
@pytest.mark.parametrize("before", [0, 2])
def test_a_restored_collector_goes_on_bit_for_bit(space: Any, before: int) -> None:
    def fresh() -> Collector:
        policy = make_policy(
            Corridor.single_observation_space,
            space,
            PolicyConfig(widths=(8,)),
            device=torch.device("cpu"),
            generator=torch.Generator().manual_seed(1),
        )
        return collector(Corridor(3, space), policy)

    run = fresh()
    run.reset_at(7)
    for _ in range(before):
        run.collect(4)
    state, rng = run.state(), run.generator.get_state()
    wanted = run.collect(4)

    resumed = fresh()
    resumed.restore(state)
    resumed.generator.set_state(rng)
    got = resumed.collect(4)
    assert torch.equal(got.observation, wanted.observation)
    assert torch.equal(got.action, wanted.action)
    assert torch.equal(got.rollout.next_value, wanted.rollout.next_value)
    assert np.array_equal(got.true_reward, wanted.true_reward)
    assert got.first_step == wanted.first_step == 4 * before


@pytest.mark.parametrize("phases", [True, False])
def test_environments_begin_in_different_phases_and_again_where_they_are_replayed(
    phases: bool,
) -> None:
    class Asked(Corridor):
        def reset_at(self, step: int, *, phases: bool = False) -> np.ndarray:
            self.phases = phases
            return super().reset_at(step)

    run = collector(Asked(2, Discrete(2)), Fixed(one()))
    assert run.venv.phases  # type: ignore[attr-defined]
    run.reset_at(3, phases=phases)
    other = collector(Asked(2, Discrete(2)), Fixed(one()))
    other.restore(run.state())
    assert other.venv.phases == phases  # type: ignore[attr-defined]


def test_shorter_first_episodes_are_not_counted() -> None:
    class Shorter(Corridor):
        def step(self, actions: np.ndarray) -> tuple[Any, ...]:
            out = super().step(actions)
            if len(self.calls) == 3:
                self.score.episode_length[0] = 0
            return out

    got = collector(Shorter(2, Discrete(2)), Fixed(one())).collect(6)
    assert got.episode_end.sum() == 4
    assert (got.episode_returns, got.episode_lengths) == ([6.0] * 3, [3] * 3)


def test_a_saved_state_does_not_grow_with_what_follows() -> None:
    run = collector(Corridor(1, Discrete(2)), Fixed(one()))
    run.collect(4)
    state = run.state()
    run.collect(4)
    assert state["actions"].shape == (4, 1)
    run.reset_at(8)
    assert run.state()["reset_step"] == 8
    assert len(run.state()["actions"]) == 0


class Slides:
    """Pixels [B, C, H, W] that all equal 100 env + 10 channel + row, in one reused buffer."""

    num_envs, single_action_space = 2, Discrete(2)

    def __init__(self, channels: int) -> None:
        self.single_observation_space = Box(0, 255, (channels, 3, 5), np.uint8)
        b, c, h = np.ogrid[:2, :channels, :3]
        full = (100 * b + 10 * c + h)[..., None] * np.ones(5)
        self.frames = np.ascontiguousarray(full.astype(np.uint8))
        zero = np.zeros(2)
        self.score = SimpleNamespace(true_reward=zero, episode_end=zero > 0, episode_length=zero)

    def reset_at(self, step: int, *, phases: bool = False) -> np.ndarray:
        return self.frames

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        self.frames += 1
        return self.frames, None, np.zeros(2, bool), np.zeros(2, bool), {}


class Idle(Fixed):
    def value(self, observation: Tensor) -> Tensor:
        return observation[:, 0, 0, 0].float()


@pytest.mark.parametrize("channels", [1, 4])
def test_pixels_arrive_channels_last_and_are_copied(channels: int) -> None:
    run = collector(Slides(channels), Idle(one()))
    got = run.collect(2).observation
    assert got.shape == (2, 2, 3, 5, channels)
    assert got.dtype == torch.uint8
    b, t, h, _, c = np.ogrid[:2, :2, :3, :5, :channels]
    assert np.array_equal(got.numpy(), np.broadcast_to(100 * b + 10 * c + h + t, got.shape))
    held = run._observation.clone()
    run.venv.step(np.zeros(2))
    assert torch.equal(run._observation, held)
