"""Advantages of rows compared with their group, by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.ppo import CriticAdvantage, GroupAdvantage, Rollout, gae


def rollout_of(reward: list[list[float]], mask: list[list[int]] | None = None) -> Rollout:
    rewards = torch.tensor(reward)
    zero = torch.zeros_like(rewards)
    real = torch.ones_like(rewards) == 1 if mask is None else torch.tensor(mask) == 1
    return Rollout(
        inputs=None,  # type: ignore[arg-type]
        mask=real,
        logp=zero,
        value=zero + 0.5,
        reward=rewards,
        next_value=zero + 0.25,
        discount=zero + 0.9,
        trace=zero + 1,
    )


def test_rloo_is_the_return_minus_the_mean_of_the_others() -> None:
    # returns 1, 2, 6: 1 - (2 + 6) / 2 = -3; 2 - (1 + 6) / 2 = -1.5; 6 - (1 + 2) / 2 = 4.5
    rollout = rollout_of([[0.0, 1.0], [1.0, 1.0], [6.0, 0.0]])
    got = GroupAdvantage(kind="rloo", size=3)(rollout)
    assert got.tolist() == [[-3, -3], [-1.5, -1.5], [4.5, 4.5]]


def test_grpo_divides_by_the_deviation_of_the_group() -> None:
    # returns 1, 3: mean 2, deviation root(2)
    got = GroupAdvantage(kind="grpo", size=2)(rollout_of([[1.0], [3.0]]))
    assert got.flatten().tolist() == pytest.approx([-(2**-0.5), 2**-0.5], rel=1e-5)


def test_groups_are_apart_and_padding_has_no_return() -> None:
    rollout = rollout_of([[1.0, 99.0], [3.0, 0.0], [7.0, 0.0], [7.0, 0.0]], [[1, 0], *[[1, 1]] * 3])
    got = GroupAdvantage(kind="rloo", size=2)(rollout)
    assert got[:, 0].tolist() == [-2, 2, 0, 0]


def test_a_group_of_equals_has_no_advantage_even_where_it_is_scaled() -> None:
    got = GroupAdvantage(kind="grpo", size=2)(rollout_of([[1.0], [1.0]]))
    assert got.flatten().tolist() == [0, 0]


def test_the_critics_advantage_is_gae() -> None:
    rollout = rollout_of([[1.0, 2.0]])
    fields: list[Tensor] = [
        getattr(rollout, name) for name in ("reward", "value", "next_value", "discount", "trace")
    ]
    assert torch.equal(CriticAdvantage(lam=0.8)(rollout), gae(*fields, lam=0.8))


def test_rows_that_make_no_whole_groups_are_refused() -> None:
    with pytest.raises(UserError, match="rloo: got 3 rows, wanted a multiple of 2"):
        GroupAdvantage(kind="rloo", size=2)(rollout_of([[1.0]] * 3))
    with pytest.raises(UserError, match="grpo: got groups of 1, wanted 2 or more"):
        GroupAdvantage(kind="grpo", size=1)


def test_group_advantages_ignore_the_critic() -> None:
    rollout = rollout_of([[1.0], [3.0]])
    other = replace(rollout, value=rollout.value + 7)
    of = GroupAdvantage(kind="rloo", size=2)
    assert torch.equal(of(rollout), of(other))
