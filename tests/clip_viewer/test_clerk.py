"""The thread that talks to the store."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from clip_viewer.control.clerk import Clerk
from prefrl.errors import UserError


@contextmanager
def shop():
    yield SimpleNamespace(library=None, task="x")


def until(clerk, done, seconds=10.0):
    """Poll until something has happened."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        clerk.poll()
        time.sleep(0.001)
    assert done()


def test_work_is_done_elsewhere_and_results_come_back_here_in_order():
    clerk, got = Clerk(shop), []
    for i in range(20):
        clerk.call(lambda _, i=i: (i, threading.get_ident()), got.append)
    until(clerk, lambda: len(got) == 20)
    assert [i for i, _ in got] == list(range(20))
    assert threading.get_ident() not in {thread for _, thread in got}
    assert clerk.close(seconds=5)


def test_what_failed_is_done_again_before_what_came_after():
    clerk, told, got, broken = Clerk(shop), [], [], [True]
    clerk.trouble = told.append

    def work(_):
        if broken[0]:
            raise UserError("the disk is full")
        return "first"

    clerk.call(work, got.append)
    clerk.call(lambda _: "second", got.append)
    until(clerk, lambda: told)
    clerk.retry()
    until(clerk, lambda: len(told) == 2)
    assert got == []
    broken[0] = False
    clerk.retry()
    until(clerk, lambda: len(got) == 2)
    assert got == ["first", "second"]
    assert clerk.close(seconds=5)


def test_a_run_that_cannot_be_opened_is_trouble_and_can_be_tried_again():
    broken, told, got = [True], [], []

    @contextmanager
    def opener():
        if broken[0]:
            raise UserError("labels.db was locked")
        with shop() as place:
            yield place

    clerk = Clerk(opener)
    clerk.trouble = told.append
    clerk.call(lambda seat: seat.place.task, got.append)
    until(clerk, lambda: told)
    broken[0] = False
    clerk.retry()
    until(clerk, lambda: got)
    assert (str(told[0]), got) == ("labels.db was locked", ["x"])
    clerk.close(seconds=5)


def test_closing_finishes_what_was_asked():
    clerk, done = Clerk(shop), []
    for i in range(5):
        clerk.call(lambda _, i=i: (time.sleep(0.02), done.append(i)))
    assert clerk.close(seconds=5)
    assert done == [0, 1, 2, 3, 4]


def test_closing_in_trouble_says_that_something_is_left():
    clerk, told = Clerk(shop), []
    clerk.trouble = told.append

    def fails(_):
        raise UserError("full")

    clerk.call(fails)
    clerk.call(fails)
    until(clerk, lambda: told)
    assert not clerk.close(seconds=5)


def test_the_place_is_closed_in_the_thread_that_opened_it():
    seen = []

    @contextmanager
    def opener():
        seen.append(threading.get_ident())
        yield SimpleNamespace(library=None, task="x")
        seen.append(threading.get_ident())

    Clerk(opener).close(seconds=5)
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_a_mistake_of_the_program_is_not_hidden():
    clerk = Clerk(shop)
    clerk.call(lambda _: {}["x"])
    with pytest.raises(KeyError):
        until(clerk, lambda: False)
