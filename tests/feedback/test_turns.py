"""Writers take turns: one at a time, and nobody waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.feedback import FeedbackStore
from prefrl.feedback.turns import Turns
from tests.feedback.helpers import filled
from tests.feedback.test_store import answer


def test_a_turn_may_be_nested_and_excludes_others(tmp_path: Path) -> None:
    mine, theirs = (Turns(tmp_path / "lock", seconds=0.01) for _ in range(2))
    with mine.turn() as got, mine.turn() as nested:
        assert got
        assert nested
        with theirs.turn() as second:
            assert not second
    with theirs.turn() as second:
        assert second
        with mine.turn() as got:
            assert not got


def test_whoever_waits_is_next(tmp_path: Path) -> None:
    mine, theirs = (Turns(tmp_path / "lock", seconds=30.0) for _ in range(2))
    order: list[str] = []

    def wait() -> None:
        with theirs.turn() as got:
            assert got
            order.append("theirs")

    with mine.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        order.append("mine")
    thread.join()
    assert order == ["mine", "theirs"]
    with mine.turn() as got:
        assert got


def test_a_writer_that_never_gives_way_is_complained_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, queries = filled(tmp_path)
    monkeypatch.setattr("prefrl.feedback.database.WAIT_SECONDS", 0.01)
    with store, FeedbackStore.open(tmp_path) as other:
        with store._labels.turn(), pytest.raises(UserError, match="another process: stop it"):
            other.submit_many([answer(queries[0])])
    with FeedbackStore.open(tmp_path) as other:
        assert other.submit_many([answer(queries[0])]) == ["ok"]
