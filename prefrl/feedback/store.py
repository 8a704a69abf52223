"""The one durable place for segments, queries and answers."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.creation import create_labels
from prefrl.feedback.database import Database
from prefrl.feedback.errors import DiskFull
from prefrl.feedback.ledger import Outcome
from prefrl.feedback.mirror import Mirror, Rows, check_not_behind
from prefrl.feedback.pictures import Pictures
from prefrl.feedback.reading import Reading
from prefrl.feedback.records import Answer, Consent, Instructions, Query, text_sha
from prefrl.feedback.register import Beat
from prefrl.feedback.reserve import FULL, Reserve
from prefrl.feedback.schema import CLIPS, LABELS
from prefrl.feedback.segment import Segment


class FeedbackStore(Reading):
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
        self._reserve = Reserve(directory)
        self._mirror = Mirror(directory / "labels.jsonl")
        free, had_clips = self._reserve.free, (directory / "clips.db").exists()
        self._labels = Database(directory / "labels.db", LABELS, on_full=free, create=False)
        try:
            if not had_clips and self.counts()["segments"]:
                raise UserError(f"no clips.db in {directory}: restore it, labels.db refers to it")
            self._clips = Database(directory / "clips.db", CLIPS, on_full=free, create=True)
            super().__init__(directory, self._labels, self._clips)
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
        create_labels(directory, task=task, seed=seed)
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

    # ---- writing ----------------------------------------------------------------------

    def add_segments(self, segments: Sequence[Segment]) -> None:
        """Store segments; those that are there already are left alone."""
        self.archive.add(segments)

    def add_queries(self, queries: Sequence[Query]) -> None:
        """Store queries, whose segments must be stored; those that are there are left alone.

        Raises:
            ValueError: a segment is missing, or a gold item's answer; no query was stored.
        """
        if not queries:
            return
        with self._labels.transaction():
            for segment in {s for query in queries for s in query.segments}:
                if not self.archive.has(segment):
                    raise ValueError(f"segment {segment} is not in the store: add_segments first")
            for query in queries:
                if query.purpose == "gold" and not query.expected:
                    raise ValueError(f"query {query.id} is gold and expects no answer")
                self.queue.add(query)

    def add_pictures(self, segment: str, frames: np.ndarray, *, fps: float) -> None:
        """Store what a rater sees of a segment as pictures, uint8 [T, H, W, 3]."""
        self.archive.add_pictures(segment, Pictures(frames=frames, fps=fps))

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

    def retire(self, *, older_than: int, reason: str = "stale", now: float | None = None) -> int:
        """Ask no more what was asked before this step of the run; returns how many it were.

        What somebody at a desk holds is left until they have answered, or hold it no more.
        """
        moment = time.time() if now is None else now
        with self._labels.transaction():
            ids = self.queue.older_than(older_than, now=moment)
            for id in ids:
                self.queue.retire(id, reason)
        return len(ids)

    def add_edited(self, label: int, segment: Segment) -> None:
        """Say which segment came of the edit `label` (its `seq`): now it can be trained on."""
        self.add_segments([segment])
        with self._labels.transaction():
            self.ledger.edit_became(label, segment.id)

    def set_instructions(self, text: str) -> Instructions:
        """Append a version, unless the newest says the same."""
        with self._labels.transaction():
            return self.register.set_instructions(text)

    def beat(self, *, step: int, labels_due: int, labels: int, now: float | None = None) -> None:
        """A sign of life of the trainer, for the raters' screens."""
        moment = time.time() if now is None else now
        beat = Beat(step=step, labels_due=labels_due, labels=labels, time=moment)
        with self._labels.transaction():
            self.register.beat(beat)

    def forget(self, rater: str, *, now: float | None = None) -> str:
        """Remove a person: their name is gone, their answers are counted but not trained on.

        Where a call was cut short, the next one finishes it, though nobody of that name is left.

        Returns:
            The alias in the name's place.

        Raises:
            UserError: nobody of that name has answered or signed in.
        """
        alias = f"forgotten-{uuid.uuid4().hex[:8]}"
        with self._labels.transaction():
            moment = time.time() if now is None else now
            found = self.ledger.forget(rater, alias=alias, time=moment)
            for pack in self.register.packs(rater):
                self.queue.release(pack)
            found += self.queue.release(rater) + self.register.forget(rater, alias=alias)
        self._mirrored(self._mirror.rewrite)
        self._labels.vacuum()
        if not found:
            raise UserError(f"no rater {rater!r} in {self.directory}")
        return alias

    @contextmanager
    def writing(self, *, answers: bool = True) -> Iterator[None]:
        """A transaction on `labels.db`; after `answers` the mirror is brought up to it."""
        with self._labels.turn():
            with self._labels.transaction():
                yield
            if answers:
                self._top_up()

    def write_session(
        self, *, id: str, rater: str, app: str, started: float, agreed: Instructions | None = None
    ) -> None:
        """A rater sits down, and has agreed to take part knowing what the instructions say."""
        with self._labels.transaction():
            self.register.sit(id=id, rater=rater, app=app, started=started)
            if agreed is not None:
                version, sha = agreed.version, text_sha(agreed.text)
                consent = Consent(session=id, version=version, text_sha=sha, time=started)
                self.register.agree(consent)

    @contextmanager
    def rehearsal(self) -> Iterator[Reading]:
        """A copy of what is stored, to see whether something can be; what is written is lost."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "labels.db"
            self._labels.copy(path)
            copy = Database(path, LABELS, on_full=lambda: "it is a copy", create=False)
            try:
                with copy.transaction():
                    yield Reading(self.directory, copy, self._clips)
            finally:
                copy.close()

    # ---- inside -----------------------------------------------------------------------

    def _top_up(self) -> None:
        self._mirrored(self._mirror.top_up)

    def _mirrored(self, write: Callable[[Rows], None]) -> None:
        try:
            with self._labels.turn():  # before the mirror's lock, as everywhere
                write(self.ledger.mirror)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise DiskFull(
                f"the disk of {self._mirror.path} is full; {self._reserve.free()}: the answers "
                "are stored in labels.db, their mirror is not; free some space and go on"
            ) from error
