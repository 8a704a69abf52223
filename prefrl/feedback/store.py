"""The one durable place for segments, queries and answers."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.database import Database, lock_of
from prefrl.feedback.errors import DamagedSegment, DiskFull
from prefrl.feedback.ledger import Ledger, Outcome
from prefrl.feedback.mirror import Mirror, check_not_behind
from prefrl.feedback.pictures import Pictures, encode_pictures, read_pictures
from prefrl.feedback.queue import Queue
from prefrl.feedback.records import Act, Answer, Changes, Instructions, Label, Query
from prefrl.feedback.reserve import FULL, Reserve
from prefrl.feedback.rows import clip_row, hashed, read_query, segment_row
from prefrl.feedback.schema import CLIPS, LABELS, clip_sha
from prefrl.feedback.segment import Segment, decode_view
from prefrl.feedback.text import Text, read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life of the trainer."""

    step: int
    labels_due: int
    labels: int
    """Trained on so far."""
    time: float
    """Seconds since 1970."""


class FeedbackStore:
    """`labels.db`, `clips.db` and the mirror `labels.jsonl` of a run directory.

    What a call has stored when it returns survives a kill, a power cut and a full disk. All
    calls that write may be repeated: what is there already is left alone. Hidden fields of
    segments lie in `labels.db`; `clips.db` holds what reward models and raters may see.

        with FeedbackStore.open("runs/pong") as store:
            for label in store.feedback():
                print(label.seq, label.rater, label.reply)
    """

    def __init__(self, directory: Path) -> None:
        """Use `create` or `open`."""
        self.directory = directory
        self._reserve = Reserve(directory)
        self._mirror = Mirror(directory / "labels.jsonl")
        free, had_clips = self._reserve.free, (directory / "clips.db").exists()
        self._labels = Database(directory / "labels.db", LABELS, on_full=free, create=False)
        try:
            if not had_clips and self.counts()["segments"]:
                raise UserError(f"no clips.db in {directory}: restore it, labels.db refers to it")
            self._clips = Database(directory / "clips.db", CLIPS, on_full=free, create=True)
            self.queue = Queue(self._labels)
            self.ledger = Ledger(self._labels, self.queue)
            last = self._mirror.last_seq()  # before the database: another process may append
            check_not_behind(self._mirror, last, self.ledger.newest())
            self._top_up()
            self._reserve.fill()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, directory: str | Path, *, task: str, seed: int) -> Self:
        """A new store; `directory` is made if missing.

        Raises:
            UserError: there is one already, or answers whose database is missing.
        """
        directory = Path(directory)
        path, started = directory / "labels.db", directory / "labels.db.new"
        if path.exists():
            raise UserError(f"{path} exists: open it, or give another run directory")
        if (directory / "labels.jsonl").exists():
            raise UserError(
                f"{directory} holds answers (labels.jsonl) without their labels.db: restore it, "
                "or give another run directory"
            )
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in (started, Path(f"{started}-journal")):  # of a creation that was cut off
            leftover.unlink(missing_ok=True)
        _create_labels(started, task, seed)
        os.replace(started, path)
        _sync_directory(directory)
        return cls(directory)

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """The store of a run directory.

        Raises:
            UserError: there is none, or another program's, or a newer version's.
            DamagedStore: it is broken.
        """
        directory = Path(directory)
        if not (directory / "labels.db").is_file():
            raise UserError(f"no labels.db in {directory}: give the directory of a run")
        return cls(directory)

    def close(self) -> None:
        """Close both databases."""
        self._labels.close()
        if hasattr(self, "_clips"):
            self._clips.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def task(self) -> str:
        """The task's id."""
        return str(self._labels.verified("run")[0]["task"])

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self._labels.verified("run")[0]["seed"])

    # ---- writing ----------------------------------------------------------------------

    def add_segments(self, segments: Sequence[Segment]) -> None:
        """Store segments; those that are there already are left alone."""
        new = {s.id: s for s in segments if not self._has(self._clips, "clip", s.id)}
        rows = [clip_row(segment) for segment in new.values()]
        if rows:  # clips first: one without a reference is harmless, the opposite is not
            with self._clips.transaction():
                for row in rows:
                    self._clips.insert("clip", row)
        if segments:
            with self._labels.transaction():
                for segment in segments:
                    self._labels.insert("segment_ref", segment_row(segment))

    def add_queries(self, queries: Sequence[Query]) -> None:
        """Store queries, whose segments must be stored; those that are there are left alone.

        Raises:
            ValueError: a segment is missing, or a gold item's answer; no query was stored.
        """
        if not queries:
            return
        with self._labels.transaction():
            for segment in {s for query in queries for s in query.segments}:
                if not self._has(self._labels, "segment_ref", segment):
                    raise ValueError(f"segment {segment} is not in the store: add_segments first")
            for query in queries:
                if query.purpose == "gold" and not query.expected:
                    raise ValueError(f"query {query.id} is gold and expects no answer")
                self.queue.add(query)

    def add_pictures(self, segment: str, frames: np.ndarray, *, fps: float) -> None:
        """Store what a rater sees of a segment as pictures, uint8 [T, H, W, 3]."""
        data = encode_pictures(Pictures(frames=frames, fps=fps))
        row = {"id": segment, "data": data, "sha256": clip_sha(segment, data, b"")}
        with self._clips.transaction():
            self._clips.insert("picture", row)

    def submit_many(self, answers: Sequence[Answer]) -> list[Outcome]:
        """Store answers, all in one transaction; when this returns they are safe.

        Returns:
            One outcome for each answer. Of two answers under one id the first holds.

        Raises:
            ValueError: a query is missing or wants another reply; no answer was stored.
        """
        if not answers:
            return []
        with self.writing():
            return [self.ledger.submit(answer) for answer in answers]

    def retire(self, *, older_than: int, reason: str = "stale") -> int:
        """Ask no more what was asked before this step of the run; returns how many it were."""
        with self._labels.transaction():
            ids = self.queue.older_than(older_than)
            for id in ids:
                self.queue.retire(id, reason)
        return len(ids)

    def add_edited(self, label: int, segment: Segment) -> None:
        """Say which segment came of the edit `label` (its `seq`): now it can be trained on."""
        self.add_segments([segment])
        with self._labels.transaction():
            self._labels.insert("edited", hashed({"label": label, "segment": segment.id}))

    def set_instructions(self, text: str) -> Instructions:
        """Append a version, unless the newest says the same."""
        with self._labels.transaction():
            newest = self.instructions()
            if newest.text == text:
                return newest
            row = {"version": newest.version + 1, "text": text}
            self._labels.insert("instruction", hashed(row))
        return self.instructions()

    def beat(self, *, step: int, labels_due: int, labels: int, now: float | None = None) -> None:
        """A sign of life of the trainer, for the raters' screens."""
        about = {"step": step, "labels_due": labels_due, "labels": labels}
        row = {"id": 1, **about, "time": time.time() if now is None else now}
        with self._labels.transaction():
            if not self._labels.insert("beat", row):
                self._labels.update("beat", "id", row)

    def forget(self, rater: str, *, now: float | None = None) -> str:
        """Remove a person: their name is gone, their answers are counted but not trained on.

        Returns:
            The alias in the name's place.

        Raises:
            UserError: nobody of that name has answered or signed in.
        """
        alias = f"forgotten-{uuid.uuid4().hex[:8]}"
        with self._labels.transaction():
            moment = time.time() if now is None else now
            found = self.ledger.forget(rater, alias=alias, time=moment)
            for table in ("lease", "session"):
                found += len(self._labels.rows(f"SELECT 1 FROM {table} WHERE rater = ?", (rater,)))
                self._labels.rows(f"DELETE FROM {table} WHERE rater = ?", (rater,))
        if not found:
            raise UserError(f"no rater {rater!r} in {self.directory}")
        self._labels.vacuum()
        self._mirror.rewrite(self.ledger.mirror)
        return alias

    @contextmanager
    def writing(self, *, answers: bool = True) -> Iterator[None]:
        """A transaction on `labels.db`; after `answers` the mirror is brought up to it."""
        with self._labels.turn():
            with self._labels.transaction():
                yield
            if answers:
                self._top_up()

    def write_session(self, *, id: str, rater: str, app: str, started: float) -> None:
        """A rater sits down."""
        row = {"id": id, "rater": rater, "app": app, "started": started}
        with self._labels.transaction():
            self._labels.insert("session", hashed(row))

    # ---- reading ----------------------------------------------------------------------

    def changes(
        self, after: int, *, issued_by: int | None = None, as_of: int | None = None
    ) -> Changes:
        """What has happened to the trainable labels since `after`, and where to go on.

        Trainable are live answers to normal queries, neither extra nor stale; "cannot" is
        among them, and says so. Skips are none.

        Args:
            after: only what has a larger `seq`.
            issued_by: only answers to queries asked up to this step of the run.
            as_of: as it was when this `seq` was the newest.
        """
        return self.ledger.changes(after, issued_by, as_of)

    def labels(
        self, after: int, issued_by: int | None = None, *, as_of: int | None = None
    ) -> list[Label]:
        """The trainable labels of `changes`, in order of arrival."""
        return self.changes(after, issued_by=issued_by, as_of=as_of).labels

    def withdrawn(self, after: int) -> list[Label]:
        """Trainable labels that were undone, replaced or forgotten since `after`."""
        return self.changes(after).withdrawn

    def feedback(self) -> Iterator[Label]:
        """All live answers, control items and late ones too, in order of arrival."""
        yield from self.ledger.answers(live=True)

    def answers(self) -> list[Label]:
        """All answers ever given, also what is no longer live."""
        return self.ledger.answers(live=False)

    def acts(self) -> list[Act]:
        """Skips, flags, undone answers and forgotten persons."""
        return self.ledger.acts()

    def query(self, id: str) -> Query:
        """The query `id`.

        Raises:
            ValueError: there is none.
        """
        return self.queue.query(id)

    def sessions(self) -> list[dict[str, Any]]:
        """Every sitting: id, rater, app, started."""
        rows = self._labels.verified("session", "ORDER BY started, id")
        return [{k: row[k] for k in ("id", "rater", "app", "started")} for row in rows]

    def instructions(self) -> Instructions:
        """The newest version; version 0, empty, where there is none."""
        rows = self._labels.verified("instruction", "ORDER BY version DESC LIMIT 1")
        if not rows:
            return Instructions(version=0, text="")
        return Instructions(version=rows[0]["version"], text=rows[0]["text"])

    def last_beat(self) -> Beat | None:
        """The trainer's last sign of life."""
        rows = self._labels.rows("SELECT step, labels_due, labels, time FROM beat")
        return Beat(**dict(rows[0])) if rows else None

    def text(self, segment: str) -> str | None:
        """What a rater reads of a segment of text; None: it is behaviour, to be watched."""
        read = self._text(segment)
        return read.completion if read else None

    def prompt(self, query: str) -> str | None:
        """What the completions of a query answer; None where there is none."""
        read = self._text(self.query(query).segments[0])
        return read.prompt if read else None

    def pictures(self, segment: str) -> Pictures | None:
        """What a rater sees of a segment, if it was stored as pictures.

        Raises:
            DamagedStore: it is not what was written.
        """
        rows = self._clips.rows("SELECT data, sha256 FROM picture WHERE id = ?", (segment,))
        if not rows:
            return None
        data, sha = rows[0]
        if clip_sha(segment, data, b"") != sha:
            raise self._clips.damaged(f"the pictures of {segment} are not what was written")
        try:
            return read_pictures(data)
        except DamagedSegment as error:
            raise self._clips.damaged(f"the pictures of {segment}: {error}") from error

    def open_queries(self) -> int:
        """How many queries still want answers."""
        return self.queue.size()

    def queries(self) -> Iterator[Query]:
        """All queries, in order of arrival."""
        yield from map(read_query, self._labels.verified("query", "ORDER BY rowid"))

    def segments(self) -> Iterator[Segment]:
        """All segments, in order of arrival; one at a time is read."""
        for (segment,) in self._labels.rows("SELECT id FROM segment_ref ORDER BY rowid"):
            yield self.segment(segment)

    def segment(self, id: str) -> Segment:
        """The segment `id`, hidden fields included.

        Raises:
            ValueError: there is none.
            DamagedStore: it is not what was written.
        """
        rows = self._labels.verified("segment_ref", "WHERE id = ?", (id,))
        if not rows:
            raise ValueError(f"segment {id} is not in the store at {self.directory}")
        view, recipe = self._clip(id)
        try:
            return decode_view(
                view,
                true_reward=np.frombuffer(rows[0]["true_reward"], dtype="<f8").copy(),
                ended=bool(rows[0]["ended"]),
                clip=recipe,
            )
        except DamagedSegment as error:
            raise self._clips.damaged(f"the segment {id}: {error}") from error

    def clip(self, id: str) -> bytes:
        """How to draw what a rater sees of segment `id`.

        Raises:
            ValueError: there is none.
            DamagedStore: it is not what was written.
        """
        return self._clip(id)[1]

    def counts(self) -> dict[str, int]:
        """How many segments, queries, skips and live labels there are, extra ones left out."""
        sql = {
            "segments": "SELECT count(*) FROM segment_ref",
            "queries": "SELECT count(*) FROM query",
            "labels": "SELECT count(*) FROM label WHERE live = 1 AND status IS NULL",
            "skips": """SELECT count(*) FROM label WHERE answer = '{"choice": "skip"}'""",
        }
        return {name: int(self._labels.rows(query)[0][0]) for name, query in sql.items()}

    def check(self) -> None:
        """Read everything and compare it with its hashes; `open` checks `labels.db` only.

        Raises:
            DamagedStore: something is not what was written.
        """
        self._labels.check()
        self._clips.check()
        for table in HASHED:
            self._labels.verified(table)
        self.queue.check()
        for (segment,) in self._labels.rows("SELECT id FROM segment_ref"):
            self._clip(segment)
        for (segment,) in self._clips.rows("SELECT id FROM picture"):
            self.pictures(segment)

    # ---- inside -----------------------------------------------------------------------

    def _clip(self, id: str) -> tuple[bytes, bytes]:
        """(view, recipe) of a segment, checked."""
        rows = self._clips.rows("SELECT view, recipe, sha256 FROM clip WHERE id = ?", (id,))
        if not rows:
            if self._has(self._labels, "segment_ref", id):
                raise self._clips.damaged(f"the clip {id} is missing")
            raise ValueError(f"segment {id} is not in the store at {self.directory}")
        view, recipe, sha = rows[0]
        if clip_sha(id, view, recipe) != sha:
            raise self._clips.damaged(f"the clip {id} is not what was written")
        return view, recipe

    def _has(self, database: Database, table: str, id: str) -> bool:
        return bool(database.rows(f"SELECT 1 FROM {table} WHERE id = ?", (id,)))

    def _text(self, segment: str) -> Text | None:
        try:
            return read_text(self.clip(segment))
        except json.JSONDecodeError as error:
            raise self._clips.damaged(f"the text {segment}: {error}") from error

    def _top_up(self) -> None:
        try:
            self._mirror.top_up(self.ledger.mirror)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise DiskFull(
                f"the disk of {self._mirror.path} is full; {self._reserve.free()}: the answers "
                "are stored in labels.db, their mirror is not; free some space and go on"
            ) from error


HASHED = ("run", "segment_ref", "query", "label", "retired", "instruction", "session", "edited")


def _create_labels(path: Path, task: str, seed: int) -> None:
    database = Database(path, LABELS, create=True, on_full=lambda: "no store was created")
    try:
        with database.transaction():
            database.insert("run", hashed({"id": 1, "task": task, "seed": seed}))
    finally:
        database.close()
    Path(f"{path}-journal").unlink(missing_ok=True)  # empty, and named after the old name
    lock_of(path).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
