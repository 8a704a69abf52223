"""Many desks at once, kills, a jumping clock and a full disk: small here, at full size in
`benchmarks/rater_faults.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rater_faults import kill_raters, stress
from prefrl.feedback import Comparison, Desk, DiskFull
from tests.feedback.helpers import filled
from tests.feedback.test_desk import FIRST, Clock, seen, sit


def test_eight_raters_never_give_more_answers_than_needed(tmp_path: Path) -> None:
    load = stress(tmp_path / "load", raters=8, claims=6, need=2)
    assert load.too_many == 0
    assert load.answers == load.read == load.outcomes["ok"]
    assert load.answers >= 40  # of 48: at the end two raters may hold one query


def test_killed_raters_lose_and_double_nothing(tmp_path: Path) -> None:
    told, lost, doubled = kill_raters(tmp_path / "kills", kills=3, seed=1, raters=2)
    assert told > 0
    assert (lost, doubled) == (0, 0)


def answer_all(desk: Desk, acknowledged: list[str]) -> None:
    for _ in range(200):
        (one,) = desk.take(1)
        desk.submit(one, FIRST, seen(one))
        acknowledged.append(one.query.id)


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_an_hour_costs_a_second_asking_at_most(tmp_path: Path, jump: float) -> None:
    store, (a,) = filled(tmp_path, 1)
    clock = Clock()
    with store:
        ann, bob = sit(store, clock=clock), sit(store, "bob", clock=clock)
        (mine,) = ann.take()
        clock.now += jump
        (theirs,) = bob.take()  # not in an hour: now
        assert mine.query == theirs.query == a
        assert bob.submit(theirs, FIRST, None) == "ok"
        assert ann.submit(mine, Comparison(choice="tie"), None) == "extra"
        assert ann.submit(mine, Comparison(choice="tie"), None) == "dup"
        assert len(store.answers()) == 2


@pytest.mark.parametrize(("seconds", "free"), [(5, 0), (9.9, 0), (10.1, 1), (3600, 1)])
def test_a_clock_set_back_a_little_frees_nothing(tmp_path: Path, seconds: float, free: int) -> None:
    store, _ = filled(tmp_path, 1)
    clock = Clock()
    with store:
        sit(store, clock=clock).take()
        clock.now -= seconds
        bob = sit(store, "bob", clock=clock)
        assert bob.progress().waiting == free
        assert len(bob.take()) == free


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
@pytest.mark.parametrize("sign", ["heartbeat", "take"])
def test_a_sign_of_life_after_a_jump_keeps_what_nobody_took(
    tmp_path: Path, jump: float, sign: str
) -> None:
    store, (a,) = filled(tmp_path, 1)
    clock = Clock()
    with store:
        ann, bob = sit(store, clock=clock), sit(store, "bob", clock=clock)
        ann.take()
        clock.now += jump
        getattr(ann, sign)()
        assert bob.take() == []
        clock.now += 89  # a lease of 90 s, by the new time
        assert bob.take() == []
        clock.now += 2
        assert [x.query for x in bob.take()] == [a]


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_what_somebody_took_after_a_jump_stays_theirs(tmp_path: Path, jump: float) -> None:
    store, _ = filled(tmp_path, 1)
    clock = Clock()
    with store:
        ann, bob = sit(store, clock=clock), sit(store, "bob", clock=clock)
        ann.take()
        clock.now += jump
        (theirs,) = bob.take()
        ann.heartbeat()
        assert ann.take() == []
        bob.heartbeat()
        assert bob.take() == [theirs]


def test_a_lease_from_a_clock_that_was_ahead_never_comes_to_life(tmp_path: Path) -> None:
    store, (a,) = filled(tmp_path, 1)
    clock = Clock()
    with store:
        clock.now += 3600
        sit(store, clock=clock).take()  # and is gone
        clock.now -= 3600
        with sit(store, "bob", clock=clock) as bob:
            assert [x.query for x in bob.take()] == [a]
        clock.now += 3600 + 20  # its hour has come
        assert [x.query for x in sit(store, "eve", clock=clock).take()] == [a]


def test_a_lease_renewed_before_the_clock_was_set_back_is_over_as_well(tmp_path: Path) -> None:
    store, (a,) = filled(tmp_path, 1)
    clock = Clock()
    with store:
        ann, bob = sit(store, clock=clock), sit(store, "bob", clock=clock)
        ann.take()
        clock.now += 7200
        ann.heartbeat()
        clock.now -= 3600  # to a time after the first grant
        assert [x.query for x in bob.take()] == [a]


def test_an_answer_is_undone_whatever_the_clock_says(tmp_path: Path) -> None:
    store, (a,) = filled(tmp_path, 1)
    clock = Clock()
    with store:
        ann, bob = sit(store, clock=clock), sit(store, "bob", clock=clock)
        ann.submit(ann.take()[0], FIRST, None)
        clock.now -= 3600
        again = ann.undo()
        assert again is not None
        assert (again.query, again.expires) == (a, clock.now + 90)
        assert bob.take() == []
        assert store.labels(after=0) == []


def test_progress_does_not_believe_a_clock_that_jumped(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 9)
    clock = Clock()
    with store, sit(store, clock=clock) as ann:
        store.beat(step=0, labels_due=1, labels=0, now=clock.now)
        for jump in (6, 6, 3600, 6, -3600, 6):
            clock.now += jump
            ann.submit(ann.take(1)[0], FIRST, None)
        assert ann.progress().per_hour == pytest.approx(600)  # three gaps of 6 s
        store.beat(step=0, labels_due=1, labels=0, now=clock.now + 3600)
        assert ann.progress().heartbeat_age == 3600  # before the clock was set back: a dead one


def test_a_full_disk_keeps_what_was_acknowledged_and_the_same_answer_can_be_sent_again(
    tmp_path: Path,
) -> None:
    store, _ = filled(tmp_path, 200)
    with store, sit(store) as desk:
        handle = store._labels._handle
        handle.execute("PRAGMA max_page_count = 1")  # as many as there are: no room to grow
        acknowledged: list[str] = []
        with pytest.raises(DiskFull, match="8 MB has been freed"):
            answer_all(desk, acknowledged)
        assert 0 < len(acknowledged) < 200
        assert [x.query.id for x in store.labels(after=0)] == acknowledged
        handle.execute("PRAGMA max_page_count = 100000")
        (again,) = desk.take(1)
        assert desk.submit(again, FIRST, seen(again)) == "ok"
        store.check()
