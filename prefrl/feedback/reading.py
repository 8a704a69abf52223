"""What can be read of a store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from prefrl.feedback.archive import Archive
from prefrl.feedback.database import Database
from prefrl.feedback.ledger import Ledger
from prefrl.feedback.pictures import Pictures
from prefrl.feedback.queue import Queue
from prefrl.feedback.records import Act, Changes, Consent, Instructions, Label, Query
from prefrl.feedback.register import Beat, Register
from prefrl.feedback.rows import read_query
from prefrl.feedback.segment import Segment
from prefrl.feedback.text import Text, read_text

HASHED = (
    "run", "segment_ref", "query", "label", "retired", "instruction", "session", "edited",
    "consent", "pack",
)  # fmt: skip
"""Tables of `labels.db` whose rows have a hash each."""


class Reading:
    """The tables of a run directory, and their content as records."""

    def __init__(self, directory: Path, labels: Database, clips: Database) -> None:
        self.directory, self._labels, self._clips = directory, labels, clips
        self.queue = Queue(labels)
        self.ledger = Ledger(labels, self.queue)
        self.register = Register(labels)
        self.archive = Archive(labels, clips)

    def moment(self) -> AbstractContextManager[None]:
        """All that is read inside of `labels.db` is of one moment."""
        return self._labels.moment()

    @property
    def task(self) -> str:
        """The task's id."""
        return str(self._labels.verified("run")[0]["task"])

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self._labels.verified("run")[0]["seed"])

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
        return self.register.sessions()

    def consents(self) -> list[Consent]:
        """What raters agreed to, and when."""
        return self.register.consents()

    def instructions(self) -> Instructions:
        """The newest version; version 0, empty, where there is none."""
        return self.register.instructions()

    def last_beat(self) -> Beat | None:
        """The trainer's last sign of life."""
        return self.register.last_beat()

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
        return self.archive.pictures(segment)

    def open_queries(self) -> int:
        """How many queries still want answers."""
        return self.queue.size()

    def asked_here(self, *, now: float | None = None) -> int:
        """How many answers they want, without those that the packs which are out can bring."""
        return self.queue.asked_here(now=time.time() if now is None else now)

    def queries(self) -> Iterator[Query]:
        """All queries, in order of arrival."""
        yield from map(read_query, self._labels.verified("query", "ORDER BY rowid"))

    def segments(self) -> Iterator[Segment]:
        """All segments, in order of arrival; one at a time is read."""
        return self.archive.segments()

    def segment(self, id: str) -> Segment:
        """The segment `id`, hidden fields included.

        Raises:
            ValueError: there is none.
            DamagedStore: it is not what was written.
        """
        return self.archive.segment(id)

    def clip(self, id: str) -> bytes:
        """How to draw what a rater sees of segment `id`.

        Raises:
            ValueError: there is none.
            DamagedStore: it is not what was written.
        """
        return self.archive.clip(id)

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
        self.archive.check()

    def _text(self, segment: str) -> Text | None:
        try:
            return read_text(self.clip(segment))
        except json.JSONDecodeError as error:
            raise self._clips.damaged(f"the text {segment}: {error}") from error
