"""Shares and agreement with 95 % intervals: Wilson's, Krippendorff's alpha, Cohen's kappa."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Z = 1.96
BOOTSTRAP = 100

Level = Literal["nominal", "ordinal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """k of n with its 95 % interval (Wilson 1927).

    >>> one = Share.of(17, 20)
    >>> round(one.low, 2), round(one.high, 2)
    (0.64, 0.95)
    """

    k: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, k: float, n: float) -> Share:
        """The interval of `k` of `n`; the whole range where n is 0."""
        if n == 0:
            return cls(k=0, n=0, low=0.0, high=1.0)
        p, spread = k / n, Z * math.sqrt(k * (n - k) / n**3 + Z**2 / (4 * n**2))
        middle, scale = p + Z**2 / (2 * n), 1 + Z**2 / n
        low, high = (middle - spread) / scale, (middle + spread) / scale
        return cls(k=int(k), n=int(n), low=max(low, 0.0), high=min(high, 1.0))

    @classmethod
    def of_groups(cls, groups: Sequence[tuple[int, int]]) -> Share:
        """Of all (k, n) together, where what is in one group is not independent.

        The interval is that of fewer, independent ones, by the design effect (Kish 1965, 5.4).

        >>> Share.of_groups([(3, 3), (0, 3)] * 10) == Share.of(30, 60)
        False
        >>> Share.of_groups([(1, 1), (0, 1)] * 10).k
        10
        """
        k, n = sum(k for k, _ in groups), sum(n for _, n in groups)
        if k in (0, n) or len(groups) < 2:
            return cls.of(k, n)
        p = k / n
        between = sum((one - p * of) ** 2 for one, of in groups) * len(groups) / (len(groups) - 1)
        effect = max(between / (n * p * (1 - p)), 1.0)
        interval = cls.of(k / effect, n / effect)
        return cls(k=k, n=n, low=interval.low, high=interval.high)

    @property
    def value(self) -> float:
        """k / n; nan where n is 0."""
        return self.k / self.n if self.n else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with its 95 % bootstrap interval over queries; nan where there is too little."""

    value: float
    low: float
    high: float


def alpha(
    table: dict[str, dict[str, float]], *, generator: np.random.Generator, level: Level
) -> Interval:
    """Krippendorff's alpha with a bootstrap over queries.

    Args:
        table: query -> rater -> value.
        level: "nominal" or "ordinal".
    """
    raters = sorted({r for votes in table.values() for r in votes})
    several = [votes for votes in table.values() if len(votes) > 1]
    data = np.array([[votes.get(r, np.nan) for votes in several] for r in raters])
    return _bootstrap(data, lambda part: _alpha(part, level), generator)


def kappa(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Cohen's kappa of two raters (Cohen 1960); nan where both always say one and the same.

    >>> kappa([1, 1, 0, 0], [1, 1, 0, 1])  # agree on 3 of 4, by chance on 2
    0.5
    """
    one, other = np.asarray(first), np.asarray(second)
    kinds = np.union1d(one, other)
    if len(kinds) < 2:
        return math.nan
    chance = sum(float(np.mean(one == kind) * np.mean(other == kind)) for kind in kinds)
    return (float(np.mean(one == other)) - chance) / (1 - chance)


def mean_kappa(
    name: str, shared: dict[str, dict[str, float]], generator: np.random.Generator
) -> Interval:
    """Cohen's kappa of a rater with each other who answered the same, on average.

    Args:
        shared: query -> rater -> value.
    """
    mine = [votes for votes in shared.values() if name in votes and len(votes) > 1]
    others = sorted({r for votes in mine for r in votes if r != name})
    data = np.array([[votes.get(r, np.nan) for votes in mine] for r in (name, *others)])

    def figure(part: np.ndarray) -> float:
        found = []
        for row in part[1:]:
            both = ~np.isnan(row)
            both &= ~np.isnan(part[0])
            found.append(kappa(part[0][both], row[both]) if both.sum() > 1 else math.nan)
        sound = [x for x in found if not math.isnan(x)]
        return float(np.mean(sound)) if sound else math.nan

    return _bootstrap(data, figure, generator)


def _alpha(data: np.ndarray, level: Level) -> float:
    import krippendorff

    if len(np.unique(data[~np.isnan(data)])) < 2:
        return math.nan
    value: float = krippendorff.alpha(reliability_data=data, level_of_measurement=level)
    return value


def _bootstrap(
    data: np.ndarray, figure: Callable[[np.ndarray], float], generator: np.random.Generator
) -> Interval:
    """`figure` of [raters, queries], and of queries drawn again with replacement."""
    if data.ndim != 2 or data.shape[1] < 2:
        return Interval(value=math.nan, low=math.nan, high=math.nan)
    n = data.shape[1]
    drawn = [figure(data[:, generator.integers(0, n, n)]) for _ in range(BOOTSTRAP)]
    sound = [x for x in drawn if not math.isnan(x)]
    if not sound:
        return Interval(value=figure(data), low=math.nan, high=math.nan)
    low, high = np.percentile(sound, [2.5, 97.5])
    return Interval(value=figure(data), low=float(low), high=float(high))
