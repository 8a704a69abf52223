"""Queries and answers."""

from __future__ import annotations

import dataclasses

import pytest

from prefrl.feedback import Comparison, Query, answer_id
from tests.feedback.helpers import segment

A, B, C = "a" * 64, "b" * 64, "c" * 64


def query(*segments: str, step: int = 5) -> Query:
    return Query(segments=segments, policy_step=step, reason="uniform", priority=0.0)


def test_the_id_of_a_query_is_the_same_in_every_process_and_version() -> None:
    assert query(A, B).id == "648fff4da71ed9f54f79a22e15c8ffa78befef7ae71e35ea8de341d911fe3b25"
    assert (
        answer_id(A, "oracle") == "eb0b8a2407ce6e5743462bfc13112628a7f9c5cf654156fbea60efd5f67cdf21"
    )


def test_the_id_of_a_query_tells_sides_and_steps_apart_but_not_reasons() -> None:
    ids = {query(A, B).id, query(B, A).id, query(A, B, step=6).id, query(A, B, C).id}
    assert len(ids) == 4
    other = dataclasses.replace(query(A, B), reason="disagreement", priority=0.3)
    assert other.id == query(A, B).id


@pytest.mark.parametrize("segments", [(A,), (A, A), (A, "b"), (A, "B" * 64)])
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
