"""Queries and answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from prefrl.feedback import Answer, Comparison, Query, Rating, Viewing, answer_id
from tests.feedback.helpers import segment

A, B, C = "a" * 64, "b" * 64, "c" * 64


def query(*segments: str, step: int = 5, **more: Any) -> Query:
    return Query(segments=segments, policy_step=step, reason="uniform", priority=0.0, **more)


def test_the_id_of_a_query_is_the_same_in_every_process_and_version() -> None:
    assert query(A, B).id == "648fff4da71ed9f54f79a22e15c8ffa78befef7ae71e35ea8de341d911fe3b25"
    assert (
        answer_id(A, "oracle") == "eb0b8a2407ce6e5743462bfc13112628a7f9c5cf654156fbea60efd5f67cdf21"
    )


def test_the_id_of_a_query_tells_sides_and_steps_apart_but_not_reasons() -> None:
    ids = {query(A, B).id, query(B, A).id, query(A, B, step=6).id}
    assert len(ids) == 3
    other = dataclasses.replace(query(A, B), reason="disagreement", priority=0.3)
    assert other.id == query(A, B).id


@pytest.mark.parametrize("segments", [(A,), (A, A), (A, B, C), (A, "b"), (A, "B" * 64)])
def test_a_query_asks_about_distinct_segments(segments: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="segments"):
        query(*segments)


@pytest.mark.parametrize(
    ("choice", "target"),
    [("first", 0.0), ("second", 1.0), ("tie", 0.5), ("cannot", None), ("skip", None)],
)
def test_targets(choice: str, target: float | None) -> None:
    assert Comparison(choice=choice).target == target  # type: ignore[arg-type]


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'left', wanted one of first"):
        Comparison(choice="left")  # type: ignore[arg-type]


def test_segments_have_ids_that_queries_take() -> None:
    assert query(segment(t0=0).id, segment(t0=1).id)


def test_forms_and_purposes_have_ids_of_their_own_but_need_and_expectation_have_not() -> None:
    ranking = query(A, B, C, form="ranking")
    repeat = query(A, B, purpose="repeat", repeat_of=query(A, B).id)
    rating, edit = query(A, form="rating"), query(A, form="edit")
    gold = query(A, B, purpose="gold", expected='{"choice": "first"}')
    everything = (query(A, B), ranking, repeat, rating, edit, gold)
    assert len({q.id for q in everything}) == 6
    assert dataclasses.replace(gold, expected="", need=3).id == gold.id


@pytest.mark.parametrize(
    ("segments", "more", "message"),
    [
        ((A, B), {"form": "ranking"}, "wanted 3 to 6"),
        ((A, B), {"form": "rating"}, "wanted 1 to 1"),
        ((A, B), {"form": "poem"}, "query.form"),
        ((A, B), {"need": 0}, "query.need"),
        ((A, B), {"purpose": "fun"}, "query.purpose"),
        ((A, B), {"purpose": "repeat"}, "repeat_of"),
        ((A, B), {"repeat_of": A}, "repeat_of"),
        ((A, B), {"expected": '{"choice": "first"}'}, "has no right answer"),
        ((A, B), {"purpose": "gold", "expected": '{"choice": "left"}'}, "choice: got 'left'"),
        ((A, B, C), {"form": "ranking", "purpose": "gold", "expected": '{"order": [[0], [1]]}'},
         "does not answer it"),
    ],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused(
    segments: tuple[str, ...], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        query(*segments, **more)


def test_an_expected_reply_is_read() -> None:
    gold = query(A, form="rating", purpose="gold", expected='{"value": 8}')
    assert gold.right == Rating(value=8)
    assert query(A, B).right is None


def viewing(**more: Any) -> Viewing:
    usual = {"order": (1, 0), "key": "Left", "seconds": 3.0, "first_frame_seconds": 0.1}
    return Viewing(**{**usual, "loops": 2.5, "speed": 1.0, **more})


def test_notes_are_stripped_and_cut_but_never_inside_a_character() -> None:
    assert viewing(note="a\x1b[31mb\u202ec\x00\td\n").note == "a[31mbc\td\n"
    cut = viewing(note="é" * 3000).note
    assert cut == "é" * 2048
    assert viewing(note="x" + "é" * 3000).note.encode() == b"x" + "é".encode() * 2047


@pytest.mark.parametrize(
    "more", [{"order": (0, 2)}, {"order": ()}, {"seconds": -1.0}, {"loops": float("nan")}]
)
def test_a_viewing_that_makes_no_sense_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="viewing"):
        viewing(**more)


@pytest.mark.parametrize("name", ["", " ann", "x" * 129, "ann\x1b[0m", "ann\nbob", "\u202eann"])
def test_a_rater_has_a_name_that_can_be_printed(name: str) -> None:
    with pytest.raises(ValueError, match="rater"):
        Answer(id="1", query=A, rater=name, reply=Comparison(choice="tie"))
