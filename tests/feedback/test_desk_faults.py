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


def test_a_clock_set_back_a_little_frees_nothing(tmp_path: Path) -> None:
    store, _ = filled(tmp_path, 1)
    clock = Clock()
    with store:
        sit(store, clock=clock).take()
        clock.now -= 5
        assert sit(store, "bob", clock=clock).take() == []


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
