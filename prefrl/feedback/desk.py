"""One rater's place at a store: what to answer next, and what was answered.

    with FeedbackStore.open("runs/pong") as store, Desk(store, rater="ann") as desk:
        for assignment in desk.take():
            desk.submit(assignment, Comparison(choice="first"), viewing)

Everything goes through the databases, so any number of raters may sit at desks of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Self

from prefrl.errors import UserError
from prefrl.feedback.ledger import Outcome
from prefrl.feedback.queue import Lease
from prefrl.feedback.records import (
    Answer,
    Assignment,
    Instructions,
    Query,
    Viewing,
    asked_again,
    check_name,
    sha256_of,
)
from prefrl.feedback.replies import Comparison, Reply
from prefrl.feedback.store import FeedbackStore

UNDOABLE = 20  # answers of this sitting that can still be undone
REPEAT_AFTER = 10  # answers before one is asked again
REPEAT_AMONG = 200  # older ones are not repeated
PACE_OF = 20  # newest answers
BREAK_SECONDS = 300.0  # between two answers


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskConfig:
    """How raters are served."""

    lease_seconds: float = 90.0
    """A query is kept for a rater who shows no sign of life for this long, then it is free."""
    gold_share: float = 0.05
    """Of a rater's items: their right answer is known."""
    repeat_share: float = 0.05
    """Of a rater's items: asked before, sides swapped."""
    practice: int = 8
    """Practice items before the first real one, as far as there are any."""
    per_window_cap: int | None = None
    """Most answers by one rater to queries of one step of the run, so that one fast rater does
    not answer for one region of states alone."""
    prefetch: int = 2
    """Queries leased at once, so that the next clip is drawn in time."""

    def __post_init__(self) -> None:
        for name in ("lease_seconds", "prefetch"):
            if not getattr(self, name) > 0:
                raise UserError(f"desk.{name}: got {getattr(self, name)}, wanted more than 0")
        for name in ("gold_share", "repeat_share"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise UserError(f"desk.{name}: got {getattr(self, name)}, wanted 0 to 0.5")
        if self.practice < 0:
            raise UserError(f"desk.practice: got {self.practice}, wanted 0 or more")
        if self.per_window_cap is not None and self.per_window_cap < 1:
            raise UserError(f"desk.per_window_cap: got {self.per_window_cap}, wanted 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a rater and the run stand."""

    answered: int
    """By this rater, ever."""
    answered_today: int
    """By this rater, since midnight."""
    labels: int
    """Trainable ones by everybody."""
    due: int | None
    """Labels the schedule wants by now; None where no trainer has ever run."""
    per_hour: float | None
    """This rater's pace over the last answers of this sitting, without breaks and without jumps
    of the clock; None before the second."""
    heartbeat_age: float | None
    """Seconds since the trainer's last sign of life. One in the future, by a clock that has been
    set back since, is as old as it is far: a living trainer soon gives another."""
    behind: int | None
    """Labels due that nobody has given."""
    waiting: int
    """Open queries that this rater could be given."""
    open: int
    """All of them."""


class Desk:
    """A sitting of one rater.

    Args:
        store: owned by the caller.
        clock: seconds since 1970; all desks of a store go by clocks that agree.
        app: name and version of what the rater uses; stored with the sitting.
        agreed: the instructions that the rater knew when agreeing to take part; stored with the
            moment. None where nobody was asked.

    Raises:
        UserError: a name that cannot be printed.
    """

    def __init__(
        self,
        store: FeedbackStore,
        *,
        rater: str,
        config: DeskConfig | None = None,
        clock: Callable[[], float] = time.time,
        app: str = "",
        agreed: Instructions | None = None,
    ) -> None:
        try:
            check_name("rater", rater)
        except ValueError as error:
            raise UserError(str(error)) from None
        self.store, self.rater, self.config = store, rater, config or DeskConfig()
        self.clock, self._queue, self._ledger = clock, store.queue, store.ledger
        self._salt = sha256_of("sides", store.task, store.seed)
        self._wanted = 0  # leases that this rater is to hold
        self.session = secrets.token_hex(8)
        store.write_session(
            id=self.session, rater=rater, app=app[:128], started=clock(), agreed=agreed
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    # ---- queries ----------------------------------------------------------------------

    def take(self, count: int | None = None) -> list[Assignment]:
        """Up to `count` (or `prefetch`) leased queries, oldest first.

        What this rater holds already comes first, so that a viewer that has crashed goes on
        where it was. Fewer where there is nothing else to ask. As many are held from now on:
        what answers one query grants the next, so that after an answer this only reads.
        """
        self._wanted, now = count or self.config.prefetch, self.clock()
        with self.store.moment():
            held = self._queue.held(self.rater)
            if len(held) >= self._wanted and all(lease.lives(now) for lease in held):
                return self._assignments(held)
        with self.store.writing(answers=False):
            return self._assignments(self._filled(now))

    def heartbeat(self) -> None:
        """The rater is there: leases last another `lease_seconds`."""
        with self.store.writing(answers=False):
            self._renewed(self.clock(), living_too=True)

    def leave(self) -> None:
        """Give everything back."""
        self._wanted = 0
        with self.store.writing(answers=False):
            self._queue.release(self.rater)

    # ---- answers ----------------------------------------------------------------------

    def submit(self, assignment: Assignment, reply: Reply, viewing: Viewing | None) -> Outcome:
        """Store an answer; when this returns it is safe. It needs no living lease.

        The next query is leased in the same transaction: a commit waits for the disk.

        Returns:
            "ok"; "dup" if it was sent before; "extra" or "stale" if it came too late, and is
            kept all the same.
        """
        now = self.clock()
        answer = Answer(
            # one lease may be on two screens, where two sit down under one name
            id=sha256_of("answer", assignment.token, self.session),
            query=assignment.query.id,
            rater=self.rater,
            reply=reply,
            session=self.session,
            viewing=viewing,
            time=now,
        )
        with self.store.writing():
            outcome = self._ledger.submit(answer)
            self._filled(now)
        return outcome

    def skip(self, assignment: Assignment) -> None:
        """Pass over a query: others may answer it, this rater is not asked again."""
        self.submit(assignment, Comparison(choice="skip"), None)

    def flag(self, assignment: Assignment, note: str) -> None:
        """Say that a query is broken; once several raters say so it is asked no more."""
        id, now = assignment.query.id, self.clock()
        with self.store.writing():
            self._queue.drop(id, self.rater)
            about = {"rater": self.rater, "session": self.session}
            self._ledger.flag(id, **about, time=now, note=note)
            self._filled(now)

    def undo(self) -> Assignment | None:
        """Withdraw the newest answer among the last 20 of this sitting, and lease it again."""
        now = self.clock()
        with self.store.writing():
            newest = self._ledger.undoable(self.rater, self.session, last=UNDOABLE)
            if newest is None:
                return None
            id, query = newest
            self._ledger.undo(id, rater=self.rater, time=now)
            held = self._queue.held(self.rater)
            place = held[0].place - 1 if held else 0
            lease = self._grant(query, place=place, now=now)
        return self._assignment(lease)

    def progress(self) -> Progress:
        """Where this rater and the run stand."""
        now = self.clock()
        times = self._ledger.times(self.rater)
        recent = self._ledger.times(self.rater, session=self.session)[-PACE_OF:]
        beat, labels = self.store.last_beat(), self._ledger.trainable()
        cap = self.config.per_window_cap
        return Progress(
            answered=len(times),
            answered_today=sum(moment >= _midnight(now) for moment in times),
            labels=labels,
            due=beat.labels_due if beat else None,
            per_hour=_pace(recent),
            heartbeat_age=abs(now - beat.time) if beat else None,
            behind=max(beat.labels_due - labels, 0) if beat else None,
            waiting=self._queue.waiting(self.rater, now=now, cap=cap),
            open=self._queue.size(),
        )

    # ---- inside -----------------------------------------------------------------------

    def _filled(self, now: float) -> list[Lease]:
        """What this rater holds, once it is as much as is wanted."""
        held = self._renewed(now, living_too=False)
        while len(held) < self._wanted:
            query = self._next(now)
            if query is None:
                break
            place = held[-1].place + 1 if held else 0
            held.append(self._grant(query, place=place, now=now))
        return held

    def _renewed(self, now: float, *, living_too: bool) -> list[Lease]:
        """What this rater holds; an expired lease is renewed, unless somebody else took over."""
        self._queue.end_those_of_the_future(now)
        kept = []
        for lease in self._queue.held(self.rater):
            if lease.lives(now) and not living_too:
                kept.append(lease)
            elif lease.lives(now) or self._queue.may_hold(lease.query, self.rater, now=now):
                expires = now + self.config.lease_seconds
                kept.append(dataclasses.replace(lease, granted=now, expires=expires))
                self._queue.grant(kept[-1])
            else:
                self._queue.drop(lease.query, self.rater)
        return kept

    def _grant(self, query: str, *, place: int, now: float) -> Lease:
        lease = Lease(
            query=query,
            rater=self.rater,
            token=secrets.token_hex(16),
            place=place,
            granted=now,
            expires=now + self.config.lease_seconds,
        )
        self._queue.grant(lease)
        return lease

    def _assignments(self, held: Sequence[Lease]) -> list[Assignment]:
        return [self._assignment(lease) for lease in held[: self._wanted]]

    def _assignment(self, lease: Lease) -> Assignment:
        query = self._queue.query(lease.query)
        shown = dataclasses.replace(query, expected="") if query.purpose == "gold" else query
        order = screen_order(query, salt=self._salt, rater=self.rater)
        return Assignment(query=shown, token=lease.token, order=order, expires=lease.expires)

    def _next(self, now: float) -> str | None:
        """Practice first, then what is due of gold and repeats, then an open query."""
        shares = self._queue.shares(self.rater)
        if shares.get("practice", 0) < self.config.practice:
            practice = self._queue.next_control(self.rater, "practice")
            if practice:
                return practice
        if self._due("gold", self.config.gold_share, shares):
            gold = self._queue.next_control(self.rater, "gold")
            if gold:
                return gold
        if self._due("repeat", self.config.repeat_share, shares):
            repeat = self._repeat(shares.get("repeat", 0))
            if repeat:
                return repeat
        return self._queue.next_normal(self.rater, now=now, cap=self.config.per_window_cap)

    def _due(self, purpose: str, share: float, shares: dict[str, int]) -> bool:
        """Would one more be too few? Each rater's count begins elsewhere, unforeseeably."""
        total = shares["all"] - shares.get("practice", 0)
        phase = _uniform(self._salt, self.rater, purpose)
        return int(total * share + phase) > shares.get(purpose, 0)

    def _repeat(self, made: int) -> str | None:
        """Ask again what this rater answered a while ago."""
        among = self._queue.repeatable(self.rater, distance=REPEAT_AFTER, last=REPEAT_AMONG)
        if not among:
            return None
        original = among[int(len(among) * _uniform(self._salt, self.rater, made))]
        repeat = asked_again(self._queue.query(original))
        self._queue.add(repeat)
        return repeat.id


def screen_order(query: Query, *, salt: str, rater: str) -> tuple[int, ...]:
    """Place on the screen -> index in `query.segments`; a repeat turns its original round."""
    asked = query.repeat_of or query.id
    places = range(len(query.segments))
    order = sorted(places, key=lambda i: sha256_of("order", salt, asked, rater, i))
    return tuple(reversed(order) if query.repeat_of else order)


def _pace(times: Sequence[float]) -> float | None:
    """Answers an hour."""
    gaps = [b - a for a, b in pairwise(times) if 0 < b - a <= BREAK_SECONDS]
    return 3600 * len(gaps) / sum(gaps) if gaps else None


def _uniform(*parts: object) -> float:
    """A number from 0 to below 1 that depends on the parts alone."""
    digest = hashlib.sha256(sha256_of(*parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _midnight(now: float) -> float:
    day = time.localtime(now)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))
