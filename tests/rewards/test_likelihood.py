"""What an answer says about two returns."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefrl.rewards import (
    bradley_terry_loss,
    plackett_luce_loss,
    preference_probability,
    tie_aware_accuracy,
)

RETURNS = st.floats(-30, 30)
TARGETS = st.sampled_from([0.0, 0.5, 1.0])
ERRORS = st.sampled_from([0.0, 0.1, 0.5])


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(difference=RETURNS, target=TARGETS, error=ERRORS)
def test_swapping_sides_flips_the_target_and_keeps_the_loss(
    difference: float, target: float, error: float
) -> None:
    one = bradley_terry_loss(t(difference), t(target), error=error)
    other = bradley_terry_loss(t(-difference), t(1 - target), error=error)
    torch.testing.assert_close(one, other)


@given(difference=RETURNS, error=ERRORS)
def test_probabilities_of_the_two_answers_sum_to_one(difference: float, error: float) -> None:
    both = [preference_probability(t(x), error=error) for x in (difference, -difference)]
    assert (both[0] + both[1]).item() == pytest.approx(1)


@given(difference=RETURNS, error=ERRORS)
def test_a_tie_costs_at_least_log_two(difference: float, error: float) -> None:
    loss = bradley_terry_loss(t(difference), t(0.5), error=error).item()
    assert loss >= math.log(2) - 1e-12
    assert bradley_terry_loss(t(0.0), t(0.5), error=error).item() == pytest.approx(math.log(2))


def test_error_term_by_hand() -> None:
    # sigmoid(log 3) = 3/4; with a tenth of random answers .9 * .75 + .05 = .725
    difference = t(math.log(3))
    assert preference_probability(difference, error=0.1).item() == pytest.approx(0.725)
    got = bradley_terry_loss(difference, t(1.0), error=0.1).item()
    assert got == pytest.approx(-math.log(0.725))
    got = bradley_terry_loss(difference, t(0.0), error=0.1).item()
    assert got == pytest.approx(-math.log(0.275))


def test_error_term_bounds_what_one_mistake_can_cost() -> None:
    # sure of the second, told the first: -log(.1 / 2), not 1,000
    assert bradley_terry_loss(t(1000.0), t(0.0), error=0.1).item() == pytest.approx(-math.log(0.05))
    assert bradley_terry_loss(t(1000.0), t(0.0), error=0.0).item() == pytest.approx(1000)


def test_error_term_is_not_label_smoothing() -> None:
    # its gradient vanishes where the model is sure and wrong; smoothed labels pull for ever
    difference = t(30.0).requires_grad_()
    bradley_terry_loss(difference, t(0.0), error=0.1).backward()
    assert difference.grad is not None
    assert abs(difference.grad.item()) < 1e-9


@pytest.mark.parametrize("difference", [-200.0, 200.0])
@pytest.mark.parametrize("error", [0.0, 0.1])
def test_loss_and_gradient_stay_finite_in_float32(difference: float, error: float) -> None:
    x = torch.tensor([difference], requires_grad=True)
    loss = bradley_terry_loss(x, torch.tensor([1.0]), error=error)
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite()


def test_no_error_is_the_limit_of_small_errors() -> None:
    exact = bradley_terry_loss(t(-1.5), t(1.0), error=0.0)
    near = bradley_terry_loss(t(-1.5), t(1.0), error=1e-9)
    torch.testing.assert_close(exact, near)


@given(first=RETURNS, second=RETURNS)
def test_plackett_luce_of_two_is_bradley_terry(first: float, second: float) -> None:
    ranking = plackett_luce_loss(t(second, first))  # second is best
    comparison = bradley_terry_loss(t(second - first), t(1.0), error=0.0)
    torch.testing.assert_close(ranking, comparison[0])


@given(returns=st.lists(st.floats(-5, 5), min_size=2, max_size=4))
def test_plackett_luce_probabilities_of_all_rankings_sum_to_one(returns: list[float]) -> None:
    rankings = torch.stack([t(*order) for order in itertools.permutations(returns)])
    assert (-plackett_luce_loss(rankings)).exp().sum().item() == pytest.approx(1)


def test_plackett_luce_by_hand() -> None:
    # weights e^s = 3, 2, 1, chosen in that order: 3/6 * 2/3 * 1/1 = 1/3
    assert plackett_luce_loss(t(3, 2, 1).log()).item() == pytest.approx(math.log(3))


@given(returns=st.lists(st.floats(-5, 5), min_size=2, max_size=4), shift=st.floats(-50, 50))
def test_only_differences_of_returns_matter(returns: list[float], shift: float) -> None:
    torch.testing.assert_close(
        plackett_luce_loss(t(*returns) + shift), plackett_luce_loss(t(*returns))
    )


def test_ties_take_no_part_in_accuracy() -> None:
    # right, wrong, tie, right: 2 of the 3 that were decided
    got = tie_aware_accuracy(t(1.0, 1.0, 9.0, -2.0), t(1.0, 0.0, 0.5, 0.0))
    assert got.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_model_that_cannot_tell_is_half_right_on_either_side(target: float) -> None:
    assert tie_aware_accuracy(t(0.0, 0.0), t(target, target)).item() == 0.5


def test_accuracy_of_ties_alone_is_undefined() -> None:
    assert tie_aware_accuracy(t(1.0), t(0.5)).isnan()
