"""Rating packs: queries and clips for a rater on another machine, and the answers back.

    prefrl pack RUN --out ann.zip      queries and clips, nothing hidden
    prefrl rate ann.zip                at the rater's: unpacked into a store, answers into a file
    prefrl merge RUN ann-answers.zip   checked against what went out

Both files are bundles of JSON and segments, never databases.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.bundle import Bundle, write_bundle
from prefrl.feedback.entries import Entry, read_entries
from prefrl.feedback.export import query_columns
from prefrl.feedback.files import json_rows
from prefrl.feedback.intake import Taken, take_in
from prefrl.feedback.pictures import encode_pictures
from prefrl.feedback.records import Query, asked_again, check_name, is_id
from prefrl.feedback.register import PackNote
from prefrl.feedback.segment import Segment, encode_segment
from prefrl.feedback.store import FeedbackStore

PACK, ANSWERS = "rating pack", "rating answers"
GOLD_SHARE = 0.05  # of a pack's queries, as a desk would ask
PRACTICE = 8
README = """A rating pack of prefrl: clips, and questions about them.

    prefrl rate {name}

with an installation of the version that made it (in a checkout: make install, then
.venv/bin/prefrl rate {name})

unpacks it beside itself and opens a window. When you close it, the answers are in
{answers}: send that file back. You may go on later with the same command.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackAbout:
    """What a pack says of itself."""

    id: str
    """Random: only who has the pack can answer it."""
    rater: str
    """For whom; "": for anybody."""
    task: str
    seed: int
    """Of the run."""

    def __post_init__(self) -> None:
        if not is_id(self.id):
            raise ValueError(f"pack: got {str(self.id)[:80]!r}, wanted 64 hexadecimal digits")
        check_name("task", self.task)
        if self.rater != "":
            check_name("rater", self.rater)
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: got {str(self.seed)[:80]}, wanted 0 or more")


# ---- out ------------------------------------------------------------------------------


def make_pack(
    store: FeedbackStore,
    out: Path,
    *,
    count: int,
    rater: str,
    seconds: float,
    now: float | None = None,
) -> int:
    """Write what is next for a rater into a file; returns how many queries it holds.

    Args:
        count: of normal queries, at most.
        rater: for whom; "": for anybody.
        seconds: for so long, at most, nobody else is asked these queries.
        now: seconds since 1970; None: what the clock says.

    Raises:
        UserError: nothing is open, or `out` is there or cannot be.
    """
    check_free(out)
    moment = time.time() if now is None else now
    about = PackAbout(id=secrets.token_hex(32), rater=rater, task=store.task, seed=store.seed)
    with store.writing(answers=False):  # first: a pack that nobody remembers is worth nothing
        queries = _next(store, count, rater, moment)
        ids = [query.id for query in queries]
        store.register.note_pack(id=about.id, rater=rater, queries=ids, made=moment)
        normal = [query.id for query in queries if query.purpose == "normal"]
        store.queue.lend(about.id, normal, now=moment, seconds=seconds)
    told = dataclasses.asdict(store.instructions())
    content = {"prefrl": PACK, "format": 1, **dataclasses.asdict(about), "instructions": told}
    try:
        write_bundle(out, content, _members(store, queries, out))
    except BaseException:
        with store.writing(answers=False):
            store.queue.release(about.id)
        raise
    return len(queries)


def _next(store: FeedbackStore, count: int, rater: str, now: float) -> list[Query]:
    normal = store.queue.upcoming(rater, now=now, cap=None, count=count)
    if not normal:
        raise UserError(f"no query of {store.directory} is free: nothing to pack")
    gold = store.queue.controls(rater, "gold", count=round(GOLD_SHARE * len(normal) + 0.5))
    practice = store.queue.controls(rater, "practice", count=PRACTICE)
    return [store.query(id) for id in (*practice, *gold, *normal)]


def _members(store: FeedbackStore, queries: list[Query], out: Path) -> Iterator[tuple[str, bytes]]:
    name = out.name
    answers = answers_path(out).name
    yield "README.txt", README.format(name=name, answers=answers).encode()
    shown = [dataclasses.replace(q, expected="") if q.purpose == "gold" else q for q in queries]
    lines = [json.dumps(query_columns(query)) + "\n" for query in shown]
    yield "queries.jsonl", "".join(lines).encode()
    for id in dict.fromkeys(segment for query in queries for segment in query.segments):
        yield f"segments/{id}", encode_segment(without_hidden(store.segment(id)))
        pictures = store.pictures(id)
        if pictures is not None:
            yield f"pictures/{id}", encode_pictures(pictures)


def without_hidden(segment: Segment) -> Segment:
    """Raters' machines hold no score; the id does not depend on it."""
    nothing = np.zeros(len(segment))
    return dataclasses.replace(segment, true_reward=nothing, ended=False)


def read_about(bundle: Bundle) -> PackAbout:
    """What a pack, or the answers to it, say of themselves.

    Raises:
        UserError: that makes no sense.
    """
    names = PackAbout.__dataclass_fields__
    try:
        return PackAbout(**{name: bundle.about.get(name) for name in names})  # type: ignore[arg-type]
    except ValueError as error:
        bundle.refuse(error)


# ---- back -----------------------------------------------------------------------------


def answers_path(pack: Path) -> Path:
    """Where the answers to a pack are written: `ann.zip` or `ann/` -> `ann-answers.zip`."""
    pack = pack.resolve() if pack.name in ("", "..") else pack  # of "." and ".."
    name = pack.stem if pack.suffix.lower() == ".zip" else pack.name
    return pack.with_name(f"{name}-answers.zip")


def merge(store: FeedbackStore, file: Path) -> Taken:
    """Take the answers to a pack into the run that it was made of; what is known is left alone.

    What the pack has left unanswered is asked at home again.

    Raises:
        UserError: the file is refused; nothing was stored.
    """
    with Bundle(file, kind=ANSWERS) as bundle:
        about = read_about(bundle)
        if bundle.names() != ["answers.jsonl"]:
            bundle.refuse(f"it holds {bundle.names()}, wanted answers.jsonl alone")
        note = store.register.pack(about.id)
        if note is None or (about.task, about.seed) != (store.task, store.seed):
            bundle.refuse(f"no pack {about.id[:16]} was made of {store.directory}")
        lines = bundle.read("answers.jsonl").splitlines()
    where = file / "answers.jsonl"
    entries = read_entries(json_rows(lines, where), file=where)
    taken = take_in(store, entries, file=where, check=lambda e: _check(store, note, e))
    with store.writing(answers=False):
        store.queue.release(about.id)
    return taken


def _check(store: FeedbackStore, note: PackNote, entry: Entry) -> None:
    """Is it an answer to what went out, by whom it went to?"""
    if note.rater and entry.rater != note.rater:
        raise ValueError(f"rater: got {entry.rater!r}, the pack was for {note.rater!r}")
    query = entry.query
    if isinstance(query, Query) and query.purpose == "repeat" and query.repeat_of in note.queries:
        original = store.query(query.repeat_of)
        if query == asked_again(original):
            return
    if entry.query_id not in note.queries:
        raise ValueError(f"query: {entry.query_id} was not in the pack")


def check_free(out: Path) -> None:
    """May a new file be written there?

    Raises:
        UserError: no.
    """
    if out.suffix.lower() != ".zip":
        raise UserError(f"--out: got {out}, wanted a name ending in .zip")
    if out.exists():
        raise UserError(f"{out} exists: remove it, or name another file with --out")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no directory: make it, or name another file with --out")
