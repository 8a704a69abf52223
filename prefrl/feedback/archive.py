"""Segments and their clips: hidden fields in `labels.db`, what may be seen in `clips.db`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from prefrl.feedback.database import Database
from prefrl.feedback.errors import DamagedSegment
from prefrl.feedback.pictures import Pictures, encode_pictures, read_pictures
from prefrl.feedback.rows import clip_row, segment_row
from prefrl.feedback.schema import clip_sha
from prefrl.feedback.segment import Provenance, Segment, decode_view


class Archive:
    """The tables `segment_ref`, `clip` and `picture`."""

    def __init__(self, labels: Database, clips: Database) -> None:
        self._labels, self._clips = labels, clips

    # ---- writing ----------------------------------------------------------------------

    def add(self, segments: Sequence[Segment]) -> None:
        """Store segments, in transactions of its own; those that are there are left alone."""
        new = {s.id: s for s in segments if not self._clips.has("clip", s.id)}
        rows = [clip_row(segment) for segment in new.values()]
        if rows:  # clips first: one without a reference is harmless, the opposite is not
            with self._clips.transaction():
                for row in rows:
                    self._clips.insert("clip", row)
        if segments:
            with self._labels.transaction():
                for segment in segments:
                    self._labels.insert("segment_ref", segment_row(segment))

    def add_pictures(self, segment: str, pictures: Pictures) -> None:
        """Store what a rater sees of a segment, unless it is stored."""
        data = encode_pictures(pictures)
        row = {"id": segment, "data": data, "sha256": clip_sha(segment, data, b"")}
        with self._clips.transaction():
            self._clips.insert("picture", row)

    # ---- reading ----------------------------------------------------------------------

    def has(self, id: str) -> bool:
        """Is there a segment `id`?"""
        return self._labels.has("segment_ref", id)

    def ids(self) -> list[str]:
        """Of all segments, in order of arrival."""
        return [row[0] for row in self._labels.rows("SELECT id FROM segment_ref ORDER BY rowid")]

    def places(self) -> dict[str, tuple[Provenance, int]]:
        """Id -> (where it comes from, its length), of all segments."""
        names = Provenance.__dataclass_fields__
        return {
            row["id"]: (Provenance(**{name: row[name] for name in names}), row["steps"])
            for row in self._labels.verified("segment_ref")
        }

    def returns(self) -> dict[str, tuple[float, bool]]:
        """Id -> (true return, did an episode end in it), hidden, of all segments."""
        return {
            row["id"]: (float(np.frombuffer(row["true_reward"], "<f8").sum()), bool(row["ended"]))
            for row in self._labels.verified("segment_ref")
        }

    def segments(self) -> Iterator[Segment]:
        """All segments, in order of arrival; one at a time is read."""
        yield from map(self.segment, self.ids())

    def segment(self, id: str) -> Segment:
        """The segment `id`, hidden fields included.

        Raises:
            ValueError: there is none.
            DamagedStore: it is not what was written.
        """
        rows = self._labels.verified("segment_ref", "WHERE id = ?", (id,))
        if not rows:
            raise ValueError(f"segment {id} is not in the store at {self._labels.path.parent}")
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

    def check(self) -> None:
        """Read all clips and pictures and compare them with their hashes.

        Raises:
            DamagedStore: one is not what was written.
        """
        for segment in self.ids():
            self._clip(segment)
        for (segment,) in self._clips.rows("SELECT id FROM picture"):
            self.pictures(segment)

    def _clip(self, id: str) -> tuple[bytes, bytes]:
        """(view, recipe) of a segment, checked."""
        rows = self._clips.rows("SELECT view, recipe, sha256 FROM clip WHERE id = ?", (id,))
        if not rows:
            if self.has(id):
                raise self._clips.damaged(f"the clip {id} is missing")
            raise ValueError(f"segment {id} is not in the store at {self._labels.path.parent}")
        view, recipe, sha = rows[0]
        if clip_sha(id, view, recipe) != sha:
            raise self._clips.damaged(f"the clip {id} is not what was written")
        return view, recipe
