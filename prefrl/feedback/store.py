"""The one durable place for segments, queries and answers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.database import Database
from prefrl.feedback.errors import DamagedSegment, DiskFull
from prefrl.feedback.mirror import Mirror, check_not_behind
from prefrl.feedback.records import Answer, Comparison, Label, Query
from prefrl.feedback.reserve import FULL, Reserve
from prefrl.feedback.schema import CLIPS, LABELS, clip_sha, row_sha
from prefrl.feedback.segment import Segment, decode_view, encode_view

Outcome = Literal["ok", "dup", "voted"]
"""Stored; stored before under this id; this rater has another live answer to the query."""


class FeedbackStore:
    """`labels.db`, `clips.db` and the mirror `labels.jsonl` of a run directory.

    What a call has stored when it returns survives a kill, a power cut and a full disk. All
    calls that write may be repeated: what is there already is left alone. Hidden fields of
    segments lie in `labels.db`; `clips.db` holds what reward models and raters may see.

        with FeedbackStore.open("runs/pong") as store:
            for label in store.feedback():
                print(label.seq, label.rater, label.comparison.choice)
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
            last = self._mirror.last_seq()  # before the database: another process may append
            check_not_behind(self._mirror, last, self._newest())
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
        rows = [_clip_row(segment) for segment in new.values()]
        if rows:  # clips first: one without a reference is harmless, the opposite is not
            with self._clips.transaction():
                for row in rows:
                    self._clips.insert("clip", row)
        if segments:
            with self._labels.transaction():
                for segment in segments:
                    self._labels.insert("segment_ref", _segment_row(segment))

    def add_queries(self, queries: Sequence[Query]) -> None:
        """Store queries, whose segments must be stored; those that are there are left alone.

        Raises:
            ValueError: a segment is missing; no query was stored.
        """
        if not queries:
            return
        with self._labels.transaction():
            for segment in {s for query in queries for s in query.segments}:
                if not self._has(self._labels, "segment_ref", segment):
                    raise ValueError(f"segment {segment} is not in the store: add_segments first")
            for query in queries:
                self._labels.insert("query", _query_row(query))

    def submit_many(self, answers: Sequence[Answer]) -> list[Outcome]:
        """Store answers, all in one transaction; when this returns they are safe.

        Returns:
            One outcome for each answer. Of two answers under one id the first holds.

        Raises:
            ValueError: a query is missing; no answer was stored.
        """
        if not answers:
            return []
        with self._labels.transaction():
            outcomes = [self._submit(answer) for answer in answers]
        self._top_up()
        return outcomes

    def _submit(self, answer: Answer) -> Outcome:
        if not self._has(self._labels, "query", answer.query):
            raise ValueError(f"query {answer.query} is not in the store: add_queries first")
        if self._labels.insert("label", _label_row(answer, seq=self._next_seq())):
            return "ok"
        return "dup" if self._has(self._labels, "label", answer.id) else "voted"

    # ---- reading ----------------------------------------------------------------------

    def labels(self, after: int, issued_by: int | None = None) -> list[Label]:
        """Live answers in order of arrival; skips are none.

        Args:
            after: only those with a larger `seq`.
            issued_by: only answers to queries asked up to this step of the run.
        """
        rows = self._labels.verified("label", "WHERE seq > ? ORDER BY seq", (after,))
        rows = [row for row in rows if row["live"]]
        queries = {q.id: q for q in self._queries_of({row["query"] for row in rows})}
        found = [_label(row, queries[row["query"]]) for row in rows]
        return [x for x in found if issued_by is None or x.query.policy_step <= issued_by]

    def feedback(self) -> Iterator[Label]:
        """All live answers, in order of arrival."""
        yield from self.labels(after=0)

    def queries(self) -> Iterator[Query]:
        """All queries, in order of arrival."""
        yield from map(_query, self._labels.verified("query", "ORDER BY rowid"))

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
        """How many segments, queries, live labels and skips there are."""
        sql = {
            "segments": "SELECT count(*) FROM segment_ref",
            "queries": "SELECT count(*) FROM query",
            "labels": "SELECT count(*) FROM label WHERE live = 1",
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
        for table in ("run", "segment_ref", "query", "label"):
            self._labels.verified(table)
        for (segment,) in self._labels.rows("SELECT id FROM segment_ref"):
            self._clip(segment)

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

    def _queries_of(self, ids: set[str]) -> list[Query]:
        if not ids:
            return []
        where = "WHERE id IN (SELECT value FROM json_each(?))"
        rows = self._labels.verified("query", where, (json.dumps(sorted(ids)),))
        if len(rows) < len(ids):
            raise self._labels.damaged(f"{len(ids) - len(rows)} queries of labels are missing")
        return [_query(row) for row in rows]

    def _has(self, database: Database, table: str, id: str) -> bool:
        return bool(database.rows(f"SELECT 1 FROM {table} WHERE id = ?", (id,)))

    def _newest(self) -> int:
        return int(self._labels.rows("SELECT coalesce(max(seq), 0) FROM label")[0][0])

    def _next_seq(self) -> int:
        """Above every one ever used, also by rows that are gone."""
        used = self._labels.rows("SELECT seq FROM sqlite_sequence WHERE name = 'label'")
        return int(used[0][0]) + 1 if used else 1

    def _top_up(self) -> None:
        try:
            self._mirror.top_up(self._mirror_rows)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise DiskFull(
                f"the disk of {self._mirror.path} is full; {self._reserve.free()}: the answers "
                "are stored in labels.db, their mirror is not; free some space and go on"
            ) from error

    def _mirror_rows(self, after: int) -> list[dict[str, Any]]:
        rows = self._labels.verified("label", "WHERE seq > ? ORDER BY seq", (after,))
        queries = {q.id: q for q in self._queries_of({row["query"] for row in rows})}
        return [_mirror_row(dict(row), queries[row["query"]]) for row in rows]


def _create_labels(path: Path, task: str, seed: int) -> None:
    database = Database(path, LABELS, create=True, on_full=lambda: "no store was created")
    try:
        with database.transaction():
            database.insert("run", _hashed({"id": 1, "task": task, "seed": seed}))
    finally:
        database.close()
    Path(f"{path}-journal").unlink(missing_ok=True)  # empty, and named after the old name


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hashed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "row_sha": row_sha(row)}


def _clip_row(segment: Segment) -> dict[str, Any]:
    view = encode_view(segment)
    sha = clip_sha(segment.id, view, segment.clip)
    return {"id": segment.id, "view": view, "recipe": segment.clip, "sha256": sha}


def _segment_row(segment: Segment) -> dict[str, Any]:
    return _hashed(
        {
            "id": segment.id,
            **asdict(segment.provenance),
            "steps": len(segment),
            "ended": int(segment.ended),
            "true_reward": segment.true_reward.astype("<f8").tobytes(),
        }
    )


def _query_row(query: Query) -> dict[str, Any]:
    return _hashed(
        {
            "id": query.id,
            "segments": json.dumps(query.segments),
            "policy_step": query.policy_step,
            "reason": query.reason,
            "priority": float(query.priority),
        }
    )


def _label_row(answer: Answer, *, seq: int) -> dict[str, Any]:
    return _hashed(
        {
            "seq": seq,
            "id": answer.id,
            "query": answer.query,
            "rater": answer.rater,
            "kind": "comparison",
            "answer": json.dumps({"choice": answer.comparison.choice}),
            "live": int(answer.comparison.choice != "skip"),
        }
    )


def _query(row: Any) -> Query:
    return Query(
        segments=tuple(json.loads(row["segments"])),
        policy_step=row["policy_step"],
        reason=row["reason"],
        priority=row["priority"],
    )


def _label(row: Any, query: Query) -> Label:
    comparison = Comparison(**json.loads(row["answer"]))
    return Label(
        seq=row["seq"], id=row["id"], query=query, rater=row["rater"], comparison=comparison
    )


def _mirror_row(row: dict[str, Any], query: Query) -> dict[str, Any]:
    answer = json.loads(row["answer"])
    about = {name: row[name] for name in ("seq", "id", "query", "rater", "kind", "live")}
    return {**about, **answer, "segments": query.segments, "policy_step": query.policy_step}
