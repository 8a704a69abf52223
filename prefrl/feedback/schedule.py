"""When how many labels are due."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from itertools import pairwise

from prefrl.errors import UserError

HALF_RATE = {"christiano_atari": 5e6, "christiano_mujoco": 2e6}
KINDS = (*HALF_RATE, "constant", "custom")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSchedule:
    """Cumulative labels over a run.

    "constant" asks at one rate. The Christiano forms ask at a rate proportional to h/(T + h),
    h = 5e6 (Atari) or 2e6 (MuJoCo) agent steps (Christiano et al. 2017, appendix A). h is
    absolute, as in the paper, whose Atari runs take 50M steps and end at 1/11 of the first
    rate; a run of 1M steps ends at 5/6 of it, hence is almost constant.

    >>> LabelSchedule(kind="constant", labels=100, initial=20, steps=1000).due(500)
    60
    """

    kind: str
    """"christiano_atari", "christiano_mujoco", "constant" or "custom"."""
    labels: int
    """Due at the end of the run."""
    initial: int
    """Due before the policy learns, at step 0."""
    steps: int
    """Agent steps of the run."""
    points: tuple[tuple[float, float], ...] = ()
    """"custom" only: (share of the steps, share of the labels after the initial ones), from
    (0, 0) to (1, 1), linear in between."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            near = difflib.get_close_matches(str(self.kind), KINDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"unknown schedule {self.kind!r}; {hint}known: {', '.join(KINDS)}")
        if not 0 <= self.initial <= self.labels:
            raise UserError(f"initial labels: got {self.initial}, wanted 0 to {self.labels}")
        if self.steps < 1:
            raise UserError(f"steps: got {self.steps}, wanted 1 or more")
        if self.kind == "custom":
            _check_points(self.points)
        elif self.points:
            raise UserError(f'points belong to kind "custom", got kind {self.kind!r}')

    def due(self, step: int) -> int:
        """Labels due by agent step `step`: `initial` at 0, `labels` at `steps` and after."""
        if step >= self.steps:
            return self.labels  # not by way of shares, which are rounded
        step = max(step, 0)
        return self.initial + int((self.labels - self.initial) * self._share(step))

    def _share(self, step: int) -> float:
        if self.kind == "custom":
            return _interpolated(self.points, step / self.steps)
        if self.kind == "constant":
            return step / self.steps
        h = HALF_RATE[self.kind]
        return math.log1p(step / h) / math.log1p(self.steps / h)


def _check_points(points: tuple[tuple[float, float], ...]) -> None:
    if len(points) < 2 or tuple(points[0]) != (0, 0) or tuple(points[-1]) != (1, 1):
        raise UserError(f"queries.points: got {points}, wanted them to go from (0, 0) to (1, 1)")
    for (step, share), (next_step, next_share) in pairwise(points):
        if not (next_step > step and next_share >= share):
            raise UserError(
                f"queries.points: got {(next_step, next_share)} after {(step, share)}, wanted "
                "rising shares of the steps and shares of the labels that do not fall"
            )


def _interpolated(points: tuple[tuple[float, float], ...], at: float) -> float:
    for (start, before), (stop, after) in pairwise(points):
        if at <= stop:
            return before + (after - before) * (at - start) / (stop - start)
    raise AssertionError("the last point is at 1")
