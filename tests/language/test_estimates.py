"""Best of n, intervals, win rates at matched length, and Gao et al.'s curves."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from prefrl.errors import UserError
from prefrl.language.best_of_n import best_of_n, best_of_n_kl, choose_best
from prefrl.language.estimates import (
    fit_overoptimisation,
    mean_of,
    student,
    win_rate,
    win_rate_at_matched_length,
)


def by_enumeration(learned: np.ndarray, wanted: np.ndarray, n: int) -> float:
    """Mean over all subsets of n samples of the best one's `wanted`; equals share."""
    found = []
    for subset in itertools.combinations(range(len(learned)), n):
        best = max(learned[list(subset)])
        found.append(np.mean([wanted[i] for i in subset if learned[i] == best]))
    return float(np.mean(found))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    rng = np.random.default_rng(0)
    learned, wanted = rng.normal(size=6), rng.normal(size=6)
    got = best_of_n(learned[None], wanted[None], [n])
    assert got[0, 0] == pytest.approx(by_enumeration(learned, wanted, n))


def test_best_of_n_is_unbiased() -> None:
    # of 400 sets of 8 uniform samples: E[best of n] = n / (n + 1)
    samples = np.random.default_rng(0).random((400, 8))
    got = best_of_n(samples, samples, [1, 2, 4, 8]).mean(0)
    assert got == pytest.approx([1 / 2, 2 / 3, 4 / 5, 8 / 9], abs=0.015)


def test_equals_are_chosen_equally_often() -> None:
    got = best_of_n(np.array([[1.0, 1.0, 0.0]]), np.array([[10.0, 20.0, 99.0]]), [3])
    assert got[0, 0] == 15


def test_best_of_more_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"n: got \[4\], wanted 1 to 3"):
        best_of_n(np.zeros((1, 3)), np.zeros((1, 3)), [4])


def test_the_kl_of_best_of_n_is_that_of_the_order_statistic() -> None:
    # density n u^(n-1) on [0, 1] against the uniform one: integral of n u^(n-1) log(n u^(n-1))
    u = (np.arange(100_000) + 0.5) / 100_000
    for n in (1, 2, 16):
        density = n * u ** (n - 1)
        assert best_of_n_kl(n) == pytest.approx(float(np.mean(density * np.log(density))), abs=1e-3)


def test_the_best_of_each_prompt_is_chosen() -> None:
    learned = torch.tensor([0.0, 2.0, 1.0, 5.0, 3.0, 4.0])
    assert choose_best(learned, n=3).tolist() == [1, 3]


def test_intervals_by_hand() -> None:
    got = mean_of(np.array([0.0, 1.0, 2.0, 3.0]))
    error = math.sqrt(5 / 3) / 2  # variance 5/3 of four values
    half = 3.1824 * error  # Student's t with three degrees of freedom
    assert (got.low, got.high) == pytest.approx((1.5 - half, 1.5 + half), abs=1e-4)
    wins = win_rate(np.array([1.0] * 8 + [0.0] * 2))
    assert (wins.low, wins.high) == pytest.approx((0.4902, 0.9433), abs=1e-3)  # Wilson, 8 of 10


def test_wilson_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    intervals = [win_rate((rng.random(50) < 0.7).astype(float)) for _ in range(1000)]
    assert np.mean([i.low <= 0.7 <= i.high for i in intervals]) == pytest.approx(0.95, abs=0.03)


def test_wins_that_only_length_explains_vanish_at_matched_length() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(5, 60, size=2000)
    other = rng.integers(5, 40, size=2000)
    p = 1 / (1 + np.exp(-2 * np.log(length / other)))  # the longer one wins, whoever it is
    wins = (rng.random(2000) < p).astype(float)
    assert win_rate(wins).low > 0.6
    matched = win_rate_at_matched_length(wins, length, other)
    assert matched.low < 0.5 < matched.high
    better = 1 / (1 + np.exp(-2 * np.log(length / other) - math.log(3)))
    wins = (rng.random(2000) < better).astype(float)
    matched = win_rate_at_matched_length(wins, length, other)
    assert matched.low < 0.75 < matched.high  # sigmoid(log 3)


def test_matched_length_stays_finite_when_one_side_always_wins() -> None:
    got = win_rate_at_matched_length(np.ones(20), np.full(20, 9), np.full(20, 8))
    assert 0.7 < got.value < 1


@pytest.mark.parametrize(("form", "peak"), [("best-of-n", 1.5), ("rl", math.exp(2))])
def test_gaos_curves_are_fitted_back(form: str, peak: float) -> None:
    alpha, beta = 3.0, 1.0
    d = np.linspace(0.1, 4, 40)
    gold = d * (alpha - beta * (d if form == "best-of-n" else np.log(d)))
    fit = fit_overoptimisation(d**2, gold, form=form)  # type: ignore[arg-type]
    assert (fit.alpha, fit.beta) == pytest.approx((alpha, beta))
    assert fit.peak == pytest.approx(peak)  # alpha / 2 beta, and exp(alpha / beta - 1)
    assert fit.gold(np.array([0.0]))[0] == 0
    assert fit.gold(d) == pytest.approx(gold)


@pytest.mark.parametrize("freedom", [1, 2, 4, 10, 11, 15, 40, 1000])
def test_quantiles_of_student_s_t(freedom: int) -> None:
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=2e-4)
