"""Numbers with intervals: means, win rates, win rates at matched length; over-optimisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Z = 1.959964  # of a two-sided 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"{self.value:.3g} (no interval)"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def mean_of(values: np.ndarray) -> Estimate:
    """Mean of independent values [n] with Student's interval; unbounded for one value.

    >>> str(mean_of(np.array([1.0, 3.0])))
    '2 [-10.7, 14.7]'
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(value=mean, low=-math.inf, high=math.inf)
    half = student(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(value=mean, low=mean - half, high=mean + half)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Student 1908)."""
    if freedom <= len(QUANTILES):
        return QUANTILES[freedom - 1]
    return (
        Z
        + (Z**3 + Z) / (4 * freedom)
        + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
        + (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * freedom**3)
    )


QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Of 1, 2, ... degrees of freedom; beyond, the series of Cornish and Fisher 1937 will do."""


def win_rate(wins: np.ndarray) -> Estimate:
    """Share of matches won [n], 1 won, 0 lost, 1/2 tied; Wilson 1927's score interval.

    Ties make the true spread smaller than the interval takes it to be.

    >>> str(win_rate(np.array([1.0, 1.0, 1.0, 1.0])))
    '1 [0.51, 1]'
    """
    n, share = len(wins), float(np.mean(wins))
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return Estimate(value=share, low=max(middle - half, 0.0), high=min(middle + half, 1.0))


def win_rate_at_matched_length(
    wins: np.ndarray, length: np.ndarray, other_length: np.ndarray
) -> Estimate:
    """What the win rate would be if both sides were equally long.

    Logistic regression of the wins on the logarithm of the ratio of lengths, read where the ratio
    is 1 (the idea of Dubois et al. 2024, arXiv:2404.04475), with a Wald interval. A ridge of one
    observation's worth keeps it finite where one side always wins.

    Args:
        wins: [n] 1 won, 0 lost, 1/2 tied.
        length: [n] words or tokens of this side, 1 or more.
        other_length: [n] of the other.
    """
    x = np.log(length / other_length)
    design = np.stack([np.ones_like(x), x], axis=1)
    ridge = 0.25 * np.eye(2)
    at = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ at))
        information = (design * (p * (1 - p))[:, None]).T @ design + ridge
        step = np.linalg.solve(information, design.T @ (wins - p) - ridge @ at)
        at += step
        if np.abs(step).max() < 1e-10:
            break
    error = math.sqrt(np.linalg.inv(information)[0, 0])
    low, value, high = (1 / (1 + math.exp(-(at[0] + z * error))) for z in (-Z, 0, Z))
    return Estimate(value=value, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class OveroptimisationFit:
    """Gold reward gained, as a function of d = sqrt(KL) (Gao et al. 2022, arXiv:2210.10760).

    best-of-n:  R(d) = d (alpha - beta d)            rl:  R(d) = d (alpha - beta log d)
    """

    form: Literal["best-of-n", "rl"]
    alpha: float
    beta: float
    residual: float
    """Root of the mean squared error of the fit."""

    def gold(self, d: np.ndarray) -> np.ndarray:
        """[n] distances -> [n] gained gold reward; 0 at 0."""
        found: np.ndarray = _terms(d, self.form) @ np.array([self.alpha, self.beta])
        return found

    @property
    def peak(self) -> float:
        """The distance beyond which more optimising loses gold; inf where beta <= 0."""
        if self.beta <= 0:
            return math.inf
        ratio = self.alpha / self.beta
        return ratio / 2 if self.form == "best-of-n" else math.exp(ratio - 1)


def fit_overoptimisation(
    kl: np.ndarray, gained: np.ndarray, *, form: Literal["best-of-n", "rl"]
) -> OveroptimisationFit:
    """Least squares of the two coefficients.

    Args:
        kl: [n] nats from the policy that optimising began with.
        gained: [n] gold reward beyond that policy's.
    """
    terms = _terms(np.sqrt(kl), form)
    (alpha, beta), *_ = np.linalg.lstsq(terms, gained, rcond=None)
    residual = math.sqrt(float(np.mean((terms @ np.array([alpha, beta]) - gained) ** 2)))
    return OveroptimisationFit(form=form, alpha=float(alpha), beta=float(beta), residual=residual)


def _terms(d: np.ndarray, form: str) -> np.ndarray:
    """[n] -> [n, 2] what alpha and beta multiply."""
    bend = d**2 if form == "best-of-n" else d * np.log(np.maximum(d, 1e-12))
    return np.stack([d, -bend], axis=1)
