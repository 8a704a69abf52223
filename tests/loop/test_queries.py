"""Which segments are put to a rater, and together with which."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefrl.config import QueryConfig, TrainConfig
from prefrl.errors import UserError
from prefrl.feedback import Desk, DeskConfig, FeedbackStore, Provenance, Segment
from prefrl.loop.queries import choose_queries, draw_groups, movement
from prefrl.rewards import RewardConfig, disagreement


def pool(size: int) -> list[Segment]:
    return [
        Segment(
            observations=np.full((2, 1), i, np.float32),
            actions=np.zeros(2, np.int64),
            true_reward=np.zeros(2),
            ended=False,
            provenance=Provenance(task="T", seed=0, policy_step=0, env=0, episode=0, t0=i),
            clip=b"",
        )
        for i in range(size)
    ]


def ensemble(returns: list[list[float]], *, fitted: bool = True) -> Any:
    """A model with these raw returns [E, S]; it knows a segment by its t0."""

    def segment_returns(segments: list[Segment], *, stride: int) -> torch.Tensor:
        assert stride == 3
        return torch.tensor(returns)[:, [s.provenance.t0 for s in segments]]

    config = SimpleNamespace(stride=3)
    return SimpleNamespace(fitted=fitted, segment_returns=segment_returns, config=config)


def choose(
    behaviour: list[Segment],
    count: int,
    model: Any,
    *,
    covered: Sequence[Segment] = (),
    seed: int = 0,
    **settings: Any,
) -> Any:
    return choose_queries(
        behaviour,
        count,
        config=QueryConfig(**settings),
        model=model,
        policy_step=640,
        generator=np.random.default_rng(seed),
        covered=covered,
    )


@given(
    size=st.integers(0, 12), K=st.integers(1, 4), count=st.integers(0, 80),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_groups_are_distinct_and_no_clip_meets_itself(
    size: int, K: int, count: int, seed: int
) -> None:
    groups = draw_groups(size, K, count, np.random.default_rng(seed))
    assert groups.shape == (min(count, math.comb(size, K)), K)
    assert len({frozenset(g) for g in groups.tolist()}) == len(groups)
    assert all(len(set(g)) == K and min(g) >= 0 and max(g) < size for g in groups.tolist())


def test_every_segment_is_drawn_about_equally_often() -> None:
    # 100 pairs of 20 segments are 10 whole decks: each segment in 10 pairs, give or take a
    # repetition that was passed over
    counts = np.bincount(draw_groups(20, 2, 100, np.random.default_rng(0)).ravel(), minlength=20)
    assert counts.sum() == 200
    assert counts.min() >= 7
    assert counts.max() <= 13


def test_either_segment_of_a_pair_may_come_first() -> None:
    pairs = draw_groups(60, 2, 1000, np.random.default_rng(0))
    share = (pairs[:, 0] < pairs[:, 1]).mean()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)


def test_uniform_queries_carry_their_segments_and_never_ask_the_model() -> None:
    segments = pool(6)
    asked = choose(segments, 4, model=SimpleNamespace(fitted=True))
    assert len(asked) == 4
    for query, pair in asked:
        assert query.segments == (pair[0].id, pair[1].id)
        assert (query.reason, query.policy_step) == ("uniform", 640)
    assert len({query.id for query, _ in asked}) == 4


def test_disagreement_picks_the_pairs_with_the_largest_spread() -> None:
    segments = pool(5)
    # the members differ about segments 3 and 4 only, and most about the two together
    returns = [[0.0, 0.1, 0.2, 4.0, -4.0], [0.0, 0.1, 0.2, -4.0, 4.0]]
    asked = choose(segments, 3, ensemble(returns), strategy="disagreement", candidates=10)
    pairs = [{s.provenance.t0 for s in pair} for _, pair in asked]
    assert pairs[0] == {3, 4}
    assert all(pair & {3, 4} for pair in pairs)
    priorities = [query.priority for query, _ in asked]
    assert priorities == sorted(priorities, reverse=True)
    assert {query.reason for query, _ in asked} == {"disagreement"}


def test_who_answers_a_part_answers_of_each_strategy_its_share(tmp_path: Path) -> None:
    segments = pool(40)
    returns = np.random.default_rng(1).normal(size=(2, 40)).tolist()
    settings = {"strategy": "disagreement", "candidates": 4, "uniform_share": 0.25}
    asked = choose(segments, 16, ensemble(returns), **settings)
    with FeedbackStore.create(tmp_path / "run", task="T", seed=0) as store:
        store.add_segments(segments)
        store.add_queries([query for query, _ in asked])
        with Desk(store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            first = [assignment.query for assignment in desk.take(8)]
    assert sorted(query.reason for query in first) == ["disagreement"] * 6 + ["uniform"] * 2
    chosen = [query.id for query, _ in asked if query.reason == "disagreement"]
    assert [query.id for query in first if query.reason == "disagreement"] == chosen[:6]


@pytest.mark.parametrize("fitted", [True, False])
def test_of_one_strategy_the_newest_come_first(fitted: bool, tmp_path: Path) -> None:
    segments = pool(40)
    model = ensemble([[0.0] * 40] * 2, fitted=fitted)
    asked = choose(segments, 4, model), choose(segments, 4, model, seed=1)
    older = [dataclasses.replace(query, policy_step=10) for query, _ in asked[0]]
    newer = [query for query, _ in asked[1] if query.segments not in {q.segments for q in older}]
    with FeedbackStore.create(tmp_path / "run", task="T", seed=0) as store:
        store.add_segments(segments)
        store.add_queries([*older, *newer])
        with Desk(store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            first = [assignment.query.policy_step for assignment in desk.take(8)]
    assert first == [640] * len(newer) + [10] * 4


def test_disagreement_chooses_the_best_of_all_its_candidates() -> None:
    segments, returns = pool(8), np.random.default_rng(1).normal(size=(3, 8)).tolist()
    asked = choose(segments, 4, ensemble(returns), strategy="disagreement", candidates=7)
    every = torch.tensor([[i, j] for i in range(8) for j in range(i)])  # 28 pairs = 4 * 7
    best = disagreement(torch.tensor(returns), every).argsort(descending=True)[:4]
    pairs = [{s.provenance.t0 for s in pair} for _, pair in asked]
    assert pairs == [set(pair) for pair in every[best].tolist()]


@pytest.mark.parametrize(("K", "form"), [(1, "rating"), (3, "ranking"), (6, "ranking")])
def test_more_or_fewer_than_two_segments_are_another_form(K: int, form: str) -> None:
    asked = choose(pool(9), 4, model=SimpleNamespace(fitted=True), segments=K)
    assert [(query.form, len(group)) for query, group in asked] == [(form, K)] * 4
    assert all(query.segments == tuple(s.id for s in group) for query, group in asked)


@pytest.mark.parametrize("K", [1, 3])
def test_disagreement_chooses_rankings_and_ratings_too(K: int) -> None:
    # the members differ about segments 3 and 4 only
    returns = [[0.0, 0.1, 0.2, 4.0, -4.0], [0.0, 0.1, 0.2, -4.0, 4.0]]
    settings = {"strategy": "disagreement", "segments": K, "candidates": 10}
    for _, group in choose(pool(5), 2, ensemble(returns), **settings):
        assert {s.provenance.t0 for s in group} & {3, 4}


def test_promising_asks_about_what_one_member_hopes_is_best() -> None:
    segments = pool(6)
    # normalised, members agree that 5 is good; one hopes for 2; 0 is known to be the worst
    returns = [[-9.0, 0.0, 0.0, 0.0, 0.0, 4.0], [-9.0, 0.0, 9.0, 0.0, 0.0, 4.0]]
    asked = choose(segments, 4, ensemble(returns), strategy="promising", candidates=10)
    pairs = [{s.provenance.t0 for s in pair} for _, pair in asked]
    assert all(2 in pair and 0 not in pair for pair in pairs)  # beside 0 anything would win
    assert {query.reason for query, _ in asked} == {"promising"}


@pytest.mark.parametrize(("share", "uniform"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_a_share_is_uniform_all_the_same(share: float, uniform: int) -> None:
    returns = np.random.default_rng(1).normal(size=(3, 12)).tolist()
    settings = {"strategy": "disagreement", "candidates": 2, "uniform_share": share}
    reasons = [query.reason for query, _ in choose(pool(12), 8, ensemble(returns), **settings)]
    assert reasons.count("uniform") == uniform
    assert reasons.count("disagreement") == 8 - uniform


UNFITTED = SimpleNamespace(fitted=False)


def moving(*by: float) -> list[Segment]:
    """Segments of two steps, in which the one number observed moves so far, wherever it is."""
    return [
        dataclasses.replace(s, observations=np.array([[at + x], [at]], np.float32))
        for s, x, at in zip(
            pool(len(by)), by, itertools.cycle([0, 300, 100, 300, 100]), strict=False
        )
    ]


def test_before_the_first_fit_k_center_puts_what_moves_unlike_the_rest_beside_the_ordinary() -> (
    None
):
    segments = moving(5.0, 5.1, 5.2, 5.3, 19.0, 0.0, 5.15, 5.25)
    asked = choose(segments, 2, UNFITTED, first="k_center")
    assert {query.reason for query, _ in asked} == {"k_center"}
    groups = [{s.provenance.t0 for s in pair} for _, pair in asked]
    assert [len(group & {4, 5}) for group in groups] == [1, 1]
    assert len(groups[0] | groups[1]) == 4


def test_of_three_k_center_finds_two_and_their_places_are_drawn() -> None:
    segments = moving(*[5.0] * 6, 1.0, 9.0, 13.0, 17.0)
    places = set()
    for seed in range(9):
        asked = choose(segments, 2, UNFITTED, first="k_center", segments=3, seed=seed)
        groups = [[s.provenance.t0 in range(6, 10) for s in group] for _, group in asked]
        assert [sum(group) for group in groups] == [2, 2]
        places |= {group.index(False) for group in groups}
    assert places == {0, 1, 2}


def test_what_moves_seldom_counts_as_much_as_what_always_moves_far() -> None:
    far = np.random.default_rng(0).uniform(0, 100, size=20)
    both = [
        dataclasses.replace(s, observations=np.array([[x, 0.1 * (i == 7)], [0.0, 0.0]], np.float32))
        for i, (s, x) in enumerate(zip(pool(20), far, strict=True))
    ]
    found = [choose(both, 1, UNFITTED, first="k_center", seed=seed) for seed in range(9)]
    assert all(7 in {s.provenance.t0 for s in asked[0][1]} for asked in found)


def test_pixels_move_by_the_newest_frame_the_most_in_each_cell() -> None:
    frames = np.zeros((3, 14, 14, 4), np.uint8)  # cells of 6: 3 x 3, the last ones narrow
    frames[0, 0, 5, 3], frames[1, 3, 3, 3], frames[2, 13, 6, 3] = 200, 90, 255
    frames[:, 7, 7, :3] = 50, 60, 70  # older frames, and one that stands still
    frames[:, 8, 13, 3] = 77
    (segment,) = pool(1)
    still = dataclasses.replace(segment, observations=np.zeros((3, 14, 14, 4), np.uint8),
                                actions=np.zeros(3), true_reward=np.zeros(3))  # fmt: skip
    moved = movement([dataclasses.replace(still, observations=frames), still])
    assert moved.view(2, 3, 3).tolist() == [
        [[200, 0, 0], [0, 0, 0], [0, 255, 0]], [[0] * 3] * 3,
    ]  # fmt: skip


def test_k_center_passes_over_what_was_answered_about() -> None:
    segments = moving(0.0, 9.0, 8.9, 0.1, 4.0)
    asked = choose(segments, 1, UNFITTED, first="k_center", covered=segments[:2])
    assert 4 in {s.provenance.t0 for s in asked[0][1]}  # halfway between the two
    assert not {0, 1} & {s.provenance.t0 for s in asked[0][1]}


def test_k_center_asks_no_more_than_the_pool_holds() -> None:
    assert len(choose(moving(0.0, 1.0, 2.0, 3.0, 4.0), 9, UNFITTED, first="k_center")) == 2
    assert choose(moving(0.0), 9, UNFITTED, first="k_center") == []


def test_once_the_model_is_fitted_the_first_choice_is_over() -> None:
    model = SimpleNamespace(fitted=True)
    assert {q.reason for q, _ in choose(pool(6), 4, model, first="k_center")} == {"uniform"}


def test_an_unfitted_model_disagrees_about_nothing_so_pairs_are_uniform() -> None:
    model = ensemble([[0.0] * 6] * 2, fitted=False)
    asked = choose(pool(6), 4, model, strategy="disagreement")
    assert {query.reason for query, _ in asked} == {"uniform"}


@pytest.mark.parametrize(("size", "got"), [(0, 0), (1, 0), (2, 1), (3, 3)])
def test_a_small_pool_gives_the_pairs_it_has(size: int, got: int) -> None:
    assert len(choose(pool(size), 10, ensemble([[0.0] * size]))) == got


@pytest.mark.parametrize("strategy", ["disagreement", "promising"])
def test_an_ensemble_of_one_is_refused(strategy: Any) -> None:
    # its spread is nan, which is no priority
    with pytest.raises(UserError, match=rf"queries\.strategy: got {strategy}, with model\.members"):
        TrainConfig(task="T", model=RewardConfig(members=1), queries=QueryConfig(strategy=strategy))


def test_the_same_generator_asks_the_same() -> None:
    one, two = (choose(pool(9), 5, ensemble([[0.0] * 9])) for _ in range(2))
    assert [q.id for q, _ in one] == [q.id for q, _ in two]


def test_synthetic_raters_rate_nothing() -> None:
    with pytest.raises(UserError, match=r"queries\.segments: got 1, with the rater crowd"):
        TrainConfig(task="T", rater="crowd", queries=QueryConfig(segments=1))
    with pytest.raises(UserError, match=r"queries\.segments: got 7"):
        QueryConfig(segments=7)


def moving_both(*ranges: tuple[float, float]) -> list[Segment]:
    """Segments of two numbers that move so far."""
    return [
        dataclasses.replace(segment, observations=np.array([[0, 0], moved], np.float32))
        for segment, moved in zip(pool(len(ranges)), ranges, strict=True)
    ]


def test_of_the_best_pairs_those_are_asked_whose_best_segments_move_the_least_alike() -> None:
    # three good segments that move alike, a good one that does not, and eight that are no good
    behaviour = moving_both((1, 0), (1, 0), (1, 0), (0, 1), *[(0.5, 0.5)] * 8)
    model = ensemble([[9.0, 8.9, 8.8, 8.7, *[0.0] * 8]] * 2)
    about = {"strategy": "promising", "candidates": 30}

    def best(spread: int) -> list[tuple[float, ...]]:
        asked = choose(behaviour, 2, model, spread=spread, **about)
        numbers = [max(pair, key=lambda s: -s.provenance.t0) for _, pair in asked]
        return [tuple(s.observations[1].tolist()) for s in numbers]

    assert best(1) == [(1, 0), (1, 0)]
    assert sorted(best(20)) == [(0, 1), (1, 0)]


def test_spread_is_of_the_candidates() -> None:
    with pytest.raises(UserError, match=r"queries.spread: got 11, wanted at most 10 \(cand"):
        QueryConfig(spread=11)
    with pytest.raises(UserError, match=r"queries.spread: got 0, wanted 1 or more"):
        QueryConfig(spread=0)
