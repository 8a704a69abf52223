"""Synthetic raters, by hand."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrl.errors import UserError
from prefrl.feedback import (
    ORACLES,
    Comparison,
    Oracle,
    OracleContext,
    Query,
    Ranking,
    make_oracle,
)
from tests.feedback.helpers import CONTEXT, ask, choice, pair, segment

MEAN_10 = OracleContext(return_spread=3.0, mean_segment_return=10.0)
REWARDS = st.lists(st.integers(-5, 5).map(float), min_size=3, max_size=3)


def share(name: str, wanted: str, first: list[float], second: list[float], n: int = 2000) -> float:
    """How often the rater says `wanted` of such a pair, over `n` queries."""
    oracle = make_oracle(name, seed=0)
    return sum(choice(oracle, first, second, step=i) == wanted for i in range(n)) / n


def test_the_oracle_prefers_the_larger_sum() -> None:
    oracle = make_oracle("oracle", seed=0)
    assert choice(oracle, [5.0, 0.0], [1.0, 3.0]) == "first"
    assert choice(oracle, [-5.0, 0.0], [1.0, -3.0]) == "second"


def test_exact_ties_are_ties_whatever_the_order_of_the_rewards() -> None:
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ when added up in floating point."""
    assert sum([0.1, 0.2, 0.3]) != sum([0.3, 0.2, 0.1])
    for name in ("oracle", "stochastic", "mistake", "equal", "crowd", "negated"):
        oracle = dataclasses.replace(make_oracle(name, seed=0), cannot=0.0)
        for i in range(20):
            assert choice(oracle, [0.1, 0.2, 0.3], [0.3, 0.2, 0.1], step=i) == "tie", name


@given(first=REWARDS, second=REWARDS)
def test_negated_is_the_mirror_image(first: list[float], second: list[float]) -> None:
    mirror = {"first": "second", "second": "first", "tie": "tie"}
    straight = choice(make_oracle("oracle", seed=0), first, second)
    assert choice(make_oracle("negated", seed=0), first, second) == mirror[straight]


def test_stochastic_is_a_sigmoid_of_the_difference_in_spreads() -> None:
    """Difference 1, spread 1: sigmoid(1) = 0.731; half-width at n = 2000: 0.03 (3 sd)."""
    assert share("stochastic", "second", [0.0], [1.0]) == pytest.approx(0.731, abs=0.03)
    assert share("stochastic", "second", [0.0], [1e-9]) == pytest.approx(0.5, abs=0.034)


def test_stochastic_does_not_depend_on_the_scale_of_the_reward() -> None:
    """The id of a segment leaves its reward out, so the coins are the same at every scale."""
    oracle = make_oracle("stochastic", seed=0)
    for scale in (1e-3, 1e3):
        context = OracleContext(return_spread=scale, mean_segment_return=0.0)
        for i in range(200):
            small = choice(oracle, [0.0], [0.7], step=i)
            assert choice(oracle, [0.0], [0.7 * scale], context, step=i) == small


def test_mistakes_flip_one_preference_in_ten() -> None:
    """3 sd at n = 2000: 0.02."""
    assert share("mistake", "first", [0.0], [1.0]) == pytest.approx(0.1, abs=0.02)
    assert share("mistake", "second", [1.0], [0.0]) == pytest.approx(0.1, abs=0.02)


def test_skip_takes_its_factor_once() -> None:
    """Mean return 10, eps 0.1: passes up to a return of 1, and not up to 0.1."""
    oracle = make_oracle("skip", seed=0)
    assert choice(oracle, [0.5, 0.5], [0.0, 0.0], MEAN_10) == "skip"
    assert choice(oracle, [0.5, 0.51], [0.0, 0.0], MEAN_10) == "first"


def test_nothing_is_poor_while_nothing_is_known() -> None:
    """A game in which nobody has scored yet."""
    blank = OracleContext(return_spread=0.0, mean_segment_return=0.0)
    assert choice(make_oracle("skip", seed=0), [0.0], [0.0], blank) == "tie"


def test_equal_takes_its_factor_once() -> None:
    """Mean return 10, eps 0.1: ties below a difference of 1, and not below 0.1."""
    oracle = make_oracle("equal", seed=0)
    assert choice(oracle, [5.0], [5.9], MEAN_10) == "tie"
    assert choice(oracle, [5.0], [6.0], MEAN_10) == "second"


def test_thresholds_fire_for_negative_returns_too() -> None:
    """Mean -20, spread 5: equal below 0.5; skip up to -20 - 0.9 * 5 = -24.5."""
    context = OracleContext(return_spread=5.0, mean_segment_return=-20.0)
    equal, skip = make_oracle("equal", seed=0), make_oracle("skip", seed=0)
    assert choice(equal, [-20.0], [-19.75], context) == "tie"
    assert choice(equal, [-20.0], [-19.5], context) == "second"
    assert choice(skip, [-24.5], [-30.0], context) == "skip"
    assert choice(skip, [-24.25], [-30.0], context) == "first"


def test_myopic_weighs_the_last_step_one() -> None:
    """0.9² * 10 = 8.1 against 8.2 in the last step, although 10 > 8.2."""
    oracle = make_oracle("myopic", seed=0)
    assert choice(oracle, [10.0, 0.0, 0.0], [0.0, 0.0, 8.2]) == "second"
    assert choice(oracle, [10.0, 0.0, 0.0], [0.0, 0.0, 8.0]) == "first"


def test_the_end_penalty_weighs_as_much_as_the_last_step_for_the_myopic() -> None:
    """0.9 * 1 + 2 - 2 = 0.9 * 1 + 0"""
    dead, alive = segment([1.0, 2.0], t0=0, ended=True), segment([1.0, 0.0], t0=1)
    oracle = make_oracle("myopic", seed=0, end_penalty=2.0)
    assert oracle.answer(ask(dead, alive), (dead, alive), CONTEXT).reply.choice == "tie"


def test_the_crowd_ties_small_differences_errs_and_abstains() -> None:
    """Spread 1: ties below 0.45; 2 % cannot; of the rest 7.5 % err. 3 sd: 0.02."""
    assert share("crowd", "tie", [0.0], [0.44]) == pytest.approx(0.98, abs=0.01)
    assert share("crowd", "tie", [0.0], [0.45]) == 0
    assert share("crowd", "cannot", [0.0], [1.0]) == pytest.approx(0.02, abs=0.01)
    assert share("crowd", "first", [0.0], [1.0]) == pytest.approx(0.98 * 0.075, abs=0.02)


def test_the_end_penalty_counts_for_segments_in_which_an_episode_ended() -> None:
    alive, dead = segment([1.0, 1.0], t0=0), segment([2.0, 2.0], t0=1, ended=True)
    query = ask(alive, dead)
    for penalty, wanted in ((0.0, "second"), (1.9, "second"), (2.0, "tie"), (2.1, "first")):
        oracle = make_oracle("oracle", seed=0, end_penalty=penalty)
        assert oracle.answer(query, (alive, dead), CONTEXT).reply.choice == wanted
    assert dead.true_reward.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("name", ["stochastic", "mistake", "crowd"])
def test_answers_do_not_depend_on_their_order(name: str) -> None:
    asked = [pair([0.0], [1.0], step=i) for i in range(50)]
    before = {q.id: make_oracle(name, seed=3).answer(q, s, CONTEXT) for q, s in asked}
    random.Random(1).shuffle(asked)
    oracle = make_oracle(name, seed=3)
    assert {q.id: oracle.answer(q, s, CONTEXT) for q, s in asked} == before


def test_the_coins_depend_on_the_seed_and_are_the_same_in_every_version() -> None:
    def answers(seed: int) -> str:
        oracle = make_oracle("stochastic", seed=seed)
        return "".join(choice(oracle, [0.0], [1e-12], step=i)[0] for i in range(16))

    assert answers(0) == "sfsssfsssssfffff"
    assert answers(1) != answers(0)


def test_an_answer_to_other_segments_is_refused() -> None:
    query, (first, second) = pair([0.0], [1.0])
    with pytest.raises(ValueError, match="other segments"):
        make_oracle("oracle", seed=0).answer(query, (second, first), CONTEXT)


def test_a_context_that_is_not_finite_is_refused() -> None:
    context = OracleContext(return_spread=float("nan"), mean_segment_return=0.0)
    with pytest.raises(ValueError, match="finite"):
        choice(make_oracle("oracle", seed=0), [0.0], [1.0], context)


def test_an_unknown_rater_names_the_nearest_and_all() -> None:
    with pytest.raises(UserError, match="unknown rater 'mistakes'; did you mean 'mistake'") as info:
        make_oracle("mistakes", seed=0)
    assert all(name in str(info.value) for name in ORACLES)


def test_a_negative_end_penalty_is_refused() -> None:
    with pytest.raises(UserError, match="end_penalty: got -1"):
        make_oracle("oracle", seed=0, end_penalty=-1.0)


def ranked(oracle: Oracle, *returns: float, step: int = 0) -> Ranking | Comparison:
    """The rater's order of segments of one step with these returns."""
    segments = [segment((r,), t0=i) for i, r in enumerate(returns)]
    ids = tuple(s.id for s in segments)
    query = Query(segments=ids, policy_step=step, reason="uniform", priority=0.0, form="ranking")
    reply = oracle.answer(query, segments, CONTEXT).reply
    assert isinstance(reply, Ranking | Comparison)
    return reply


def test_three_and_more_are_put_in_order_best_first() -> None:
    oracle = make_oracle("oracle", seed=0)
    assert ranked(oracle, 1.0, 3.0, 2.0, 3.0) == Ranking(order=((1, 3), (2,), (0,)))
    negated = make_oracle("negated", seed=0)
    assert ranked(negated, 1.0, 3.0, 2.0, 3.0) == Ranking(order=((0,), (2,), (1, 3)))


def test_a_crowd_ties_neighbours_and_now_and_then_swaps_two() -> None:
    crowd = dataclasses.replace(make_oracle("crowd", seed=0), cannot=0.0)
    spread = CONTEXT.return_spread
    returns = (0.0, 0.3 * spread, 3 * spread)  # .45 of a spread is told apart
    replies = [ranked(crowd, *returns, step=i) for i in range(2000)]
    right = Ranking(order=((2,), (0, 1)))
    assert replies.count(right) / 2000 == pytest.approx(1 - 0.075 / 2, abs=0.013)  # 3 sd
    assert ranked(dataclasses.replace(crowd, cannot=1.0), *returns) == Comparison(choice="cannot")


def test_stochastic_rankings_are_plackett_luces() -> None:
    """The best of three is chosen with its share of exp(return / spread)."""
    spread = CONTEXT.return_spread
    returns = (0.0, spread, 2 * spread)
    oracle = make_oracle("stochastic", seed=0)
    firsts = [ranked(oracle, *returns, step=i).order[0][0] for i in range(2000)]  # type: ignore[union-attr]
    total = sum(math.exp(x) for x in (0, 1, 2))
    for i in range(3):
        assert firsts.count(i) / 2000 == pytest.approx(math.exp(i) / total, abs=0.034)


def test_ratings_are_for_people() -> None:
    (only,) = segments = [segment((1.0,))]
    query = Query(segments=(only.id,), policy_step=0, reason="uniform", priority=0.0, form="rating")
    with pytest.raises(ValueError, match="give no rating"):
        make_oracle("oracle", seed=0).answer(query, segments, CONTEXT)


def test_segments_of_one_return_share_a_rank_with_every_rater_that_can_tell() -> None:
    stochastic = make_oracle("stochastic", seed=0)
    for step in range(50):
        reply = ranked(stochastic, 1.0, 0.0, 1.0, 0.3, step=step)
        assert isinstance(reply, Ranking)
        assert (0, 2) in reply.order, reply
