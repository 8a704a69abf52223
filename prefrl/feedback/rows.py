"""Records as rows of the databases, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prefrl.feedback.records import Act, Answer, Label, Query, Viewing, sha256_of
from prefrl.feedback.replies import FORMS, Comparison, kind_of, read_reply, reply_json
from prefrl.feedback.schema import clip_sha, row_sha
from prefrl.feedback.segment import Segment, encode_view

SKIP = reply_json(Comparison(choice="skip"))
CANNOT = reply_json(Comparison(choice="cannot"))
NOTHING = "{}"  # what acts that are no answers store


def _real(value: float | None) -> float | None:
    """As the database will give it back, so that its hash is the same: 5 -> 5.0."""
    return None if value is None else float(value)


def hashed(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` with its hash."""
    return {**row, "row_sha": row_sha(row)}


def clip_row(segment: Segment) -> dict[str, Any]:
    """Of `clip`."""
    view = encode_view(segment)
    sha = clip_sha(segment.id, view, segment.clip)
    return {"id": segment.id, "view": view, "recipe": segment.clip, "sha256": sha}


def segment_row(segment: Segment) -> dict[str, Any]:
    """Of `segment_ref`."""
    return hashed(
        {
            "id": segment.id,
            **asdict(segment.provenance),
            "steps": len(segment),
            "ended": int(segment.ended),
            "true_reward": segment.true_reward.astype("<f8").tobytes(),
        }
    )


def query_row(query: Query) -> dict[str, Any]:
    """Of `query`; what is usual is NULL, as in rows of the first schema."""
    return hashed(
        {
            "id": query.id,
            "segments": json.dumps(query.segments),
            "policy_step": query.policy_step,
            "reason": query.reason,
            "priority": float(query.priority),
            "form": None if query.form == "comparison" else query.form,
            "need": None if query.need == 1 else query.need,
            "purpose": None if query.purpose == "normal" else query.purpose,
            "expected": query.expected or None,
            "repeat_of": query.repeat_of or None,
        }
    )


def read_query(row: Any) -> Query:
    """The inverse of `query_row`."""
    return Query(
        segments=tuple(json.loads(row["segments"])),
        policy_step=row["policy_step"],
        reason=row["reason"],
        priority=row["priority"],
        form=row["form"] or "comparison",
        need=row["need"] or 1,
        purpose=row["purpose"] or "normal",
        expected=row["expected"] or "",
        repeat_of=row["repeat_of"] or "",
    )


def label_row(answer: Answer, *, seq: int, status: str | None, live: bool) -> dict[str, Any]:
    """Of `label`."""
    return hashed(
        {
            "seq": seq,
            "id": answer.id,
            "query": answer.query,
            "rater": answer.rater,
            "kind": kind_of(answer.reply),
            "answer": reply_json(answer.reply),
            "live": int(live),
            "session": answer.session or None,
            "viewing": json.dumps(asdict(answer.viewing)) if answer.viewing else None,
            "supersedes": answer.supersedes or None,
            "time": _real(answer.time),
            "status": status,
        }
    )


def act_row(kind: str, *, seq: int, query: str, rater: str, **more: Any) -> dict[str, Any]:
    """Of `label`, for what is no answer."""
    row = {"answer": NOTHING, "live": 0, **more}
    if "time" in row:
        row["time"] = _real(row["time"])
    id = sha256_of("act", kind, seq)
    return hashed({"seq": seq, "id": id, "query": query, "rater": rater, "kind": kind, **row})


def read_label(row: Any, query: Query, edited: str = "") -> Label:
    """A label from the row of an answer."""
    return Label(
        seq=row["seq"],
        id=row["id"],
        query=query,
        rater=row["rater"],
        reply=read_reply(row["kind"], row["answer"]),
        session=row["session"] or "",
        viewing=read_viewing(row["viewing"]) if row["viewing"] else None,
        supersedes=row["supersedes"] or "",
        time=row["time"],
        status=row["status"] or "ok",
        live=bool(row["live"]),
        withdrawn=row["ended"] or 0,
        edited=edited,
    )


def read_viewing(text: str) -> Viewing:
    """A viewing from its JSON.

    Raises:
        ValueError: it is none.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or set(data) != set(Viewing.__dataclass_fields__):
        raise ValueError(f"viewing: got {text[:80]!r}, wanted {list(Viewing.__dataclass_fields__)}")
    if not isinstance(data["order"], list) or not isinstance(data["key"], str):
        raise ValueError(f"viewing: got {text[:80]!r}, wanted a list of places and a key")
    return Viewing(**{**data, "order": tuple(data["order"])})


def is_answer(row: Any) -> bool:
    """Is this row of `label` a reply? Else it is an act."""
    return row["kind"] in FORMS and row["answer"] != SKIP


def read_act(row: Any) -> Act:
    """An act from a row that is no answer."""
    return Act(
        seq=row["seq"],
        kind="skip" if row["answer"] == SKIP else row["kind"],
        query=row["query"],
        rater=row["rater"],
        time=row["time"],
        note=json.loads(row["answer"]).get("note", ""),
    )


def mirror_row(row: Mapping[str, Any], query: Query) -> dict[str, Any]:
    """One line of `labels.jsonl`: all that a row of `label` says, and what was asked."""
    names = ("seq", "id", "query", "rater", "kind", "live", "session", "supersedes", "time")
    about = {name: row[name] for name in (*names, "status") if row[name] is not None}
    viewing = {"viewing": json.loads(row["viewing"])} if row["viewing"] else {}
    asked = {"segments": query.segments, "policy_step": query.policy_step}
    return {**about, **json.loads(row["answer"]), **asked, **_unusual(query), **viewing}


def _unusual(query: Query) -> dict[str, Any]:
    plain = {"form": "comparison", "purpose": "normal", "need": 1, "repeat_of": "", "expected": ""}
    got = {name: getattr(query, name) for name in plain}
    return {name: value for name, value in got.items() if value != plain[name]}
