"""Rewards are a sum of terms."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prefrl.loop.terms import LearnedReward, TrueReward
from prefrl.ppo import Rollout, add_rewards


class Constant:
    """A term that is the same everywhere."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name, self.values = name, values

    def __call__(self, experience: Any) -> Tensor:
        return torch.tensor([self.values])


def experience(true_reward: list[float]) -> Any:
    zero = torch.zeros(1, len(true_reward))
    fields = ("logp", "value", "reward", "next_value", "discount")
    about = {**dict.fromkeys(fields, zero), "trace": zero + 1}
    rollout = Rollout(inputs=None, mask=zero == 0, **about)  # type: ignore[arg-type]
    observation = torch.arange(len(true_reward)).view(1, -1, 1).float()
    return SimpleNamespace(
        rollout=rollout,
        true_reward=np.array([true_reward]),
        observation=observation,
        action=observation,
    )


def test_the_reward_is_the_sum_of_all_terms_each_of_which_logs_itself() -> None:
    terms = [Constant("learned", [1.0, 3.0]), Constant("kl", [-0.5, -0.5])]
    rollout, figures = add_rewards(experience([0.0, 0.0]), terms)
    assert rollout.reward.tolist() == [[0.5, 2.5]]
    assert figures == {
        "reward/learned_mean": 2.0,
        "reward/learned_std": pytest.approx(2**0.5),  # 1 and 3: sqrt((1 + 1) / (2 - 1))
        "reward/kl_mean": -0.5,
        "reward/kl_std": 0.0,
    }


def test_adding_rewards_leaves_the_experience_as_it_was() -> None:
    made = experience([0.0, 0.0])
    rollout, _ = add_rewards(made, [Constant("learned", [1.0, 3.0])])
    assert not made.rollout.reward.any()
    assert replace(rollout, reward=made.rollout.reward).logp is made.rollout.logp


def test_no_terms_no_reward() -> None:
    rollout, figures = add_rewards(experience([5.0, 5.0]), [])
    assert rollout.reward.tolist() == [[0.0, 0.0]]
    assert figures == {}


def test_the_true_reward_is_float32() -> None:
    got = TrueReward()(experience([2.0, -4.0]))
    assert got.tolist() == [[2.0, -4.0]]
    assert got.dtype == torch.float32


def test_the_learned_reward_reads_observations_and_actions_never_the_score() -> None:
    model = SimpleNamespace(score_steps=lambda o, a: (o + 10 * a).squeeze(-1))
    term = LearnedReward(model)  # type: ignore[arg-type]
    calm, wild = experience([0.0, 0.0]), experience([9e9, -9e9])
    assert term(calm).tolist() == term(wild).tolist() == [[0.0, 11.0]]


@pytest.mark.parametrize(("T", "asked"), [(5, [0, 2, 4]), (6, [0, 2, 4, 5]), (2, [0, 1]), (1, [0])])
def test_between_the_steps_that_are_asked_about_rewards_lie_on_lines(
    T: int, asked: list[int]
) -> None:
    seen: list[int] = []

    def score_steps(observation: Tensor, action: Tensor) -> Tensor:
        seen.extend(observation.flatten().int().tolist())
        return observation.squeeze(-1).square()

    term = LearnedReward(SimpleNamespace(score_steps=score_steps), every=2)  # type: ignore[arg-type]
    (got,) = term(experience([0.0] * T)).tolist()
    assert seen == asked
    wanted = np.interp(range(T), asked, [t * t for t in asked])
    assert got == pytest.approx(wanted.tolist())


@pytest.mark.parametrize(
    ("every", "last", "wanted"),
    [
        (4, 5, [0, 1, 2, 3, 4, 4, 8, 8, 8]),  # asked at 0, 4, 8; episodes 0 to 5 and 6 to 8
        (4, 4, [0, 1, 2, 3, 4, 8, 8, 8, 8]),
        (4, 7, [0, 1, 2, 3, 4, 4, 4, 4, 8]),
        (20, 3, [0, 0, 0, 0, 8, 8, 8, 8, 8]),  # asked at 0 and 8, though there are fewer than 20
    ],
)
def test_lines_end_where_episodes_do(every: int, last: int, wanted: list[float]) -> None:
    made = experience([0.0] * 9)
    made.rollout.trace[0, last] = 0.0
    model = SimpleNamespace(score_steps=lambda observation, action: observation.squeeze(-1))
    term = LearnedReward(model, every=every)  # type: ignore[arg-type]
    assert term(made).tolist() == [wanted]
