"""Label schedules: totals are exact, nothing falls."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrl.errors import UserError
from prefrl.feedback import LabelSchedule


@given(
    kind=st.sampled_from(["christiano_atari", "christiano_mujoco", "constant"]),
    labels=st.integers(0, 10_000),
    share=st.floats(0, 1),
    steps=st.integers(1, 10**8),
)
def test_totals_are_exact_and_nothing_falls(
    kind: str, labels: int, share: float, steps: int
) -> None:
    initial = int(share * labels)
    schedule = LabelSchedule(kind=kind, labels=labels, initial=initial, steps=steps)
    due = [schedule.due(steps * i // 20) for i in range(21)]
    assert due[0] == initial
    assert due[-1] == labels == schedule.due(steps + 1)
    assert due == sorted(due)


def test_custom_points_are_rounded_to_no_label_less() -> None:
    points = ((0.0, 0.0), (0.56, 0.09), (0.96, 0.14), (1.0, 1.0))
    schedule = LabelSchedule(kind="custom", labels=1400, initial=0, steps=1000, points=points)
    assert schedule.due(1000) == 1400


def test_constant_by_hand() -> None:
    schedule = LabelSchedule(kind="constant", labels=100, initial=20, steps=1000)
    assert [schedule.due(t) for t in (0, 250, 500, 999)] == [20, 40, 60, 99]


@pytest.mark.parametrize(("kind", "h"), [("christiano_atari", 5e6), ("christiano_mujoco", 2e6)])
def test_christiano_by_hand(kind: str, h: float) -> None:
    """The integral of h / (T + h) is h ln(1 + T/h)."""
    schedule = LabelSchedule(kind=kind, labels=5500, initial=500, steps=50_000_000)
    wanted = 500 + int(5000 * math.log(1 + 5e6 / h) / math.log(1 + 50e6 / h))
    assert schedule.due(5_000_000) == wanted


def test_the_atari_rate_at_5m_steps_is_half_the_first() -> None:
    schedule = LabelSchedule(kind="christiano_atari", labels=10**9, initial=0, steps=50_000_000)
    first = schedule.due(1000) - schedule.due(0)
    later = schedule.due(5_001_000) - schedule.due(5_000_000)
    assert later / first == pytest.approx(0.5, rel=1e-3)


def test_custom_is_linear_between_its_points() -> None:
    # 10 at once; the other 90: 60 % of them in the first tenth of the steps
    schedule = LabelSchedule(
        kind="custom", labels=100, initial=10, steps=1000, points=((0, 0), (0.1, 0.6), (1, 1))
    )
    assert [schedule.due(t) for t in (0, 50, 100, 550, 1000, 2000)] == [10, 37, 64, 82, 100, 100]


@pytest.mark.parametrize(
    "points",
    [
        (),
        ((0, 0),),
        ((0, 0.1), (1, 1)),
        ((0, 0), (1, 0.9)),
        ((0, 0), (0.9, 1)),
        ((0, 0), (0.5, 0.6), (0.5, 0.7), (1, 1)),
        ((0, 0), (0.5, 0.6), (0.7, 0.5), (1, 1)),
    ],
)
def test_custom_points_must_rise_from_the_first_to_the_last(
    points: tuple[tuple[float, float], ...],
) -> None:
    with pytest.raises(UserError, match="points: got"):
        LabelSchedule(kind="custom", labels=100, initial=10, steps=1000, points=points)


def test_points_are_not_ignored_by_other_kinds() -> None:
    with pytest.raises(UserError, match="points belong to"):
        LabelSchedule(kind="constant", labels=9, initial=0, steps=9, points=((0, 0), (9, 9)))


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'constant'"):
        LabelSchedule(kind="constnat", labels=1, initial=0, steps=1)


def test_more_initial_labels_than_labels_are_refused() -> None:
    with pytest.raises(UserError, match="initial labels: got 2, wanted 0 to 1"):
        LabelSchedule(kind="constant", labels=1, initial=2, steps=1)
