"""Who sits down and agrees to what, which packs went out, and the trainer's sign of life."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefrl.feedback.database import Database
from prefrl.feedback.records import Consent, Instructions, sha256_of
from prefrl.feedback.rows import hashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life of the trainer."""

    step: int
    labels_due: int
    labels: int
    """Trained on so far."""
    time: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackNote:
    """What is remembered of a pack that was made of this store."""

    id: str
    rater: str
    """For whom; "": for anybody."""
    queries: tuple[str, ...]
    """Their ids."""
    made: float
    """Seconds since 1970."""


class Register:
    """The tables `instruction`, `session`, `consent`, `pack` and `beat`; what writes wants to be
    inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- instructions and consent -----------------------------------------------------

    def set_instructions(self, text: str) -> Instructions:
        """Append a version, unless the newest says the same."""
        newest = self.instructions()
        if newest.text == text:
            return newest
        made = Instructions(version=newest.version + 1, text=text)
        self.keep_instructions(made)
        return made

    def keep_instructions(self, given: Instructions) -> None:
        """Store a version under the number it has elsewhere."""
        self._database.insert("instruction", hashed({"version": given.version, "text": given.text}))

    def instructions(self) -> Instructions:
        """The newest version; version 0, empty, where there is none."""
        rows = self._database.verified("instruction", "ORDER BY version DESC LIMIT 1")
        if not rows:
            return Instructions(version=0, text="")
        return Instructions(version=rows[0]["version"], text=rows[0]["text"])

    def sit(self, *, id: str, rater: str, app: str, started: float) -> None:
        """A rater sits down, unless this sitting is known."""
        row = {"id": id, "rater": rater, "app": app, "started": float(started)}
        self._database.insert("session", hashed(row))

    def agree(self, consent: Consent) -> None:
        """A rater who sits here agrees, unless that is known."""
        row = {name: getattr(consent, name) for name in Consent.__dataclass_fields__}
        row["time"] = float(consent.time)
        row["id"] = sha256_of("consent", consent.session, consent.version)
        self._database.insert("consent", hashed(row))

    def sessions(self) -> list[dict[str, Any]]:
        """Every sitting: id, rater, app, started."""
        rows = self._database.verified("session", "ORDER BY started, id")
        return [{k: row[k] for k in ("id", "rater", "app", "started")} for row in rows]

    def consents(self) -> list[Consent]:
        """What was agreed to, in order of arrival."""
        rows = self._database.verified("consent", "ORDER BY rowid")
        return [Consent(**{k: row[k] for k in Consent.__dataclass_fields__}) for row in rows]

    # ---- packs ------------------------------------------------------------------------

    def note_pack(self, *, id: str, rater: str, queries: Sequence[str], made: float) -> None:
        """Remember which queries went out, and for whom."""
        about = {"id": id, "rater": rater or None, "made": float(made)}
        row = {**about, "queries": json.dumps(list(queries))}
        self._database.insert("pack", hashed(row))

    def pack(self, id: str) -> PackNote | None:
        """The pack `id`, if it was made of this store."""
        rows = self._database.verified("pack", "WHERE id = ?", (id,))
        if not rows:
            return None
        (row,) = rows
        queries = tuple(json.loads(row["queries"]))
        return PackNote(id=id, rater=row["rater"] or "", queries=queries, made=row["made"])

    def packs(self, rater: str) -> list[str]:
        """Ids of those that were made for a rater."""
        return [
            row[0] for row in self._database.rows("SELECT id FROM pack WHERE rater = ?", (rater,))
        ]

    # ---- the trainer ------------------------------------------------------------------

    def beat(self, beat: Beat) -> None:
        """In the place of the last one."""
        row = {"id": 1, **{name: getattr(beat, name) for name in Beat.__dataclass_fields__}}
        if not self._database.insert("beat", row):
            self._database.update("beat", "id", row)

    def last_beat(self) -> Beat | None:
        """The trainer's last sign of life."""
        rows = self._database.rows("SELECT step, labels_due, labels, time FROM beat")
        return Beat(**dict(rows[0])) if rows else None

    # ---- removal ----------------------------------------------------------------------

    def forget(self, rater: str, *, alias: str) -> int:
        """Remove a rater's sittings and put `alias` into packs; returns how many rows it were."""
        mine = "SELECT id FROM session WHERE rater = ?"
        self._database.rows(f"DELETE FROM consent WHERE session IN ({mine})", (rater,))
        found = self._database.rows(mine, (rater,))
        self._database.rows("DELETE FROM session WHERE rater = ?", (rater,))
        packs = self._database.verified("pack", "WHERE rater = ?", (rater,))
        for row in packs:
            self._database.update("pack", "id", hashed({**dict(row), "rater": alias}))
        return len(found) + len(packs)
