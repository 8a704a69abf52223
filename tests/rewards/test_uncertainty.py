"""What an ensemble would learn, by its own account."""

import math

import pytest
import torch

from prefrl.rewards import disagreement, k_center, promise


def test_disagreement_by_hand() -> None:
    # member 0: second better by log 3, P = 3/4; member 1: worse by log 3, P = 1/4
    # standard deviation of (.75, .25) with n - 1: sqrt(2 * .25^2) = .25 sqrt(2)
    returns = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]])
    got = disagreement(returns, torch.tensor([[0, 1]]))
    assert got.item() == pytest.approx(0.25 * math.sqrt(2))


def test_members_of_one_mind_do_not_disagree() -> None:
    returns = torch.tensor([[0.0, 5.0, 1.0]] * 3)
    assert disagreement(returns, torch.tensor([[0, 1], [1, 2]])).tolist() == [0.0, 0.0]


def test_disagreement_does_not_depend_on_the_order_of_the_pair() -> None:
    returns = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    pairs = torch.tensor([[0, 1], [2, 5], [3, 4]])
    torch.testing.assert_close(disagreement(returns, pairs), disagreement(returns, pairs.flip(1)))


def test_disagreement_is_about_preferences_not_about_the_size_of_returns() -> None:
    # both members are sure of the second: 100 against 50 is no disagreement
    returns = torch.tensor([[0.0, 100.0], [0.0, 50.0]])
    assert disagreement(returns, torch.tensor([[0, 1]])).item() == pytest.approx(0, abs=1e-6)


def test_promise_by_hand() -> None:
    # member 0: mean 2, deviation 2, normalised (-1, 0, 1); member 1 the same in other units
    # means (-1, 0, 1), no spread: the pairs are worth the means of these
    returns = torch.tensor([[0.0, 2.0, 4.0], [10.0, 11.0, 12.0]])
    got = promise(returns, torch.tensor([[0, 1], [1, 2], [2, 0]]))
    assert got.tolist() == pytest.approx([-0.5, 0.5, 0.0])


def test_promise_hopes_for_what_members_dispute() -> None:
    # segment 0: (-1, 1), mean 0, deviation sqrt(2); segment 1: 0 to both; segment 2: (1, -1)
    returns = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]])
    got = promise(returns, torch.tensor([[1, 0], [1, 1]]))
    assert got.tolist() == pytest.approx([math.sqrt(2) / 2, 0.0])


def test_k_center_by_hand() -> None:
    # on a line, 0 covered: 10 is farthest, then -7 (7 from 0), then 5 (5 from 0 and 10)
    points = torch.tensor([[1.0], [5.0], [10.0], [-7.0], [9.5]])
    assert k_center(points, torch.tensor([[0.0]]), 3).tolist() == [2, 3, 1]


def test_k_center_begins_far_from_the_mean_which_it_does_not_cover() -> None:
    # mean 1.2: 6 is the farthest, then -1 (7 away), then 1 (2 from -1), though the mean is near it
    points = torch.tensor([[0.0], [-1.0], [0.5], [6.0], [1.0]])
    assert k_center(points, points[:0], 3).tolist() == [3, 1, 4]


def test_k_center_chooses_each_once_even_among_equals() -> None:
    assert sorted(k_center(torch.zeros(4, 2), torch.zeros(1, 2), 9).tolist()) == [0, 1, 2, 3]
