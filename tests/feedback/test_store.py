"""The store: what goes in comes out, once, in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, FeedbackStore, Query, encode_segment, make_oracle
from tests.feedback.helpers import CONTEXT, filled, pair, pixels, segment


def answer(query: Query, choice: str = "first", *, rater: str = "ann", id: str = "") -> Answer:
    reply = Comparison(choice=choice)  # type: ignore[arg-type]
    return Answer(id=id or f"{rater}-{query.id[:8]}", query=query.id, rater=rater, reply=reply)


def test_segments_come_back_bit_for_bit(tmp_path: Path) -> None:
    originals = [segment([0.1, -3e-300], ended=True), pixels()]
    with FeedbackStore.create(tmp_path, task="Dot", seed=7) as store:
        store.add_segments(originals)
    with FeedbackStore.open(tmp_path) as store:
        again = [store.segment(s.id) for s in originals]
        assert [encode_segment(s) for s in again] == [encode_segment(s) for s in originals]
        assert [s.id for s in store.segments()] == [s.id for s in originals]
        assert store.clip(originals[0].id) == originals[0].clip
        assert (store.task, store.seed) == ("Dot", 7)


def test_labels_come_back_in_order_of_arrival(tmp_path: Path) -> None:
    store, (a, b, c) = filled(tmp_path)
    with store:
        sent = [answer(c, "tie"), answer(a, "second"), answer(b, "cannot")]
        assert store.submit_many(sent) == ["ok", "ok", "ok"]
    with FeedbackStore.open(tmp_path) as store:
        labels = store.labels(after=0)
        assert [(x.seq, x.query, x.comparison.target) for x in labels] == [
            (1, c, 0.5),
            (2, a, 1.0),
            (3, b, None),
        ]
        assert [x.seq for x in store.labels(after=2)] == [3]
        assert list(store.queries()) == [a, b, c]
        assert list(store.feedback()) == labels


def test_labels_issued_by_a_step_leave_out_later_queries(tmp_path: Path) -> None:
    store, queries = filled(tmp_path)  # asked at steps 0, 100, 200
    with store:
        store.submit_many([answer(q) for q in queries])
        assert [x.seq for x in store.labels(after=0, issued_by=100)] == [1, 2]


def test_everything_may_be_repeated(tmp_path: Path) -> None:
    store, queries = filled(tmp_path)
    with store:
        store.submit_many([answer(q) for q in queries])
        before, counts = store.labels(after=0), store.counts()
        store.add_segments([*store.segments()] * 2)
        store.add_queries(queries * 2)
        assert store.submit_many([answer(q) for q in queries]) == ["dup"] * 3
        assert store.labels(after=0) == before
        assert store.counts() == counts == {"segments": 6, "queries": 3, "labels": 3, "skips": 0}


def test_of_two_answers_under_one_id_the_first_holds(tmp_path: Path) -> None:
    store, queries = filled(tmp_path)
    with store:
        sent = [answer(queries[0], "first", id="x"), answer(queries[0], "second", id="x")]
        assert store.submit_many(sent) == ["ok", "dup"]
        assert [x.comparison.choice for x in store.feedback()] == ["first"]


def test_a_rater_has_one_vote_per_query_and_others_have_theirs(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path, need=2)
    with store:
        sent = [answer(a, id="1"), answer(a, id="2"), answer(a, rater="bob")]
        assert store.submit_many(sent) == ["ok", "extra", "ok"]
        assert [x.rater for x in store.labels(after=0)] == ["ann", "bob"]
        assert [x.id for x in store.answers()] == ["1", "2", sent[2].id]  # kept all the same


def test_a_skip_is_counted_and_leaves_the_query_open(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store:
        assert store.submit_many([answer(a, "skip", id="1")]) == ["ok"]
        assert store.labels(after=0) == []
        assert store.counts()["skips"] == 1
        assert store.submit_many([answer(a, "first", id="2")]) == ["ok"]
        assert [x.seq for x in store.feedback()] == [2]


def test_an_oracle_resumed_in_another_order_adds_nothing(tmp_path: Path) -> None:
    oracle = make_oracle("stochastic", seed=0)
    asked = [pair([0.0], [1.0], step=i) for i in range(10)]
    with FeedbackStore.create(tmp_path, task="Dot", seed=0) as store:
        store.add_segments([s for _, both in asked for s in both])
        store.add_queries([q for q, _ in asked])
        store.submit_many([oracle.answer(q, both, CONTEXT) for q, both in asked])
        before = store.labels(after=0)
        again = [oracle.answer(q, both, CONTEXT) for q, both in reversed(asked)]
        assert store.submit_many(again) == ["dup"] * 10
        assert store.labels(after=0) == before


def test_a_query_about_unknown_segments_stores_nothing(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    known, (unknown, _) = pair([1.0], [2.0]), pair([3.0, 4.0, 5.0], [6.0])
    with store:
        store.add_segments(known[1])
        with pytest.raises(ValueError, match="add_segments first"):
            store.add_queries([known[0], unknown])
        assert store.counts()["queries"] == 3


def test_an_answer_to_an_unknown_query_stores_nothing(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store:
        with pytest.raises(ValueError, match="add_queries first"):
            store.submit_many([answer(a), answer(pair([1.0], [2.0])[0])])
        assert store.counts()["labels"] == 0


def test_two_open_stores_see_each_other(tmp_path: Path) -> None:
    store, (a, b, _) = filled(tmp_path)
    with store, FeedbackStore.open(tmp_path) as other:
        store.submit_many([answer(a)])
        other.submit_many([answer(b, rater="bob")])
        assert store.labels(after=0) == other.labels(after=0)
        assert [x.rater for x in store.labels(after=1)] == ["bob"]
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2]


def test_the_mirror_says_what_was_asked_and_answered(tmp_path: Path) -> None:
    store, (a, b, _) = filled(tmp_path)
    with store:
        store.submit_many([answer(a, "second"), answer(b, "skip")])
    first, second = map(json.loads, (tmp_path / "labels.jsonl").read_text().splitlines())
    assert first == {
        "seq": 1,
        "id": answer(a).id,
        "query": a.id,
        "rater": "ann",
        "kind": "comparison",
        "live": 1,
        "choice": "second",
        "segments": list(a.segments),
        "policy_step": 0,
    }
    assert (second["choice"], second["live"]) == ("skip", 0)


def test_an_unknown_segment_is_named(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    with store, pytest.raises(ValueError, match="is not in the store"):
        store.segment("0" * 64)


def test_open_wants_a_store_and_create_wants_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no labels\.db in"):
        FeedbackStore.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
    filled(tmp_path)[0].close()
    with pytest.raises(UserError, match="exists: open it"):
        FeedbackStore.create(tmp_path, task="Dot", seed=7)
