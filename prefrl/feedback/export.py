"""A run's answers as rows of the table in `columns`, with all that is known of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prefrl.feedback.columns import COLUMNS, FORMAT, Row
from prefrl.feedback.reading import Reading
from prefrl.feedback.records import Act, Consent, Label, Query, Viewing
from prefrl.feedback.replies import Comparison, Edit, Ranking, Rating, Reply, kind_of

BLANK: Row = {name: "" if column.kind == "text" else None for name, column in COLUMNS.items()}


def rows_of(store: Reading) -> Iterator[Row]:
    """One row for each answer, skip and flag, in order of arrival.

    Nothing hidden is in them: no true reward, no episode's end.
    """
    said: list[Label | Act] = [*store.ledger.replies(), *_flags(store)]
    about = _About(store)  # after what refers to it: beside a live run the tables grow
    for one in sorted(said, key=lambda one: one.seq):
        yield about.label(one) if isinstance(one, Label) else about.flag(one)


def _flags(store: Reading) -> list[Act]:
    return [act for act in store.acts() if act.kind == "flag"]


class _About:
    """What is looked up for every row."""

    def __init__(self, store: Reading) -> None:
        self._places = store.archive.places()
        self._sessions = {row["id"]: row for row in store.sessions()}
        self._consents: dict[str, Consent] = {c.session: c for c in store.consents()}
        self._queries = {query.id: query for query in store.queries()}
        self._run = {"run_task": store.task, "run_seed": store.seed, "format": FORMAT}

    def label(self, label: Label) -> Row:
        said = {
            "seq": label.seq,
            "answer": label.id,
            "kind": kind_of(label.reply),
            "status": label.status,
            "live": label.live,
            "withdrawn": label.withdrawn or None,
            "supersedes": label.supersedes,
            "rater": label.rater,
            "time": label.time,
            "edited": label.edited,
        }
        viewing = viewing_columns(label.viewing) if label.viewing else {}
        session = self._session(label.session) if label.session else {}
        reply = reply_columns(label.reply)
        return {**BLANK, **said, **reply, **viewing, **session, **self._asked(label.query)}

    def flag(self, act: Act) -> Row:
        said = {"seq": act.seq, "kind": "flag", "rater": act.rater, "time": act.time}
        return {**BLANK, **said, "note": act.note, **self._asked(self._queries[act.query])}

    def _asked(self, query: Query) -> Row:
        places = [self._places[segment] for segment in query.segments]
        of_segments: dict[str, Any] = {
            "segment_tasks": [p.task for p, _ in places],
            "segment_seeds": [p.seed for p, _ in places],
            "segment_policy_steps": [p.policy_step for p, _ in places],
            "segment_envs": [p.env for p, _ in places],
            "segment_episodes": [p.episode for p, _ in places],
            "segment_t0s": [p.t0 for p, _ in places],
            "segment_steps": [steps for _, steps in places],
        }
        return {**query_columns(query), **of_segments, **self._run}

    def _session(self, id: str) -> Row:
        found, consent = self._sessions.get(id), self._consents.get(id)
        row: Row = {"session": id}
        if found:
            row |= {"session_started": found["started"], "app": found["app"]}
        if consent:
            row |= {"consent_version": consent.version, "consent_sha256": consent.text_sha}
            row |= {"consent_time": consent.time}
        return row


def query_columns(query: Query) -> Row:
    """What a query says of itself."""
    return {
        "query": query.id,
        "form": query.form,
        "purpose": query.purpose,
        "need": query.need,
        "expected": query.expected,
        "repeat_of": query.repeat_of,
        "reason": query.reason,
        "priority": float(query.priority),
        "asked_at_step": query.policy_step,
        "segments": list(query.segments),
    }


def reply_columns(reply: Reply) -> Row:
    """The columns that hold the reply: one, or two of a choice with its probability."""
    if isinstance(reply, Comparison):
        return {"choice": reply.choice, "second": reply.second}
    if isinstance(reply, Ranking):
        return {"ranking": [list(group) for group in reply.order]}
    if isinstance(reply, Rating):
        return {"rating": reply.value}
    assert isinstance(reply, Edit)
    return {"edit": reply.text}


def viewing_columns(viewing: Viewing) -> Row:
    """How it was seen."""
    return {
        "shown": list(viewing.order),
        "key": viewing.key,
        "response_seconds": float(viewing.seconds),
        "first_frame_seconds": float(viewing.first_frame_seconds),
        "loops": float(viewing.loops),
        "speed": float(viewing.speed),
        "note": viewing.note,
        "instructions": viewing.instructions,
    }
