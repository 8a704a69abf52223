"""Rating packs: queries and clips for a rater on another machine, and the answers back.

    prefrl pack RUN --out ann.zip      queries and clips, nothing hidden
    prefrl rate ann.zip                at the rater's: unpacked into a store, answers into a file
    prefrl merge RUN ann-answers.zip   checked against what went out

Both files are bundles of JSON and segments, never databases.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.bundle import Bundle, write_bundle
from prefrl.feedback.entries import Entry, query_of, read_entries
from prefrl.feedback.errors import DamagedSegment
from prefrl.feedback.export import query_columns, rows_of
from prefrl.feedback.files import json_rows
from prefrl.feedback.intake import Taken, take_in
from prefrl.feedback.pictures import encode_pictures, read_pictures
from prefrl.feedback.records import Instructions, Query, asked_again, check_name, is_id
from prefrl.feedback.register import PackNote
from prefrl.feedback.replies import plain_text
from prefrl.feedback.segment import Segment, decode_segment, encode_segment
from prefrl.feedback.store import FeedbackStore

PACK, ANSWERS = "rating pack", "rating answers"
NOTE = "pack.json"
GOLD_SHARE = 0.05  # of a pack's queries, as a desk would ask
PRACTICE = 8
MAX_UNPACKED = 8 * 2**30  # bytes of all segments together, once unpacked
AT_ONCE = 64  # segments in one transaction
MAX_TEXT = 64 * 2**10
README = """A rating pack of prefrl: clips, and questions about them.

    pip install prefrl
    prefrl rate {name}

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


def make_pack(store: FeedbackStore, out: Path, *, count: int, rater: str) -> int:
    """Write what is next for a rater into a file; returns how many queries it holds.

    Args:
        count: of normal queries, at most.
        rater: for whom; "": for anybody.

    Raises:
        UserError: nothing is open, or `out` is there or cannot be.
    """
    _check_free(out)
    queries = _next(store, count, rater)
    if not queries:
        raise UserError(f"no query of {store.directory} is open: nothing to pack")
    about = PackAbout(id=secrets.token_hex(32), rater=rater, task=store.task, seed=store.seed)
    ids = [query.id for query in queries]
    with store.writing(answers=False):  # first: a pack that nobody remembers is worth nothing
        store.register.note_pack(id=about.id, rater=rater, queries=ids, made=time.time())
    told = dataclasses.asdict(store.instructions())
    content = {"prefrl": PACK, "format": 1, **dataclasses.asdict(about), "instructions": told}
    write_bundle(out, content, _members(store, queries, out))
    return len(queries)


def _next(store: FeedbackStore, count: int, rater: str) -> list[Query]:
    normal = store.queue.upcoming(rater, now=time.time(), cap=None, count=count)
    if not normal:
        return []
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
        yield f"segments/{id}", encode_segment(_without_hidden(store.segment(id)))
        pictures = store.pictures(id)
        if pictures is not None:
            yield f"pictures/{id}", encode_pictures(pictures)


def _without_hidden(segment: Segment) -> Segment:
    """Raters' machines hold no score; the id does not depend on it."""
    nothing = np.zeros(len(segment))
    return dataclasses.replace(segment, true_reward=nothing, ended=False)


# ---- at the rater's -------------------------------------------------------------------


def unpack(file: Path) -> Path:
    """The run directory of a pack, beside it: made now, or found where it was made before.

    Raises:
        UserError: the file is refused, or something else lies there; nothing has been made.
    """
    target = file.with_suffix("")
    with Bundle(file, kind=PACK) as bundle:
        about = _about(bundle)
        if (target / NOTE).is_file():
            if read_note(target) == about:
                return target
        elif not target.exists():
            _build(bundle, about, target)
            return target
    raise UserError(f"{target} exists and is not of {file}: move it, or rename the pack")


def _build(bundle: Bundle, about: PackAbout, target: Path) -> None:
    started = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with FeedbackStore.create(started, task=about.task, seed=about.seed) as store:
            _fill(store, bundle)
        (started / NOTE).write_text(json.dumps(dataclasses.asdict(about), indent=1))
        os.replace(started, target)
    finally:
        shutil.rmtree(started, ignore_errors=True)


def _fill(store: FeedbackStore, bundle: Bundle) -> None:
    try:
        told, queries = _instructions(bundle.about), _queries(bundle)
        wanted = {segment for query in queries for segment in query.segments}
        if {f"segments/{id}" for id in wanted} != {*bundle.names("segments/")}:
            bundle.refuse("its segments are not those of its queries")
        _fill_segments(store, bundle)
        with store.writing(answers=False):
            for query in queries:
                store.queue.add(query)
            if told.version:
                store.register.keep_instructions(told)
    except (DamagedSegment, ValueError) as error:
        if isinstance(error, UserError):
            raise
        bundle.refuse(error)


def _fill_segments(store: FeedbackStore, bundle: Bundle) -> None:
    total, waiting = 0, []
    for name in bundle.names("segments/"):
        segment = decode_segment(bundle.read(name))
        total += segment.observations.nbytes + segment.actions.nbytes
        if f"segments/{segment.id}" != name or segment.provenance.task != store.task:
            bundle.refuse(f"{name} is not the segment that it is called after")
        if total > MAX_UNPACKED:
            bundle.refuse(f"its segments are larger than {MAX_UNPACKED >> 30} GB")
        waiting.append(_without_hidden(segment))
        if len(waiting) == AT_ONCE:
            store.add_segments(waiting)
            waiting = []
    store.add_segments(waiting)
    for name in bundle.names("pictures/"):
        id = name.removeprefix("pictures/")
        pictures = read_pictures(bundle.read(name))
        if not store.archive.has(id):
            bundle.refuse(f"{name} is of no segment")
        store.archive.add_pictures(id, pictures)


def _queries(bundle: Bundle) -> list[Query]:
    lines = bundle.read("queries.jsonl").splitlines()
    queries = [query_of(row) for _, row in json_rows(lines, bundle.path / "queries.jsonl")]
    found = [query for query in queries if isinstance(query, Query)]
    if not found or len(found) < len(queries):
        raise ValueError("queries.jsonl: wanted whole queries")
    if len({query.id for query in found}) < len(found):
        raise ValueError("queries.jsonl: a query twice")
    return found


def _about(bundle: Bundle) -> PackAbout:
    names = PackAbout.__dataclass_fields__
    try:
        return PackAbout(**{name: bundle.about.get(name) for name in names})  # type: ignore[arg-type]
    except ValueError as error:
        bundle.refuse(error)


def _instructions(about: dict[str, object]) -> Instructions:
    told = about.get("instructions")
    if not isinstance(told, dict) or set(told) != {"version", "text"}:
        raise ValueError("instructions: wanted a version and a text")
    version, text = told["version"], told["text"]
    if type(version) is not int or not 0 <= version < 2**31:
        raise ValueError(f"instructions: got version {str(version)[:80]}, wanted 0 or more")
    if not isinstance(text, str) or len(text) > MAX_TEXT or plain_text(text) != text:
        raise ValueError(f"instructions: wanted up to {MAX_TEXT} characters that can be printed")
    return Instructions(version=version, text=text)


# ---- back -----------------------------------------------------------------------------


def is_pack(directory: Path) -> bool:
    """Is this run directory an unpacked pack?"""
    return (directory / NOTE).is_file()


def read_note(directory: Path) -> PackAbout:
    """What an unpacked pack says of itself.

    Raises:
        UserError: the note is damaged.
    """
    path = directory / NOTE
    try:
        return PackAbout(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): unpack the pack anew") from error


def answers_path(pack: Path) -> Path:
    """Where the answers to a pack are written: `ann.zip` or `ann/` -> `ann-answers.zip`."""
    name = pack.stem if pack.suffix.lower() == ".zip" else pack.name
    return pack.with_name(f"{name}-answers.zip")


def pack_answers(store: FeedbackStore, out: Path) -> int:
    """Write the answers given in an unpacked pack, in the place of an earlier such file.

    Returns:
        How many rows it were.

    Raises:
        UserError: something else is there.
    """
    about = read_note(store.directory)
    if out.exists():
        with Bundle(out, kind=ANSWERS) as earlier:
            if _about(earlier) != about:
                raise UserError(f"{out} holds answers to another pack: name another with --out")
    else:
        _check_free(out)
    rows = list(rows_of(store))
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    content = {"prefrl": ANSWERS, "format": 1, **dataclasses.asdict(about)}
    write_bundle(out, content, [("answers.jsonl", lines)])
    return len(rows)


def merge(store: FeedbackStore, file: Path) -> Taken:
    """Take the answers to a pack into the run that it was made of; what is known is left alone.

    Raises:
        UserError: the file is refused; nothing was stored.
    """
    with Bundle(file, kind=ANSWERS) as bundle:
        about = _about(bundle)
        if bundle.names() != ["answers.jsonl"]:
            bundle.refuse(f"it holds {bundle.names()}, wanted answers.jsonl alone")
        note = store.register.pack(about.id)
        if note is None or (about.task, about.seed) != (store.task, store.seed):
            bundle.refuse(f"no pack {about.id[:16]} was made of {store.directory}")
        lines = bundle.read("answers.jsonl").splitlines()
    where = file / "answers.jsonl"
    entries = read_entries(json_rows(lines, where), file=where)
    return take_in(store, entries, file=where, check=lambda e: _check(store, note, e))


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


def _check_free(out: Path) -> None:
    if out.suffix.lower() != ".zip":
        raise UserError(f"--out: got {out}, wanted a name ending in .zip")
    if out.exists():
        raise UserError(f"{out} exists: remove it, or name another file with --out")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no directory: make it, or name another file with --out")
