"""A rating pack at the rater's: unpacked into a run directory, and its answers into a file."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

from prefrl.errors import UserError
from prefrl.feedback.bundle import Bundle, write_bundle
from prefrl.feedback.entries import query_of
from prefrl.feedback.errors import DamagedSegment
from prefrl.feedback.export import rows_of
from prefrl.feedback.files import json_rows
from prefrl.feedback.packs import (
    ANSWERS,
    PACK,
    PackAbout,
    check_free,
    read_about,
    without_hidden,
)
from prefrl.feedback.pictures import read_pictures
from prefrl.feedback.records import Instructions, Query
from prefrl.feedback.replies import plain_text
from prefrl.feedback.segment import decode_segment
from prefrl.feedback.store import FeedbackStore

NOTE = "pack.json"
MAX_UNPACKED = 8 * 2**30  # bytes of all segments together, once unpacked
AT_ONCE = 64  # segments in one transaction
MAX_TEXT = 64 * 2**10


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


def unpack(file: Path) -> Path:
    """The run directory of a pack, beside it: made now, or found where it was made before.

    Raises:
        UserError: the file is refused, or something else lies there; nothing has been made.
    """
    target = file.with_suffix("")
    with Bundle(file, kind=PACK) as bundle:
        about = read_about(bundle)
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
        waiting.append(without_hidden(segment))
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
            if read_about(earlier) != about:
                raise UserError(f"{out} holds answers to another pack: name another with --out")
    else:
        check_free(out)
    rows = list(rows_of(store))
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    content = {"prefrl": ANSWERS, "format": 1, **dataclasses.asdict(about)}
    write_bundle(out, content, [("answers.jsonl", lines)])
    return len(rows)
