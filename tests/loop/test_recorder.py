"""Segments: from every environment, never across an episode border, with a true provenance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefrl.agents import ControlInputs, Experience
from prefrl.errors import UserError
from prefrl.loop.recorder import Recorder, window_starts
from prefrl.ppo import Rollout

NO, END = False, True


def experience(ends: np.ndarray, *, first_step: int = 0) -> Experience:
    """Observation and true reward of step t (since the reset) in environment b: 1000 b + t."""
    B, T = ends.shape
    number = 1000 * torch.arange(B)[:, None] + torch.arange(first_step, first_step + T)
    zero = torch.zeros(B, T)
    fields = ("logp", "value", "reward", "next_value", "discount", "trace")
    x, action = number[..., None].float(), number % 7
    inputs = ControlInputs(observation=x, action=action)
    return Experience(
        rollout=Rollout(inputs=inputs, mask=zero == 0, **dict.fromkeys(fields, zero)),
        observation=x,
        action=action,
        true_reward=number.double().numpy(),
        episode_end=ends,
        episode_returns=[],
        episode_lengths=[],
        first_step=first_step,
    )


def recorder(*, length: int = 2, per_rollout: int = 1000, pool: int = 1000) -> Recorder:
    return Recorder(
        task="Test",
        seed=5,
        length=length,
        pool=pool,
        per_rollout=per_rollout,
        clip_recipe=lambda env, start, steps: f"{env}:{start}:{steps}".encode(),
        generator=np.random.default_rng(0),
    )


def random_ends(seed: int, B: int, T: int) -> np.ndarray:
    return np.random.default_rng(seed).random((B, T)) < 0.2


def test_window_starts_by_hand() -> None:
    # one environment, an episode ends in step 1: [0, 1] and [2, 3] fit, [1, 2] crosses
    assert window_starts(np.array([[NO, END, NO, NO]]), 2).tolist() == [[0, 0], [0, 2]]


def test_the_last_window_of_an_episode_can_be_drawn() -> None:
    ends = np.array([[NO, NO, END, NO]])
    assert [0, 1] in window_starts(ends, 2).tolist()  # steps 1 and 2, the end being the last


@given(
    seed=st.integers(0, 2**31), B=st.integers(1, 4), T=st.integers(1, 12), length=st.integers(1, 12)
)
def test_windows_are_all_those_and_only_those_inside_one_episode(
    seed: int, B: int, T: int, length: int
) -> None:
    ends = random_ends(seed, B, T)
    if length > T:
        with pytest.raises(UserError, match=f"a segment of {length} steps does not fit"):
            window_starts(ends, length)
        return
    wanted = [
        [b, t]
        for b in range(B)
        for t in range(T - length + 1)
        if not ends[b, t : t + length - 1].any()
    ]
    assert window_starts(ends, length).tolist() == wanted


def test_a_segment_holds_the_steps_of_its_window() -> None:
    made = recorder()
    made.reset(2)
    made.add(experience(np.zeros((2, 4), bool), first_step=8), policy_step=96)
    assert len(made.pool) == 6  # 2 environments, starts 0, 1, 2
    last = made.pool[-1]
    assert last.observations.tolist() == [[1010.0], [1011.0]]
    assert last.actions.tolist() == [1010 % 7, 1011 % 7]
    assert last.true_reward.tolist() == [1010.0, 1011.0]
    assert last.true_reward.dtype == np.float64
    assert last.clip == b"1:10:2"  # steps since the reset, as the environment counts them
    about = last.provenance
    assert (about.task, about.seed, about.policy_step, about.env) == ("Test", 5, 96, 1)


def test_segments_do_not_change_with_the_rollout_they_were_cut_from() -> None:
    made, cut = recorder(), experience(np.zeros((1, 4), bool))
    made.reset(1)
    made.add(cut, policy_step=0)
    cut.observation.zero_()
    cut.true_reward[:] = 0
    assert made.pool[-1].observations.tolist() == [[2.0], [3.0]]
    assert made.pool[-1].true_reward.tolist() == [2.0, 3.0]


def test_segments_come_from_all_environments() -> None:
    made = recorder(per_rollout=4)
    made.reset(8)
    for i in range(20):
        made.add(experience(np.zeros((8, 6), bool), first_step=6 * i), policy_step=48 * i)
    assert {s.provenance.env for s in made.pool} == set(range(8))
    assert len(made.pool) == 80
    assert len({s.id for s in made.pool}) == 80


def test_the_end_of_an_episode_is_known_to_its_last_segment_only() -> None:
    made = recorder()
    made.reset(1)
    made.add(experience(np.array([[NO, NO, END, NO, NO]])), policy_step=0)
    # starts 0, 1 and 3; the second one ends with the episode
    assert [s.ended for s in made.pool] == [False, True, False]


def test_provenance_counts_episodes_and_their_steps_across_rollouts() -> None:
    made = recorder()
    made.reset(1)
    made.add(experience(np.array([[NO, NO, END, NO]])), policy_step=4)
    made.add(experience(np.array([[NO, NO, NO, END]]), first_step=4), policy_step=8)
    made.add(experience(np.array([[NO, NO, NO, NO]]), first_step=8), policy_step=12)
    # episode 0: steps 0..2; episode 1: steps 3..7; episode 2 from step 8
    got = [(s.observations[0, 0], s.provenance.episode, s.provenance.t0) for s in made.pool]
    assert got == [
        (0, 0, 0),
        (1, 0, 1),  # 2 would cross; 3 does not fit into this rollout
        (4, 1, 1),
        (5, 1, 2),
        (6, 1, 3),
        (8, 2, 0),
        (9, 2, 1),
        (10, 2, 2),
    ]


@given(seed=st.integers(0, 2**31), rollouts=st.integers(1, 4))
def test_provenance_agrees_with_counting_step_by_step(seed: int, rollouts: int) -> None:
    B, T = 2, 5
    ends = random_ends(seed, B, T * rollouts)
    made = recorder(length=1)
    made.reset(B)
    for i in range(rollouts):
        part = ends[:, T * i : T * (i + 1)]
        made.add(experience(part, first_step=T * i), policy_step=i)
    got = {int(s.observations[0, 0]): (s.provenance.episode, s.provenance.t0) for s in made.pool}
    for b in range(B):
        episode = age = 0
        for t in range(T * rollouts):
            assert got[1000 * b + t] == (episode, age)
            episode, age = (episode + 1, 0) if ends[b, t] else (episode, age + 1)


def test_starting_anew_begins_another_episode_everywhere() -> None:
    made = recorder(length=1)
    made.reset(2)
    made.add(experience(np.zeros((2, 3), bool)), policy_step=0)
    made.reset(2)
    made.add(experience(np.zeros((2, 1), bool)), policy_step=0)
    assert [(s.provenance.episode, s.provenance.t0) for s in made.pool][-2:] == [(1, 0), (1, 0)]


def test_the_pool_keeps_the_newest() -> None:
    made = recorder(pool=3)
    made.reset(1)
    made.add(experience(np.zeros((1, 6), bool)), policy_step=0)
    assert [s.observations[0, 0] for s in made.pool] == [2.0, 3.0, 4.0]


def test_a_rollout_without_a_whole_segment_still_moves_the_clock() -> None:
    made = recorder(length=3)
    made.reset(1)
    made.add(experience(np.array([[NO, END, NO]])), policy_step=0)
    assert not made.pool
    made.add(experience(np.zeros((1, 3), bool), first_step=3), policy_step=3)
    assert (made.pool[0].provenance.episode, made.pool[0].provenance.t0) == (1, 1)


def test_the_clock_comes_back() -> None:
    first, second = recorder(), recorder()
    first.reset(2)
    first.add(experience(random_ends(3, 2, 9)), policy_step=0)
    saved = {k: v.copy() for k, v in first.state().items()}
    first.pool.clear()
    second.restore(saved)
    second.generator.bit_generator.state = first.generator.bit_generator.state
    for made in (first, second):
        made.add(experience(random_ends(4, 2, 9), first_step=9), policy_step=18)
    assert [s.id for s in first.pool] == [s.id for s in second.pool]


def test_pixels_are_cut_as_they_are_and_each_picture_is_kept_once() -> None:
    made = recorder()
    made.reset(1)
    plain = experience(np.zeros((1, 3), bool))
    film: Tensor = torch.randint(256, (4, 4, 4), dtype=torch.uint8)
    stacked = torch.stack([film[t : t + 2].permute(1, 2, 0) for t in range(3)])[None]
    object.__setattr__(plain, "observation", stacked)
    made.add(plain, policy_step=0)
    cut = made.pool[0].observations
    assert cut.dtype == np.uint8
    assert np.array_equal(cut, stacked[0, :2].numpy())
    assert np.shares_memory(cut[0, ..., 1], cut[1, ..., 0])
    assert not np.shares_memory(cut, stacked.numpy())  # the rollout's buffer is used again
