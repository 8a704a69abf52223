"""Simulated raters through the whole path: each is flagged, or not, as it should be."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from clip_viewer.control.questions import LEAST_SECONDS
from prefrl.feedback import Comparison, Desk, DeskConfig, FeedbackStore, Query, Viewing
from prefrl.feedback.agreement import Share, alpha, kappa
from prefrl.feedback.quality import Quality, RaterQuality, measure
from prefrl.feedback.replies import Choice
from tests.feedback.helpers import filled

ITEMS = 160
OTHER: dict[Choice, Choice] = {"first": "second", "second": "first"}
Habit = Callable[[Choice, int, tuple[int, ...], random.Random], Choice]
"""(the right choice, how many were answered before, sides, coins) -> what is answered."""


def perfect(right: Choice, n: int, order: tuple[int, ...], coins: random.Random) -> Choice:
    return right


def noisy(right: Choice, n: int, order: tuple[int, ...], coins: random.Random) -> Choice:
    return OTHER[right] if coins.random() < 0.1 else right


def left_presser(right: Choice, n: int, order: tuple[int, ...], coins: random.Random) -> Choice:
    return "first" if order[0] == 0 else "second"


def spammer(right: Choice, n: int, order: tuple[int, ...], coins: random.Random) -> Choice:
    return coins.choice(["first", "second"])


def tired(right: Choice, n: int, order: tuple[int, ...], coins: random.Random) -> Choice:
    return spammer(right, n, order, coins) if n > ITEMS / 2 else right


def inverted(right: Choice, n: int, order: tuple[int, ...], coins: random.Random) -> Choice:
    return OTHER[right]


HABITS: dict[str, Habit] = {f.__name__: f for f in (
    perfect, noisy, left_presser, spammer, tired, inverted,
)}  # fmt: skip


def right_choice(query: Query) -> Choice:
    """Of the content alone, so that a repeat has the answer of its original."""
    return "first" if int(query.segments[0][:8], 16) % 2 else "second"


def rate(store: FeedbackStore, name: str, habit: Habit) -> None:
    coins, now = random.Random(name), [1e6]
    config = DeskConfig(gold_share=0.2, repeat_share=0.2)
    desk = Desk(store, rater=name, config=config, clock=lambda: now[0])
    for n in range(ITEMS):
        (one,) = desk.take(1)
        now[0] += 4.0
        choice = habit(right_choice(one.query), n, one.order, coins)
        times = {"seconds": coins.uniform(1.5, 3.5), "first_frame_seconds": 0.1}
        viewing = Viewing(order=one.order, key="?", loops=1.0, speed=1.0, **times)
        desk.submit(one, Comparison(choice=choice), viewing)


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> Quality:
    """Six raters, a fifth of whose items are gold and a fifth repeats."""
    folder: Path = tmp_path_factory.mktemp("raters")
    store, asked = filled(folder, 110, need=6)
    gold = [
        dataclasses.replace(q, purpose="gold", expected=f'{{"choice": "{right_choice(q)}"}}')
        for q in asked[:40]
    ]
    with store:
        store.add_queries(gold)  # type: ignore[arg-type]
        for name, habit in HABITS.items():
            rate(store, name, habit)
        return measure(store.feedback(), store.acts())


def of(quality: Quality, name: str) -> RaterQuality:
    return next(r for r in quality.raters if r.name == name)


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("perfect", ""),
        ("noisy", ""),
        ("left_presser", "left-presser"),
        ("spammer", "spammer"),
        ("tired", "tired"),
        ("inverted", "inverted"),
    ],
)
def test_each_simulated_rater_is_flagged_as_it_should_be(
    quality: Quality, name: str, flag: str
) -> None:
    warnings = of(quality, name).warnings
    assert [w.split(":")[0] for w in warnings] == ([flag] if flag else [])


def test_figures_of_the_perfect_rater(quality: Quality) -> None:
    one = of(quality, "perfect")
    assert one.answers == ITEMS
    assert one.gold.k == one.gold.n >= 25
    assert one.repeats.k == one.repeats.n >= 20
    assert one.per_hour == pytest.approx(900)
    assert one.seconds[0] < one.seconds[1] < one.seconds[2]
    assert 0.35 < one.left.value < 0.65
    assert one.fast.k == one.ties.k == one.skips == 0


def test_agreement_has_its_interval(quality: Quality) -> None:
    assert quality.alpha.low < quality.alpha.value < quality.alpha.high
    assert quality.raw.value > quality.alpha.value  # chance is taken off
    assert of(quality, "perfect").kappa.value > of(quality, "spammer").kappa.value


def test_pairs_of_answers_to_one_query_share_their_errors() -> None:
    coins, pairs = np.random.default_rng(0), 0.85**2 + 0.15**2  # both right, or both wrong
    wide = narrow = 0
    for _ in range(400):
        right = coins.binomial(5, 0.85, size=60)  # of five raters, on each of 60 queries
        same = [(int(k * (k - 1) + (5 - k) * (4 - k)) // 2, 10) for k in right]
        by_query, alone = Share.of_groups(same), Share.of(sum(k for k, _ in same), 600)
        wide += by_query.low <= pairs <= by_query.high
        narrow += alone.low <= pairs <= alone.high
    assert wide / 400 > 0.92
    assert narrow / 400 < 0.85


def test_a_fast_clicker_is_flagged(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 40)
    with store:
        desk = Desk(store, rater="ann", config=DeskConfig(repeat_share=0.0))
        for i in range(40):
            (one,) = desk.take(1)
            spent = LEAST_SECONDS + 0.1 if i % 2 else 2.0
            viewing = Viewing(order=one.order, key="", seconds=spent, first_frame_seconds=0.1,
                              loops=1.0, speed=1.0)  # fmt: skip
            choice: Choice = "tie" if i % 2 else "first"
            desk.submit(one, Comparison(choice=choice), viewing)
        (rater,) = measure(store.feedback(), store.acts()).raters
    assert [w.split(":")[0] for w in rater.warnings] == ["fast clicker"]
    assert (rater.ties.k, rater.fast.k) == (20, 20)


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.integers(0, 3, (2, 30))
        wanted = cohen_kappa_score(one, other)
        assert kappa(one / 2, other / 2) == pytest.approx(wanted)


def test_kappa_and_alpha_by_hand() -> None:
    """Agree on 3 of 4; by chance (3/4)(2/4) + (1/4)(2/4) = 1/2; kappa = (3/4 - 1/2) / (1/2)."""
    import numpy as np

    first, second = ["a", "a", "a", "b"], ["a", "a", "b", "b"]
    assert kappa(first, second) == pytest.approx(0.5)  # type: ignore[arg-type]
    table = {str(i): {"x": float(i % 2), "y": float(i % 2)} for i in range(10)}
    assert alpha(table, generator=np.random.default_rng(0), level="nominal").value == 1.0


def test_the_wilson_interval_by_hand() -> None:
    """17 of 20: (0.85 + 0.096 ± 1.96 sqrt(0.006375 + 0.0024)) / 1.192 = 0.640 to 0.948."""
    share = Share.of(17, 20)
    assert (share.low, share.high) == pytest.approx((0.640, 0.948), abs=1e-3)
    assert (Share.of(0, 0).low, Share.of(0, 0).high) == (0.0, 1.0)


def test_nobody_and_synthetic_raters_are_measured_without_times(tmp_path: Path) -> None:
    from tests.feedback.test_store import answer

    store, (a, *_) = filled(tmp_path)
    with store:
        assert measure(store.feedback(), store.acts()).raters == []
        store.submit_many([answer(a)])
        (rater,) = measure(store.feedback(), store.acts()).raters
    assert (rater.answers, rater.left.n, rater.warnings) == (1, 0, ())
