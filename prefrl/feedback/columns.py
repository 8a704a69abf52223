"""Answers as a table that other programs read: what its columns are, and what may stand in them.

One row for each answer ever given, skips and flags included. The same columns in CSV, JSON
lines and Parquet.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from prefrl.errors import nearest

FORMAT = 1
MAX_TEXT = 256 * 2**10
MAX_ITEMS = 64
Kind = Literal["text", "int", "float", "bool", "texts", "ints", "groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column."""

    name: str
    kind: Kind
    """What stands in it; "groups" are lists of lists of ints, best first."""
    about: str


def _columns(*rows: tuple[str, Kind, str]) -> dict[str, Column]:
    return {name: Column(name=name, kind=kind, about=about) for name, kind, about in rows}


COLUMNS = _columns(
    ("format", "int", "version of these columns: 1"),
    ("seq", "int", "place in the order of arrival"),
    ("answer", "text", "id of the answer; none for flags"),
    ("kind", "text", "comparison, ranking, rating, edit; flag: the rater calls the query broken"),
    ("choice", "text", "first, second, tie, cannot or skip, counted as in `segments`"),
    ("second", "float", "probability that the second is better, of raters who give one"),
    ("ranking", "groups", "places in `segments`, best first, ties together: [[2], [0, 1]]"),
    ("rating", "int", "1 (worst) to 9 (best)"),
    ("edit", "text", "the corrected text"),
    ("note", "text", "what the rater wrote beside it"),
    ("status", "text", "ok; extra: the query had all its answers; stale: it was retired"),
    ("live", "bool", "false once undone, replaced or forgotten; and for skips"),
    ("withdrawn", "int", "seq of what undid, replaced or forgot it"),
    ("supersedes", "text", "answer that this one replaces"),
    ("rater", "text", "the name the rater chose"),
    ("time", "float", "seconds since 1970 when it was given"),
    ("session", "text", "the rater's sitting, a random id"),
    ("session_started", "float", "seconds since 1970"),
    ("app", "text", "what the rater used, with its version"),
    ("consent_version", "int", "instructions known when the rater agreed to take part"),
    ("consent_sha256", "text", "of what they said"),
    ("consent_time", "float", "seconds since 1970 when the rater agreed"),
    ("instructions", "int", "version that the rater had seen when answering"),
    ("shown", "ints", "place on the screen -> place in `segments`; [1, 0]: sides were swapped"),
    ("key", "text", "what was pressed"),
    ("response_seconds", "float", "from the first moment the clips played to the answer"),
    ("first_frame_seconds", "float", "from asking for the query to its first frame"),
    ("loops", "float", "how often the clips were played through"),
    ("speed", "float", "of playing when the answer was given"),
    ("query", "text", "id of the query"),
    ("form", "text", "what was asked for: comparison, ranking, rating or edit"),
    ("purpose", "text", "normal, gold, repeat or practice; only normal ones are trained on"),
    ("need", "int", "answers wanted"),
    ("expected", "text", "the right answer to gold and practice items, as JSON"),
    ("repeat_of", "text", "query that a repeat asks again"),
    ("reason", "text", "strategy that chose the query"),
    ("priority", "float", "higher ones were asked first"),
    ("asked_at_step", "int", "agent steps of the run when it was asked"),
    ("segments", "texts", "SHA-256 ids of what was shown"),
    ("segment_tasks", "texts", "of each segment: the task"),
    ("segment_seeds", "ints", "of each segment: seed of its run"),
    ("segment_policy_steps", "ints", "of each segment: agent steps when it was recorded"),
    ("segment_envs", "ints", "of each segment: which environment"),
    ("segment_episodes", "ints", "of each segment: episodes that environment had finished"),
    ("segment_t0s", "ints", "of each segment: steps of the episode before it"),
    ("segment_steps", "ints", "of each segment: its length"),
    ("edited", "text", "segment made of an edit"),
    ("run_task", "text", "task of the run"),
    ("run_seed", "int", "seed of the run"),
)  # fmt: skip
"""Name -> column, in order."""

Row = dict[str, Any]
"""Column name -> value; None, or "" in a text, where there is nothing."""
WANTED: dict[Kind, str] = {
    "text": "text",
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "texts": "a list of texts",
    "ints": "a list of whole numbers",
    "groups": "lists of places, as in [[2], [0, 1]]",
}


def check_names(names: list[str]) -> None:
    """Are these some of our columns, each once?

    Raises:
        ValueError: no.
    """
    for name in names:
        if name not in COLUMNS:
            hint = nearest(str(name), COLUMNS) or "see docs/feedback_files.md"
            raise ValueError(f"unknown column {str(name)[:80]!r}; {hint}")
        if names.count(name) > 1:
            raise ValueError(f"column {name!r} twice, wanted once")


def checked(name: str, value: Any) -> Any:
    """`value`, if it may stand in the column `name`.

    Raises:
        ValueError: it may not.
    """
    kind = COLUMNS[name].kind
    if value is None:
        return "" if kind == "text" else None
    if not _fits(kind, value):
        raise ValueError(f"{name}: got {str(value)[:80]!r}, wanted {WANTED[kind]}")
    return float(value) if kind == "float" else value


def _fits(kind: Kind, value: Any) -> bool:
    if kind == "text":
        return isinstance(value, str) and len(value) <= MAX_TEXT
    if kind == "int":
        return type(value) is int and abs(value) < 2**63
    if kind == "float":
        return type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value)
    if kind == "bool":
        return type(value) is bool
    item: Kind = {"texts": "text", "ints": "int", "groups": "ints"}[kind]  # type: ignore[assignment]
    whole = isinstance(value, list) and len(value) <= MAX_ITEMS
    return whole and all(_fits(item, one) for one in value)


# ---- as text, for CSV -----------------------------------------------------------------

FORMULA = "=+-@\t\r＝＋－＠'"


def to_cell(name: str, value: Any) -> str:
    """A value as text that no spreadsheet takes for a formula.

    >>> to_cell("note", "=1+1"), to_cell("note", "'quoted'"), to_cell("shown", [1, 0])
    ("'=1+1", "''quoted'", '[1, 0]')
    """
    if value is None:
        return ""
    kind = COLUMNS[name].kind
    if kind == "text":
        return f"'{value}" if value[:1] and value[0] in FORMULA else str(value)
    return json.dumps(value) if kind != "float" else repr(float(value))


def from_cell(name: str, text: str) -> Any:
    """The inverse of `to_cell`.

    Raises:
        ValueError: the text is no such value.
    """
    kind = COLUMNS[name].kind
    if kind == "text":
        quoted = len(text) > 1 and text[0] == "'" and text[1] in FORMULA
        return checked(name, text[1:] if quoted else text)
    if not text:
        return None
    if kind == "bool":
        value: Any = {"true": True, "false": False}.get(text.lower(), text)
    elif kind == "int":
        value = int(float(text)) if re.fullmatch(r"-?\d{1,15}(\.0)?", text) else text
    elif kind == "float":
        value = float(text) if re.fullmatch(r"[-+.\deE]{1,40}", text) else text
    else:
        value = from_json(text)
    return checked(name, value)


def from_json(text: str) -> Any:
    """Plain JSON: no NaN, no key twice, not nested beyond reason.

    Raises:
        ValueError: anything else.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"got {name}, wanted a finite number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice in one JSON object")
    return found
