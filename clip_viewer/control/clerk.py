"""Carries requests to the store in a thread of its own, so that the window never waits."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from prefrl.errors import UserError

from .desk import Opener, Seat

T = TypeVar("T")
TROUBLE = (UserError, OSError, sqlite3.Error)
"""What can go wrong with a store through no fault of the program."""


@dataclass(frozen=True, slots=True)
class Job:
    """A request, and what to do with its result."""

    work: Callable[[Seat], Any]
    then: Callable[[Any], None]


class Clerks(Protocol):
    """What carries requests to the store: `Clerk`, or one that works at once."""

    trouble: Callable[[BaseException], None]
    """Told when the store cannot be used."""

    def call(self, work: Callable[[Seat], T], then: Callable[[T], None] = ...) -> None: ...
    def poll(self) -> None: ...
    def retry(self) -> None: ...


class Clerk:
    """Requests are done in order, one at a time; results come back in `poll`.

    When one fails because of the store, `trouble` is told, and the clerk waits with it and with
    all that came after until `retry`: so nothing is lost and nothing overtakes.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self.trouble: Callable[[BaseException], None] = _raise
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._outbox: SimpleQueue[tuple[Job | None, Any]] = SimpleQueue()
        self._again = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[Seat], T], then: Callable[[T], None] = lambda _: None) -> None:
        """Do `work` in the clerk's thread, and `then` in the one that polls."""
        self._inbox.put(Job(work, then))

    def poll(self) -> None:
        """Hand out what has been done since."""
        while not self._outbox.empty():
            job, result = self._outbox.get()
            if not isinstance(result, BaseException):
                assert job is not None
                job.then(result)
            elif isinstance(result, TROUBLE):
                self.trouble(result)
            else:
                raise result

    def retry(self) -> None:
        """Do again what failed."""
        self._again.set()

    def close(self, *, seconds: float) -> bool:
        """Finish what was asked, at most that long; was all done?"""
        self._inbox.put(None)
        self._stopping = True
        self._again.set()
        self._thread.join(seconds)
        return not self._thread.is_alive() and self._inbox.empty()

    # ---- in the thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    with self._opener() as place:
                        return self._serve(Seat(place))
                except TROUBLE as error:
                    self._report(None, error)
        except BaseException as error:
            self._outbox.put((None, error))

    def _serve(self, seat: Seat) -> None:
        while (job := self._inbox.get()) is not None:
            while not self._done(job, seat):
                if self._stopping:
                    return

    def _done(self, job: Job, seat: Seat) -> bool:
        try:
            self._outbox.put((job, job.work(seat)))
        except TROUBLE as error:
            self._report(job, error)
            return False
        return True

    def _report(self, job: Job | None, error: BaseException) -> None:
        self._again.clear()
        self._outbox.put((job, error))
        if not self._stopping:
            self._again.wait()


def _raise(error: BaseException) -> None:
    raise error
