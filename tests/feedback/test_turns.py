"""Writers take turns: one at a time, and nobody waits for ever."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from prefrl.errors import UserError
from prefrl.feedback import FeedbackStore
from prefrl.feedback.mirror import Mirror
from prefrl.feedback.turns import IN_ORDER, NUMBERS, Turns
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


def drawn(path: Path) -> int:
    """How many numbers have been drawn."""
    return int(NUMBERS.unpack(path.read_bytes()[: NUMBERS.size])[0])


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end


@pytest.mark.skipif(not IN_ORDER, reason="the system has no locks of an open file")
def test_first_come_first_served(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", list[str]()

    def wait(name: str) -> None:
        with Turns(path, seconds=30.0).turn() as got:
            assert got
            order.append(name)

    threads = [threading.Thread(target=wait, args=(name,)) for name in "abc"]
    mine = Turns(path, seconds=30.0)
    with mine.turn():
        for place, thread in enumerate(threads):
            thread.start()
            until(lambda n=place + 2: drawn(path) == n)  # type: ignore[misc]
    with mine.turn():  # at once, and yet after those who have waited
        order.append("mine")
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "mine"]


@pytest.mark.skipif(not IN_ORDER, reason="the system has no locks of an open file")
def test_who_dies_in_line_lets_nobody_in_too_early_and_keeps_nobody_out(tmp_path: Path) -> None:
    path, entered = tmp_path / "lock", threading.Event()

    def die_waiting() -> None:
        Turns(path, seconds=30.0).turn().__enter__()

    def wait() -> None:
        with Turns(path, seconds=30.0).turn() as got:
            assert got
            entered.set()

    mine = Turns(path, seconds=30.0)
    with mine.turn():
        dying = multiprocessing.get_context("fork").Process(target=die_waiting)
        dying.start()
        until(lambda: drawn(path) == 2)
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: drawn(path) == 3)
        dying.kill()
        dying.join()
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()


def test_a_writer_that_never_gives_way_is_complained_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, queries = filled(tmp_path)
    monkeypatch.setattr("prefrl.feedback.database.WAIT_SECONDS", 0.01)
    refused = pytest.raises(UserError, match="another process: stop it")
    with store, FeedbackStore.open(tmp_path) as other, store._labels.turn(), refused:
        other.submit_many([answer(queries[0])])
    with FeedbackStore.open(tmp_path) as other:
        assert other.submit_many([answer(queries[0])]) == ["ok"]


def write_without_pause(directory: Path, done: threading.Event) -> None:
    """Nobody can read but between two of these."""
    with FeedbackStore.open(directory) as store:
        handle = store._labels._handle
        while not done.is_set():
            with store._labels.turn():
                handle.execute("BEGIN EXCLUSIVE")
                done.wait(0.02)
                handle.execute("COMMIT")


def test_a_reader_gets_a_turn_among_writers_that_never_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = filled(tmp_path)
    done = threading.Event()
    writers = [
        threading.Thread(target=write_without_pause, args=(tmp_path, done)) for _ in range(2)
    ]
    with store:
        for writer in writers:
            writer.start()
        monkeypatch.setattr("prefrl.feedback.database.WAIT_SECONDS", 2.0)
        try:
            for _ in range(5):
                assert store.open_queries() == 3
                with FeedbackStore.open(tmp_path) as other:  # opening reads too
                    assert other.open_queries() == 3
        finally:
            done.set()
            for writer in writers:
                writer.join()


def test_the_mirror_is_locked_by_whose_turn_it_is_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who waits for a turn with the mirror locked, and one whose turn it is and who waits for
    the mirror, would wait for ever."""
    free, locked = [], Mirror._locked

    def watched(mirror: Mirror) -> AbstractContextManager[BinaryIO]:
        with Turns(tmp_path / "labels.lock", seconds=0.0).turn() as got:
            free.append(got)
        return locked(mirror)

    monkeypatch.setattr(Mirror, "_locked", watched)
    store, queries = filled(tmp_path)
    with store:
        store.submit_many([answer(queries[0])])
        store.forget("ann")
    FeedbackStore.open(tmp_path).close()
    assert free == [False] * 4  # created, answered, forgotten, opened
