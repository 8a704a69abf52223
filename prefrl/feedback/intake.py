"""Answers from a table into a store: each only once, and none of a table with a fault in it.

The whole table is tried out on a copy first, then stored in pieces, so that raters need not wait
for all of it. Cut short between two pieces, it goes on where it was when it is taken in again.

What a row says is believed only as far as the store bears it out: its segments must be there,
its query must have the id that its content gives, and whether it counts (ok, extra, stale) is
decided by the run that takes it in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from prefrl.errors import UserError
from prefrl.feedback.entries import Entry
from prefrl.feedback.files import at
from prefrl.feedback.reading import Reading
from prefrl.feedback.records import Answer, Label
from prefrl.feedback.replies import Edit
from prefrl.feedback.store import FeedbackStore

AT_ONCE = 200  # entries in one transaction: a rater waits for a fraction of a second


@dataclass(slots=True)
class Taken:
    """How many rows came to what."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str) -> None:
        """One more."""
        self.counts[what] = self.counts.get(what, 0) + 1

    @property
    def text(self) -> str:
        """One line.

        >>> Taken({"ok": 3, "dup": 2}).text
        '3 new answers; 2 known already'
        """
        words = {
            "ok": "new answers",
            "extra": "new, but their queries had all their answers",
            "stale": "new, but their queries are retired",
            "flag": "queries flagged as broken",
            "withdrawn": "answers withdrawn",
            "dup": "known already",
        }
        said = [
            f"{self.counts[name]:,} {text}" for name, text in words.items() if self.counts.get(name)
        ]
        return "; ".join(said) or "nothing new"


def take_in(
    store: FeedbackStore,
    entries: Sequence[Entry],
    *,
    file: Path,
    check: Callable[[Entry], None] = lambda _: None,
) -> Taken:
    """Store what is new.

    Args:
        file: named in complaints.
        check: raises a ValueError where an entry is not to be taken in.

    Raises:
        UserError: an entry does not fit the store; nothing was stored.
    """
    events = [_Event(e.seq, False, e.line, e) for e in entries]
    events += [_Event(e.withdrawn, True, e.line, e) for e in entries if e.withdrawn]
    events.sort(key=lambda event: event[:3])
    with store.rehearsal() as copy:
        _happen(copy, events, Taken(), file=file, check=check)
    taken = Taken()
    for start in range(0, len(events), AT_ONCE):
        with store.writing():
            piece = events[start : start + AT_ONCE]
            _happen(store, piece, taken, file=file, check=check)
    return taken


class _Event(NamedTuple):
    """An entry is answered, or withdrawn; in the order of `seq`, answers first."""

    seq: int
    withdraws: bool
    line: int
    entry: Entry


def _happen(
    store: Reading,
    events: Sequence[_Event],
    taken: Taken,
    *,
    file: Path,
    check: Callable[[Entry], None],
) -> None:
    for event in events:
        try:
            if event.withdraws:
                _withdraw(store, event.entry, taken)
            else:
                check(event.entry)
                _store(store, event.entry, taken)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise at(file, event.line, error) from error


def _store(store: Reading, entry: Entry, taken: Taken) -> None:
    _ensure_query(store, entry)
    if entry.answer is None:
        rater, moment, note = entry.flag
        id, session = entry.query_id, ""
        news = store.ledger.flag(id, rater=rater, time=moment, note=note, session=session)
        taken.add("flag" if news else "dup")
        return
    known = store.ledger.find(entry.answer.id)
    if known:
        _check_same(known, entry.answer)
        taken.add("dup")
    else:
        if entry.session:
            rater, app, started = entry.session
            store.register.sit(id=entry.answer.session, rater=rater, app=app, started=started)
        if entry.consent:
            store.register.agree(entry.consent)
        taken.add(store.ledger.submit(entry.answer))
    if entry.edited:
        _note_edited(store, entry.answer, entry.edited)


def _ensure_query(store: Reading, entry: Entry) -> None:
    query = entry.query
    if isinstance(query, str):
        known = store.query(query).segments
        if entry.segments not in ((), known):
            raise ValueError(f"segments: got {list(entry.segments)}, but {query} asks of {known}")
        return
    for segment in query.segments:
        if not store.archive.has(segment):
            raise ValueError(f"segments: {segment} is not in this run")
    if query.repeat_of:
        store.query(query.repeat_of)
    if query.purpose == "gold" and not query.expected and not store.queue.has(query.id):
        raise ValueError("expected: a gold query without its right answer")
    store.queue.add(query)


def _check_same(known: Label, answer: Answer) -> None:
    said = (known.query.id, known.rater, known.reply)
    if said != (answer.query, answer.rater, answer.reply):
        raise ValueError(f"answer: {answer.id} is in this run already, and says something else")


def _note_edited(store: Reading, answer: Answer, segment: str) -> None:
    if not isinstance(answer.reply, Edit):
        raise ValueError("edited: wanted only beside an edit")
    if not store.archive.has(segment):
        raise ValueError(f"edited: {segment} is not in this run")
    label = store.ledger.find(answer.id)
    assert label is not None
    store.ledger.edit_became(label.seq, segment)


def _withdraw(store: Reading, entry: Entry, taken: Taken) -> None:
    if entry.answer is None:
        return
    label = store.ledger.find(entry.answer.id)
    if label and label.live:
        store.ledger.undo(label.id, rater=label.rater, time=None)
        taken.add("withdrawn")
