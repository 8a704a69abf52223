"""Answers from a table into a store: all of them or none, and each only once.

What a row says is believed only as far as the store bears it out: its segments must be there,
its query must have the id that its content gives, and whether it counts (ok, extra, stale) is
decided by the run that takes it in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefrl.errors import UserError
from prefrl.feedback.entries import Entry
from prefrl.feedback.files import at
from prefrl.feedback.records import Answer, Label
from prefrl.feedback.replies import Edit
from prefrl.feedback.store import FeedbackStore


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
    """Store what is new, in one transaction.

    Args:
        file: named in complaints.
        check: raises a ValueError where an entry is not to be taken in.

    Raises:
        UserError: an entry does not fit the store; nothing was stored.
    """
    events = [(e.seq, 0, e.line, e) for e in entries]
    events += [(e.withdrawn, 1, e.line, e) for e in entries if e.withdrawn]
    taken = Taken()
    with store.writing():
        for _, withdraws, line, entry in sorted(events, key=lambda event: event[:3]):
            try:
                if withdraws:
                    _withdraw(store, entry, taken)
                else:
                    check(entry)
                    _store(store, entry, taken)
            except ValueError as error:
                if isinstance(error, UserError):
                    raise
                raise at(file, line, error) from error
    return taken


def _store(store: FeedbackStore, entry: Entry, taken: Taken) -> None:
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


def _ensure_query(store: FeedbackStore, entry: Entry) -> None:
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


def _note_edited(store: FeedbackStore, answer: Answer, segment: str) -> None:
    if not isinstance(answer.reply, Edit):
        raise ValueError("edited: wanted only beside an edit")
    if not store.archive.has(segment):
        raise ValueError(f"edited: {segment} is not in this run")
    label = store.ledger.find(answer.id)
    assert label is not None
    store.ledger.edit_became(label.seq, segment)


def _withdraw(store: FeedbackStore, entry: Entry, taken: Taken) -> None:
    if entry.answer is None:
        return
    label = store.ledger.find(entry.answer.id)
    if label and label.live:
        store.ledger.undo(label.id, rater=label.rater, time=None)
        taken.add("withdrawn")
