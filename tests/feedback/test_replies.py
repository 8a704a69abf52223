"""Replies as JSON, and which query they answer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrl.feedback import Comparison, Edit, Ranking, Rating, Reply, agrees
from prefrl.feedback.replies import fits, kind_of, plain_text, read_reply, reply_json


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    places = draw(st.permutations(range(draw(st.integers(2, 6)))))
    cuts = sorted(draw(st.sets(st.integers(1, len(places) - 1))))
    edges = [0, *cuts, len(places)]
    groups = [tuple(places[a:b]) for a, b in pairwise(edges)]
    return Ranking(order=tuple(groups))


REPLIES = st.one_of(
    st.sampled_from(["first", "second", "tie", "cannot", "skip"]).map(
        lambda c: Comparison(choice=c)  # type: ignore[arg-type]
    ),
    st.floats(0, 1).map(Comparison.of),
    rankings(),
    st.integers(1, 9).map(lambda v: Rating(value=v)),
    st.text(min_size=1).filter(plain_text).map(lambda t: Edit(text=t)),
)


@given(reply=REPLIES)
def test_what_is_written_is_read(reply: Reply) -> None:
    assert read_reply(kind_of(reply), reply_json(reply)) == reply


def test_comparisons_are_written_as_they_always_were() -> None:
    assert reply_json(Comparison(choice="tie")) == '{"choice": "tie"}'


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("poem", "{}"),
        ("comparison", "[]"),
        ("comparison", '{"choice": ["first"]}'),
        ("comparison", '{"choice": "first", "more": 1}'),
        ("comparison", '{"second": 0.25}'),
        ("comparison", '{"choice": "first", "second": 0.75}'),
        ("comparison", '{"choice": "cannot", "second": 0.5}'),
        ("comparison", '{"choice": "second", "second": 1.5}'),
        ("comparison", '{"choice": "second", "second": NaN}'),
        ("comparison", '{"choice": "second", "second": true}'),
        ("ranking", '{"order": 3}'),
        ("ranking", '{"order": [[0], [true]]}'),
        ("ranking", '{"order": [[0, 1], [1]]}'),
        ("ranking", '{"order": [[0, 1, 2], []]}'),
        ("ranking", '{"order": [[0], [2]]}'),
        ("ranking", '{"order": [[0], ["1"]]}'),
        ("rating", '{"value": 0}'),
        ("rating", '{"value": 5.0}'),
        ("rating", '{"value": true}'),
        ("edit", '{"text": ""}'),
        ("edit", '{"text": 5}'),
        ("edit", "[" * 100_000),
        ("edit", '{"text": "' + "x" * 70_000 + '"}'),
    ],
)
def test_anything_else_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError):
        read_reply(kind, text)


def test_a_probability_is_trained_on_and_its_side_is_what_was_chosen() -> None:
    unsure = Comparison.of(0.25)
    assert (unsure.choice, unsure.target, unsure.preferred) == ("first", 0.25, 0)
    assert Comparison.of(0.5) == Comparison(choice="tie", second=0.5)
    assert Comparison(choice="tie").preferred is Comparison(choice="skip").preferred is None
    assert reply_json(unsure) == '{"choice": "first", "second": 0.25}'
    assert agrees(unsure, Comparison(choice="first"))
    assert not agrees(unsure, Comparison(choice="tie"))


def test_each_form_wants_its_own_reply_and_takes_cannot() -> None:
    three = Ranking(order=((0,), (1, 2)))
    assert fits(three, "ranking", 3)
    assert not fits(three, "ranking", 4)
    assert not fits(Rating(value=3), "comparison", 2)
    assert not fits(Comparison(choice="tie"), "ranking", 3)
    for form in ("comparison", "ranking", "rating", "edit"):
        assert fits(Comparison(choice="cannot"), form, 3)
        assert fits(Comparison(choice="skip"), form, 3)


def test_a_rating_one_step_off_agrees_and_ties_have_no_order() -> None:
    assert agrees(Rating(value=6), Rating(value=7))
    assert not agrees(Rating(value=5), Rating(value=7))
    assert agrees(Ranking(order=((0,), (1, 2))), Ranking(order=((0,), (2, 1))))
    assert not agrees(Ranking(order=((0,), (1,), (2,))), Ranking(order=((0,), (2,), (1,))))
    assert not agrees(Comparison(choice="tie"), Comparison(choice="first"))
