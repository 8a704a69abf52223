"""What was undone, replaced, late or forgotten: kept, and told to whoever read it before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.feedback import (
    Answer,
    Comparison,
    Edit,
    FeedbackStore,
    Instructions,
    Query,
    Ranking,
    Rating,
    Viewing,
)
from tests.feedback.helpers import filled, segment
from tests.feedback.test_store import answer

SEEN = Viewing(
    order=(1, 0), key="Left", seconds=2.5, first_frame_seconds=0.1, loops=1.5, speed=1.0,
    note="ann wrote this", instructions=2,
)  # fmt: skip


def undo(store: FeedbackStore, id: str, rater: str = "ann") -> None:
    with store.writing():
        store.ledger.undo(id, rater=rater, time=5.0)


def test_a_late_answer_is_kept_but_not_trained_on(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store:
        assert store.submit_many([answer(a), answer(a, "second", rater="bob")]) == ["ok", "extra"]
        assert [x.rater for x in store.labels(after=0)] == ["ann"]
        assert [(x.rater, x.status, x.live) for x in store.feedback()] == [
            ("ann", "ok", True),
            ("bob", "extra", True),
        ]


def test_an_answer_to_a_retired_query_is_stale_and_kept(tmp_path: Path) -> None:
    store, (a, b, c) = filled(tmp_path)  # asked at steps 0, 100, 200
    with store:
        assert store.retire(older_than=200) == 2
        assert store.retire(older_than=200) == 0
        assert store.submit_many([answer(a), answer(b, "skip"), answer(c)]) == ["stale", "ok", "ok"]
        assert [x.query for x in store.labels(after=0)] == [c]
        assert [x.status for x in store.feedback()] == ["stale", "ok"]
        store.check()


def test_undo_is_a_row_and_opens_the_query_again(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store:
        store.submit_many([answer(a, id="1")])
        assert store.queue.next_normal("bob", now=0.0, cap=None) != a.id
        undo(store, "1")
        assert store.labels(after=0) == []
        assert [(x.id, x.live) for x in store.answers()] == [("1", False)]
        assert [(x.seq, x.kind, x.query, x.time) for x in store.acts()] == [(2, "undo", a.id, 5.0)]
        assert store.submit_many([answer(a, "second", id="2")]) == ["ok"]
        assert [(x.seq, x.id) for x in store.labels(after=0)] == [(3, "2")]
        store.check()
    lines = [json.loads(x) for x in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [(x["kind"], x.get("supersedes")) for x in lines] == [
        ("comparison", None),
        ("undo", "1"),
        ("comparison", None),
    ]


def test_an_answer_may_replace_an_earlier_one_by_the_same_rater_only(tmp_path: Path) -> None:
    store, (a, b, _) = filled(tmp_path)
    with store:
        store.submit_many([answer(a, id="1")])
        better = dataclasses.replace(answer(a, "tie", id="2"), supersedes="1")
        assert store.submit_many([better]) == ["ok"]
        assert [(x.id, x.supersedes) for x in store.labels(after=0)] == [("2", "1")]
        assert [x.id for x in store.withdrawn(after=1)] == ["1"]
        for other in (answer(a, rater="bob", id="3"), answer(b, id="4")):
            with pytest.raises(ValueError, match="supersedes none of this rater's"):
                store.submit_many([dataclasses.replace(other, supersedes="2")])


def test_whoever_has_read_an_answer_learns_that_it_was_withdrawn(tmp_path: Path) -> None:
    store, (a, b, c) = filled(tmp_path)
    with store:
        store.submit_many([answer(a, id="1"), answer(b, id="2")])
        first = store.changes(0)
        assert ([x.id for x in first.labels], first.withdrawn, first.seq) == (["1", "2"], [], 2)
        undo(store, "1")  # seq 3
        store.submit_many([answer(a, "tie", id="3"), answer(c, id="4")])
        undo(store, "4")  # seq 6: come and gone between two readings
        second = store.changes(first.seq)
        assert [x.id for x in second.labels] == ["3"]
        assert [x.id for x in second.withdrawn] == ["1", "4"]
        assert second.seq == 6
        third = store.changes(second.seq)
        assert (third.labels, third.withdrawn, third.seq) == ([], [], 6)


def test_what_lived_at_some_seq_can_be_read_later(tmp_path: Path) -> None:
    """A resumed run fills its bank as it was: undone later, an answer was still in it."""
    store, (a, b, c) = filled(tmp_path)
    with store:
        store.submit_many([answer(a, id="1"), answer(b, id="2")])
        undo(store, "1")
        store.submit_many([answer(c, id="4")])
        for seq, wanted in ((0, ""), (1, "1"), (2, "12"), (3, "2"), (4, "24")):
            assert "".join(x.id for x in store.labels(0, as_of=seq)) == wanted
        assert [x.id for x in store.changes(0, as_of=2).withdrawn] == []
        assert [x.id for x in store.changes(2, as_of=3).withdrawn] == ["1"]


def test_changes_to_later_queries_are_left_out(tmp_path: Path) -> None:
    store, (a, _, c) = filled(tmp_path)  # asked at steps 0, 100, 200
    with store:
        store.submit_many([answer(a, id="1"), answer(c, id="2")])
        undo(store, "2")
        assert store.changes(0, issued_by=100).withdrawn == []
        assert [x.id for x in store.changes(0, issued_by=200).withdrawn] == ["2"]


def test_control_items_are_not_trained_on_and_every_rater_answers_them(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    gold = dataclasses.replace(a, purpose="gold", expected='{"choice": "first"}')
    repeat = dataclasses.replace(a, purpose="repeat", repeat_of=a.id)
    with store:
        store.add_queries([gold, repeat])
        sent = [answer(q, rater=r) for q in (gold, repeat) for r in ("ann", "bob")]
        assert store.submit_many(sent) == ["ok"] * 4
        assert store.labels(after=0) == []
        assert len(list(store.feedback())) == 4
        store.check()


def test_a_gold_item_without_an_answer_is_refused(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store, pytest.raises(ValueError, match="expects no answer"):
        store.add_queries([dataclasses.replace(a, purpose="gold")])


def test_every_form_is_stored_and_comes_back(tmp_path: Path) -> None:
    store, (a, b, _) = filled(tmp_path)
    about = {"policy_step": 3, "reason": "test", "priority": 0.0}
    three = Query(segments=(*a.segments, b.segments[0]), form="ranking", **about)  # type: ignore[arg-type]
    one = Query(segments=a.segments[:1], form="rating", **about)  # type: ignore[arg-type]
    text = Query(segments=a.segments[:1], form="edit", **about)  # type: ignore[arg-type]
    replies = [Ranking(order=((2,), (0, 1))), Rating(value=7), Edit(text="better")]
    with store:
        store.add_queries([three, one, text])
        for query, reply in zip((three, one, text), replies, strict=True):
            sent = Answer(id=query.id, query=query.id, rater="ann", reply=reply)
            assert store.submit_many([sent]) == ["ok"]
        labels = store.labels(after=0)
        assert [x.reply for x in labels] == replies
        assert [x.query for x in labels] == [three, one, text]
        assert [x.trainable for x in labels] == [True, True, False]
        made = segment((9.0, 9.0), t0=77)
        store.add_edited(labels[2].seq, made)
        edited = store.labels(after=0)[2]
        assert edited.trainable
        assert edited.segments == (a.segments[0], made.id)
        store.check()
    lines = [json.loads(x) for x in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [x["kind"] for x in lines] == ["ranking", "rating", "edit"]
    assert (lines[0]["order"], lines[1]["value"], lines[2]["text"]) == ([[2], [0, 1]], 7, "better")
    assert lines[0]["form"] == "ranking"


def test_a_reply_to_another_form_stores_nothing(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    with store:
        for reply in (Rating(value=3), Ranking(order=((0,), (1,)))):
            with pytest.raises(ValueError, match="wants a comparison"):
                store.submit_many([dataclasses.replace(answer(a), reply=reply)])
        short = dataclasses.replace(SEEN, order=(0,))
        with pytest.raises(ValueError, match="viewing in the order"):
            store.submit_many([dataclasses.replace(answer(a), viewing=short)])
        assert store.answers() == []


def test_how_an_answer_was_given_comes_back_and_is_mirrored(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    full = dataclasses.replace(answer(a), viewing=SEEN, session="s1", time=12.5)
    with store:
        store.submit_many([full])
        (label,) = store.labels(after=0)
        assert (label.viewing, label.session, label.time) == (SEEN, "s1", 12.5)
    (line,) = map(json.loads, (tmp_path / "labels.jsonl").read_text().splitlines())
    assert line["viewing"] == {**dataclasses.asdict(SEEN), "order": [1, 0]}
    assert (line["session"], line["time"]) == ("s1", 12.5)


def test_a_forgotten_person_is_nowhere_and_their_answers_are_counted_only(tmp_path: Path) -> None:
    store, (a, b, c) = filled(tmp_path, need=2)
    name = "Ann-Kathrin"
    with store:
        store.write_session(id="s-" + name, rater=name, app="viewer", started=1.0)
        sent = [answer(a, rater=name), answer(b, rater=name), answer(a, rater="bob")]
        sent[0] = dataclasses.replace(sent[0], viewing=SEEN, session="s-" + name)
        store.submit_many([*sent, answer(c, "skip", rater=name)])
        undo(store, sent[1].id, name)
        seen = store.changes(0)
        alias = store.forget(name, now=9.0)
        after = store.changes(seen.seq)
        assert [x.query for x in after.withdrawn] == [a]
        assert [x.rater for x in store.labels(after=0)] == ["bob"]
        assert [x.rater for x in store.answers()] == [alias, alias, "bob"]
        assert [x.kind for x in store.acts()] == ["skip", "undo", "forget"]
        assert store.sessions() == []
        store.check()
        with pytest.raises(UserError, match="no rater 'Ann-Kathrin'"):
            store.forget(name)
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        assert name.encode() not in data, path
        assert b"ann wrote this" not in data, path
    with FeedbackStore.open(tmp_path) as store:  # the mirror goes on from where it was
        store.submit_many([answer(c, rater="bob", id="last")])
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert [json.loads(x)["seq"] for x in lines] == list(range(1, 8))


def test_times_may_be_whole_numbers(tmp_path: Path) -> None:
    """A row's hash is that of what the database gives back: 5.0, whoever wrote 5."""
    store, (a, *_) = filled(tmp_path)
    with store:
        told = Instructions(version=1, text="nearer is better")
        store.write_session(id="s", rater="ann", app="", started=5, agreed=told)
        store.submit_many([dataclasses.replace(answer(a, id="1"), session="s", time=6)])
        with store.writing():
            store.ledger.undo("1", rater="ann", time=7)
            store.register.note_pack(id="p", rater="", queries=[a.id], made=8)
        store.check()
        assert (store.answers()[0].time, store.acts()[0].time) == (6.0, 7.0)


def test_instructions_are_versioned(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    with store:
        assert store.set_instructions("faster is better").version == 1
        assert store.set_instructions("faster is better").version == 1
        assert store.set_instructions("upright is better").version == 2
        assert store.instructions().text == "upright is better"


def test_the_trainers_last_beat_is_read(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    with store:
        assert store.last_beat() is None
        store.beat(step=10, labels_due=5, labels=3, now=1.0)
        store.beat(step=20, labels_due=9, labels=4, now=2.0)
        beat = store.last_beat()
        assert beat is not None
        assert (beat.step, beat.labels_due, beat.labels, beat.time) == (20, 9, 4, 2.0)


def test_a_comparison_is_read_from_comparisons_only(tmp_path: Path) -> None:
    store, (a, *_) = filled(tmp_path)
    one = Query(segments=a.segments[:1], form="rating", policy_step=0, reason="", priority=0.0)
    with store:
        store.add_queries([one])
        store.submit_many([Answer(id="1", query=one.id, rater="ann", reply=Rating(value=2))])
        (label,) = store.labels(after=0)
        with pytest.raises(TypeError, match="is a rating"):
            assert label.comparison
        tie = Answer(id="2", query=one.id, rater="bob", reply=Comparison(choice="tie"))
        with pytest.raises(ValueError, match="wants a rating"):
            store.submit_many([tie])
