"""Raters at their desks: who is asked what, in which order, and what a crash leaves behind."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from prefrl.errors import UserError
from prefrl.feedback import (
    Assignment,
    Comparison,
    Desk,
    DeskConfig,
    Edit,
    FeedbackStore,
    Query,
    Viewing,
)
from tests.feedback.helpers import ask, filled, segment

FIRST = Comparison(choice="first")
PLAIN = DeskConfig(gold_share=0.0, repeat_share=0.0)


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def sit(store: FeedbackStore, rater: str = "ann", clock: Any = None, **config: Any) -> Desk:
    settings = dataclasses.replace(PLAIN, **config)
    return Desk(store, rater=rater, config=settings, clock=clock or Clock(), app="test 1")


def ids(assignments: list[Assignment]) -> list[str]:
    return [a.query.id for a in assignments]


def seen(assignment: Assignment) -> Viewing:
    return Viewing(
        order=assignment.order,
        key="Left",
        seconds=2.0,
        first_frame_seconds=0.1,
        loops=1.0,
        speed=1.0,
    )


def test_queries_come_by_priority_then_recency_then_id(tmp_path: Path) -> None:
    store, asked = filled(tmp_path, 4)  # asked at steps 0, 100, 200, 300
    urgent = dataclasses.replace(ask(*[store.segment(s) for s in asked[0].segments], step=1),
                                 priority=0.5)  # fmt: skip
    with store, sit(store) as desk:
        store.add_queries([urgent])
        got = ids(desk.take(10))
    assert got == [urgent.id, asked[3].id, asked[2].id, asked[1].id, asked[0].id]


def test_two_raters_never_hold_one_query_that_needs_one_answer(tmp_path: Path) -> None:
    store, asked = filled(tmp_path, 4)
    with store, sit(store) as ann, sit(store, "bob") as bob:
        assert set(ids(ann.take(2))) | set(ids(bob.take(2))) == {q.id for q in asked}
        assert ann.take(3) == ann.take(2)
        assert sit(store, "eve").take() == []


def test_a_query_that_needs_two_answers_is_put_to_two_raters(tmp_path: Path) -> None:
    store, (a,) = filled(tmp_path, 1, need=2)
    with store:
        desks = [sit(store, name) for name in ("ann", "bob", "eve")]
        takes = [desk.take(1) for desk in desks]
        assert [ids(t) for t in takes] == [[a.id], [a.id], []]
        assert desks[0].submit(takes[0][0], FIRST, None) == "ok"
        assert desks[2].take(1) == []
        assert desks[0].take(1) == []  # not answered by me
        desks[1].leave()
        assert ids(desks[2].take(1)) == [a.id]


def test_a_crashed_rater_finds_the_same_queries_in_the_same_places(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 4)
    clock = Clock()
    with store:
        before = sit(store, clock=clock).take(2)  # never leaves
    with FeedbackStore.open(tmp_path) as store:
        clock.now += 30
        assert sit(store, clock=clock).take(2) == before
        clock.now += 3600  # expired, and nobody took over
        again = sit(store, clock=clock).take(2)
        assert [(a.query, a.token, a.order) for a in again] == [
            (a.query, a.token, a.order) for a in before
        ]


def test_two_windows_under_one_name_lose_no_answer(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 1)
    with store, sit(store) as one, sit(store) as other:
        (mine,), (same,) = one.take(), other.take()
        assert mine.token == same.token
        assert one.submit(mine, FIRST, None) == "ok"
        assert one.submit(mine, FIRST, None) == "dup"  # sent again
        assert other.submit(same, Comparison(choice="second"), None) == "extra"
        assert [x.reply.choice for x in store.answers()] == ["first", "second"]  # type: ignore[union-attr]
        assert [x.reply.choice for x in store.labels(after=0)] == ["first"]  # type: ignore[union-attr]


def test_progress_knows_what_is_open_for_others(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 3)
    with store, sit(store) as ann:
        ann.skip(ann.take(1)[0])
        ann.submit(ann.take(1)[0], FIRST, None)
        assert (ann.progress().waiting, ann.progress().open) == (0, 2)  # one in hand, one skipped


def test_an_expired_lease_is_free_for_others(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 1)
    clock = Clock()
    with store:
        ann, bob = sit(store, clock=clock), sit(store, "bob", clock=clock)
        (mine,) = ann.take()
        clock.now += 89
        assert bob.take() == []
        clock.now += 2
        (theirs,) = bob.take()
        assert theirs.query == mine.query
        assert ann.take() == []  # taken over
        assert bob.submit(theirs, FIRST, seen(theirs)) == "ok"
        assert ann.submit(mine, FIRST, seen(mine)) == "extra"  # late, and kept
        assert [x.rater for x in store.feedback()] == ["bob", "ann"]
        store.check()


def test_a_heartbeat_keeps_a_lease(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 1)
    clock = Clock()
    with store:
        ann, bob = sit(store, clock=clock), sit(store, "bob", clock=clock)
        ann.take()
        for _ in range(20):
            clock.now += 15
            ann.heartbeat()
        assert bob.take() == []


def test_leaving_gives_everything_back(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 2)
    with store:
        with sit(store) as ann:
            assert len(ann.take(2)) == 2
        assert len(sit(store, "bob").take(2)) == 2


def test_an_answer_sent_twice_is_stored_once(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 2)
    with store, sit(store) as desk:
        (one, _) = desk.take()
        assert desk.submit(one, FIRST, seen(one)) == "ok"
        assert desk.submit(one, Comparison(choice="second"), seen(one)) == "dup"
        (label,) = store.labels(after=0)
        assert (label.reply, label.viewing, label.session) == (FIRST, seen(one), desk.session)
        assert label.time == 1_000_000.0


def test_undo_gives_the_newest_answer_back_again_and_again(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 4)
    with store, sit(store) as desk:
        done = []
        for _ in range(3):
            (one, *_) = desk.take(1)
            desk.submit(one, FIRST, None)
            done.append(one)
        (last,) = desk.take()
        again = desk.undo()
        assert again is not None
        assert (again.query, again.order) == (done[2].query, done[2].order)
        assert again.token != done[2].token
        assert ids(desk.take(2)) == [again.query.id, last.query.id]
        further = desk.undo()
        assert further is not None
        assert further.query == done[1].query
        assert [x.query for x in store.labels(after=0)] == [done[0].query]
        assert desk.submit(again, Comparison(choice="tie"), None) == "ok"
        assert [x.comparison.choice for x in store.labels(after=0)] == ["first", "tie"]
        store.check()


def test_what_is_on_a_raters_screen_is_not_retired_until_they_let_go(tmp_path: Path) -> None:
    store, (_, _, c) = filled(tmp_path)  # asked at steps 0, 100 and 200
    clock = Clock()
    with store, sit(store, clock=clock) as desk:
        (one,) = desk.take(1)
        desk.submit(one, FIRST, None)
        desk.leave()  # and gives back what it was given then
        again = desk.undo()
        assert again is not None
        assert again.query == c
        assert store.retire(older_than=1000, now=clock.now + 89) == 2
        assert desk.submit(again, Comparison(choice="second"), None) == "ok"
        assert [x.comparison.choice for x in store.labels(after=0)] == ["second"]
        assert desk.undo() is not None
        assert store.retire(older_than=1000, now=clock.now + 91) == 1
        store.check()


def test_what_a_pack_holds_is_not_retired_until_it_is_due(tmp_path: Path) -> None:
    store, asked = filled(tmp_path)
    with store:
        about = {"id": "1" * 64, "queries": [asked[0].id]}
        with store.writing(answers=False):
            store.register.note_pack(**about, rater="ann", made=0.0)
            store.queue.lend(about["id"], about["queries"], now=0.0, seconds=1e6)
        assert store.retire(older_than=1000, now=1.0) == 2
        assert store.retire(older_than=1000, now=2e6) == 1


def test_only_the_last_twenty_answers_of_this_sitting_can_be_undone(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 24)
    with store:
        before = sit(store)
        before.submit(before.take(1)[0], FIRST, None)
        desk = sit(store)
        assert desk.undo() is None
        for _ in range(22):
            desk.submit(desk.take(1)[0], FIRST, None)
        undone = [desk.undo() for _ in range(21)]
        assert undone[20] is None
        assert all(undone[:20])


def test_a_skipped_query_goes_to_others(tmp_path: Path) -> None:
    store, (a,) = filled(tmp_path, 1)
    with store, sit(store) as ann, sit(store, "bob") as bob:
        ann.skip(ann.take()[0])
        assert ann.take() == []
        assert ids(bob.take()) == [a.id]
        assert store.counts()["skips"] == 1


def test_a_query_that_two_raters_flag_is_asked_no_more(tmp_path: Path) -> None:
    store, (a,) = filled(tmp_path, 1)
    with store:
        desks = [sit(store, name) for name in ("ann", "bob", "eve")]
        (first,) = desks[0].take()
        desks[0].flag(first, "black\x1b[0m")
        desks[0].flag(first, "twice")
        assert desks[0].take() == []
        (second,) = desks[1].take()
        assert second.query == a
        desks[1].flag(second, "")
        assert desks[2].take() == []
        assert [(x.kind, x.rater, x.note) for x in store.acts()] == [
            ("flag", "ann", "black[0m"),
            ("flag", "bob", ""),
        ]
        store.check()


def control(query: Query, purpose: str) -> Query:
    expected = '{"choice": "first"}'
    return dataclasses.replace(query, purpose=purpose, expected=expected)  # type: ignore[arg-type]


def test_practice_comes_first_and_says_what_is_right(tmp_path: Path) -> None:
    store, asked = filled(tmp_path, 5)
    with store, sit(store, practice=2) as desk:
        store.add_queries([control(q, "practice") for q in asked[:3]])
        got = []
        for _ in range(4):
            (one,) = desk.take(1)
            got.append(one.query)
            desk.submit(one, FIRST, None)
        assert [q.purpose for q in got] == ["practice", "practice", "normal", "normal"]
        assert got[0].right == FIRST
        assert [x.query.purpose for x in store.labels(after=0)] == ["normal"] * 2


def answered(store: FeedbackStore, desk: Desk, count: int) -> list[Assignment]:
    got = []
    for _ in range(count):
        got += desk.take(1)
        desk.submit(got[-1], FIRST, None)
    return got


def test_a_twentieth_is_gold_and_a_twentieth_is_repeated_sides_swapped(tmp_path: Path) -> None:
    store, asked = filled(tmp_path, 200)
    with store, sit(store, gold_share=0.05, repeat_share=0.05) as desk:
        store.add_queries([control(q, "gold") for q in asked[:30]])
        got = answered(store, desk, 200)
        by = {p: [a for a in got if a.query.purpose == p] for p in ("gold", "repeat", "normal")}
        assert len(by["gold"]) in (9, 10, 11)
        assert len(by["repeat"]) in (9, 10, 11)
        assert all(a.query.expected == "" for a in by["gold"])
        place = {a.query.id: (i, a) for i, a in enumerate(got)}
        assert len({a.query.repeat_of for a in by["repeat"]}) == len(by["repeat"])
        for repeat in by["repeat"]:
            before, original = place[repeat.query.repeat_of]
            assert place[repeat.query.id][0] - before > 10
            assert repeat.query.segments == original.query.segments
            assert repeat.order == original.order[::-1]
        assert len(store.labels(after=0)) == len(by["normal"])
        store.check()


def test_sides_are_a_fair_coin_of_rater_and_query(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 400, need=2)
    with store:
        left = {}
        for name in ("ann", "bob"):
            left[name] = {a.query.id: a.order for a in answered(store, sit(store, name), 400)}
    swapped = [sum(o == (1, 0) for o in orders.values()) for orders in left.values()]
    assert all(160 < n < 240 for n in swapped)  # 4 standard deviations of 10
    same = sum(left["ann"][q] == left["bob"][q] for q in left["ann"])
    assert 160 < same < 240


def test_one_rater_answers_so_many_of_a_window_and_others_the_rest(tmp_path: Path) -> None:
    store = FeedbackStore.create(tmp_path, task="Dot", seed=7)
    segments = [segment((float(i), 0.0), t0=i) for i in range(12)]
    asked = [ask(segments[2 * i], segments[2 * i + 1], step=100 * (i % 2)) for i in range(6)]
    with store:
        store.add_segments(segments)
        store.add_queries(asked)
        ann = sit(store, per_window_cap=2)
        assert [a.query.policy_step for a in ann.take(10)] == [100, 100, 0, 0]
        assert ann.progress().waiting == 0
        assert len(sit(store, "bob", per_window_cap=2).take(10)) == 2


def test_progress_says_where_rater_and_run_stand(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 10)
    clock = Clock()
    with store, sit(store, clock=clock) as desk:
        empty = desk.progress()
        assert (empty.due, empty.behind, empty.heartbeat_age, empty.per_hour) == (None,) * 4
        assert (empty.answered, empty.waiting) == (0, 10)
        store.beat(step=5, labels_due=7, labels=0, now=clock.now)
        for _ in range(5):
            clock.now += 6
            desk.submit(desk.take(1)[0], FIRST, None)
        got = desk.progress()
        assert (got.answered, got.answered_today, got.labels, got.due) == (5, 5, 5, 7)
        assert (got.behind, got.waiting, got.heartbeat_age) == (2, 4, 30.0)  # one is leased
        assert got.per_hour == pytest.approx(600)
        clock.now += 48 * 3600
        assert desk.progress().answered_today == 0


def test_progress_counts_only_what_can_be_trained_on(tmp_path: Path) -> None:
    store, asked = filled(tmp_path, 6)
    edit = dataclasses.replace(asked[0], form="edit", segments=asked[0].segments[:1])
    with store, sit(store) as desk:
        for choice in ("first", "tie", "cannot", "skip"):
            desk.submit(desk.take(1)[0], Comparison(choice=choice), None)  # type: ignore[arg-type]
        assert desk.progress().labels == 2
        store.add_queries([dataclasses.replace(edit, priority=9.0)])
        desk.leave()
        (one,) = desk.take(1)
        desk.submit(one, Edit(text="better"), None)
        assert desk.progress().labels == 2  # nobody has read it yet
        (*_, label) = store.feedback()
        store.add_edited(label.seq, segment((3.0,), t0=99))
        assert desk.progress().labels == 3
        assert desk.progress().labels == sum(x.trainable for x in store.labels(after=0))


def test_an_answer_and_the_next_query_are_one_commit(tmp_path: Path) -> None:
    store, asked = filled(tmp_path, 6)
    with store, FeedbackStore.open(tmp_path) as other, sit(store) as desk:
        (one, two, three) = desk.take(3)
        desk.submit(one, FIRST, None)
        assert [x.query for x in other.queue.held("ann")] == [*ids([two, three]), asked[2].id]
        with other.writing():  # nobody else can write now
            assert desk.take(3)[:2] == [two, three]
        desk.flag(two, "")
        desk.skip(three)
        with other.writing():
            assert ids(desk.take(3)) == [asked[2].id, asked[1].id, asked[0].id]
        desk.leave()
        desk.submit(two, FIRST, None)
        assert other.queue.held("ann") == []  # who has left is given nothing


def test_a_sitting_says_which_instructions_the_rater_agreed_to_and_when(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    clock = Clock()
    with store:
        sit(store, "bob")  # was not asked
        store.set_instructions("nearer is better")
        known = store.set_instructions("faster is better")
        desk = Desk(store, rater="ann", clock=clock, agreed=known)
        (consent,) = store.consents()
        assert (consent.session, consent.version, consent.time) == (desk.session, 2, clock.now)
        assert consent.text_sha == hashlib.sha256(b"faster is better").hexdigest()
        store.check()
        store.forget("ann")
        assert store.consents() == []
        assert [s["rater"] for s in store.sessions()] == ["bob"]


def test_a_name_that_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    with store, pytest.raises(UserError, match="rater: got"):
        sit(store, "ann\x1b[0m")


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"lease_seconds": 0}, {"gold_share": 0.9}, {"practice": -1}, {"prefetch": 0}):
        with pytest.raises(UserError, match="desk"):
            DeskConfig(**wrong)  # type: ignore[arg-type]
