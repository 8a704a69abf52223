"""What one row of an answers' table says, checked by itself."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrl.feedback.columns import FORMAT, Row
from prefrl.feedback.files import Numbered, at
from prefrl.feedback.records import Answer, Consent, Query, Viewing, answer_id, check_name
from prefrl.feedback.replies import Comparison, Edit, Ranking, Rating, Reply, kind_of, plain_text

REPLIES = ("choice", "ranking", "rating", "edit")
SEEN = ("key", "response_seconds", "first_frame_seconds", "loops", "speed")
CLOCK_SLACK = 86_400.0  # seconds by which a rater's clock may be ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one row says."""

    line: int
    seq: int
    """Its place in the order of events: the row's own, or the line."""
    query: Query | str
    """What was asked, or its id where the row does not say all of it."""
    segments: tuple[str, ...]
    """() where the row does not say."""
    answer: Answer | None
    """None: a flag."""
    flag: tuple[str, float | None, str]
    """(rater, time, note) of a flag."""
    session: tuple[str, str, float] | None
    """(rater, app, started) of a sitting."""
    consent: Consent | None
    withdrawn: int
    """Place in the order of events of what withdrew it; 0: nothing did."""
    edited: str

    @property
    def rater(self) -> str:
        """Who says so."""
        return self.answer.rater if self.answer else self.flag[0]

    @property
    def query_id(self) -> str:
        """Of what was asked."""
        return self.query if isinstance(self.query, str) else self.query.id


def read_entries(rows: Iterable[Numbered], *, file: Path) -> list[Entry]:
    """What the rows of a file say, each by itself.

    Raises:
        UserError: a row makes no sense; its line is named.
    """
    entries = []
    for line, row in rows:
        try:
            entries.append(_entry(line, row))
        except ValueError as error:
            raise at(file, line, error) from error
    return entries


def _entry(line: int, row: Row) -> Entry:
    if row["format"] not in (None, FORMAT):
        raise ValueError(f"format: got {row['format']}, wanted {FORMAT}: update prefrl")
    rater = row["rater"]
    check_name("rater", rater)
    for name in ("time", "session_started", "consent_time"):
        _check_time(name, row[name])
    query = query_of(row)
    flag = row["kind"] == "flag"
    answer = None if flag else _answer(row, query if isinstance(query, str) else query.id)
    session, consent = _sitting(row)
    seq, withdrawn = _place("seq", row["seq"]) or line, _place("withdrawn", row["withdrawn"])
    if 0 < withdrawn <= seq:
        raise ValueError(f"withdrawn: got {withdrawn}, wanted more than its seq, {seq}")
    return Entry(
        line=line,
        seq=seq,
        query=query,
        segments=tuple(row["segments"] or ()),
        answer=answer,
        flag=(rater, row["time"], row["note"]),
        session=session,
        consent=consent,
        withdrawn=withdrawn,
        edited=row["edited"],
    )


def query_of(row: Row) -> Query | str:
    """What a row asks, or its id where the row does not say all of it.

    Raises:
        ValueError: that makes no sense.
    """
    form: Any = row["form"] or ("" if row["kind"] == "flag" else kind_of(_reply(row)))
    named = bool(row["query"]) and row["asked_at_step"] is None
    if row["segments"] is None or named:
        if not row["query"]:
            raise ValueError("query: got none, wanted its id, or segments")
        return str(row["query"])
    query = Query(
        segments=tuple(row["segments"]),
        policy_step=row["asked_at_step"] or 0,
        reason=plain_text(row["reason"]) or "import",
        priority=row["priority"] or 0.0,
        form=form,
        need=row["need"] or 1,
        purpose=row["purpose"] or "normal",
        expected=row["expected"],
        repeat_of=row["repeat_of"],
    )
    if row["query"] not in ("", query.id):
        raise ValueError(
            f"query: got {row['query'][:80]!r}, but what it asks has the id {query.id}"
        )
    return query


def _answer(row: Row, query: str) -> Answer:
    reply = _reply(row)
    if row["kind"] not in ("", kind_of(reply)):
        raise ValueError(f"kind: got {row['kind'][:80]!r}, but the reply is a {kind_of(reply)}")
    return Answer(
        id=row["answer"] or answer_id(query, row["rater"]),
        query=query,
        rater=row["rater"],
        reply=reply,
        session=row["session"],
        viewing=_viewing(row),
        supersedes=row["supersedes"],
        time=row["time"],
    )


def _reply(row: Row) -> Reply:
    given = [name for name in REPLIES if row[name] not in (None, "")]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise ValueError(f"reply: got {got}, wanted one of {', '.join(REPLIES)}")
    value = row[given[0]]
    if row["second"] is not None and given[0] != "choice":
        raise ValueError(f"second: got {row['second']}, wanted it beside choice alone")
    if given[0] == "choice":
        return Comparison(choice=value, second=row["second"])
    if given[0] == "ranking":
        return Ranking(order=tuple(tuple(group) for group in value))
    return Rating(value=value) if given[0] == "rating" else Edit(text=value)


def _viewing(row: Row) -> Viewing | None:
    if row["shown"] is None:
        if row["note"]:
            raise ValueError("note: wanted only beside shown, key, response_seconds, ...")
        return None
    missing = [name for name in SEEN if row[name] is None]
    if missing:
        raise ValueError(f"{missing[0]}: got none, wanted it beside `shown`")
    return Viewing(
        order=tuple(row["shown"]),
        key=row["key"],
        seconds=row["response_seconds"],
        first_frame_seconds=row["first_frame_seconds"],
        loops=row["loops"],
        speed=row["speed"],
        note=row["note"],
        instructions=row["instructions"] or 0,
    )


def _sitting(row: Row) -> tuple[tuple[str, str, float] | None, Consent | None]:
    id, started = row["session"], row["session_started"]
    if not id or started is None:
        return None, None
    check_name("session", id)
    session = (row["rater"], plain_text(row["app"])[:128], started)
    if row["consent_version"] is None:
        return session, None
    sha, moment = row["consent_sha256"], row["consent_time"]
    if len(sha) != 64 or set(sha) - set("0123456789abcdef") or moment is None:
        raise ValueError("consent_sha256: wanted 64 hexadecimal digits, and consent_time")
    version = _place("consent_version", row["consent_version"])
    return session, Consent(session=id, version=version, text_sha=sha, time=moment)


def _place(name: str, value: int | None) -> int:
    if value is not None and value < 0:
        raise ValueError(f"{name}: got {value}, wanted 0 or more")
    return value or 0


def _check_time(name: str, value: float | None) -> None:
    latest = time.time() + CLOCK_SLACK
    if value is not None and not 0 <= value <= latest:
        raise ValueError(
            f"{name}: got {value:.0f} seconds since 1970, wanted at most {latest:.0f}, tomorrow: "
            "the rater's clock was wrong; correct the column or leave it empty"
        )
