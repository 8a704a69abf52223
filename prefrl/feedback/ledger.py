"""Who answered what: rows are added, their words never change, and each has its `seq`.

A row lives or not, and `ended` names the row that ended it. So whoever reads on from some
`seq` learns of what was withdrawn since, and a resumed run can ask what lived back then.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable
from typing import Any, Literal

from prefrl.feedback.database import Database
from prefrl.feedback.queue import Queue
from prefrl.feedback.records import Act, Answer, Changes, Label, Query, note_text
from prefrl.feedback.replies import FORMS, Comparison, Edit, reply_json
from prefrl.feedback.rows import (
    CANNOT,
    NOTHING,
    SKIP,
    act_row,
    hashed,
    is_answer,
    label_row,
    mirror_row,
    read_act,
    read_label,
    read_query,
)

Outcome = Literal["ok", "dup", "extra", "stale"]
"""Stored; stored before under this id; stored, but the query has all its answers or one by this
rater; stored, but the query is retired. The last two are not trained on."""


FLAGS_TO_RETIRE = 2  # raters who say that a query is broken
FORGOTTEN = {"edit": reply_json(Edit(text="forgotten")), "flag": NOTHING}


Late = Literal["extra", "stale"]


class Ledger:
    """The table `label`; what writes wants to be inside a transaction."""

    def __init__(self, database: Database, queue: Queue) -> None:
        self._database, self._queue = database, queue

    # ---- writing ----------------------------------------------------------------------

    def submit(self, answer: Answer) -> Outcome:
        """Store one answer; of two under one id the first holds.

        Raises:
            ValueError: its query is missing, or wants another kind of reply.
        """
        if self._database.rows("SELECT 1 FROM label WHERE id = ?", (answer.id,)):
            return "dup"
        query = self._queue.query(answer.query)
        if not query.fits(answer.reply):
            raise ValueError(f"query {query.id} wants a {query.form}: got {answer.reply}")
        if answer.viewing and len(answer.viewing.order) != len(query.segments):
            raise ValueError(f"query {query.id}: got a viewing in the order {answer.viewing.order}")
        seq = self.next_seq()
        if answer.supersedes:
            self._withdraw(self._own(answer), by=seq)
        status, live = self._standing(answer, query)
        self._database.insert("label", label_row(answer, seq=seq, status=status, live=live))
        self._queue.drop(query.id, answer.rater)
        self._queue.refresh(query)
        return status or "ok"

    def undo(self, id: str, *, rater: str, time: float | None) -> None:
        """Withdraw a rater's live answer; its query is open again."""
        (row,) = self._database.verified("label", "WHERE id = ?", (id,))
        seq = self.act("undo", query=row["query"], rater=rater, time=time, supersedes=id)
        self._withdraw(row, by=seq)
        self._queue.refresh(self._queue.query(row["query"]))

    def flag(self, query: str, *, rater: str, time: float | None, note: str, session: str) -> bool:
        """A rater says that a query is broken; once several do, it is asked no more.

        Returns:
            Was it news? A rater says so once.
        """
        flaggers = self.flaggers(query)
        if rater in flaggers:
            return False
        text = json.dumps({"note": note_text(note)})
        more = {"session": session or None, "answer": text}
        self.act("flag", query=query, rater=rater, time=time, **more)
        if len(flaggers) + 1 >= FLAGS_TO_RETIRE:
            self._queue.retire(query, "flagged")
        return True

    def edit_became(self, seq: int, segment: str) -> None:
        """Say which segment came of the edit `seq`, unless that is known."""
        self._database.insert("edited", hashed({"label": seq, "segment": segment}))

    def act(self, kind: str, *, query: str, rater: str, time: float | None, **more: Any) -> int:
        """Write down something that is no answer; returns its `seq`."""
        seq = self.next_seq()
        row = act_row(kind, seq=seq, query=query, rater=rater, time=time, **more)
        self._database.insert("label", row)
        return seq

    def forget(self, rater: str, *, alias: str, time: float) -> int:
        """Put `alias` in the place of a name and drop what else tells of the person.

        Their answers end here, as if undone; how many there were, and when, stays.

        Returns:
            How many rows were theirs.
        """
        rows = self._database.verified("label", "WHERE rater = ? ORDER BY seq", (rater,))
        if not rows:
            return 0
        seq = self.act("forget", query=rows[0]["query"], rater=alias, time=time)
        for row in rows:
            kept = {**dict(row), "rater": alias, "id": uuid.uuid4().hex, "session": None}
            kept |= {"viewing": None, "supersedes": None}
            kept["answer"] = FORGOTTEN.get(row["kind"], row["answer"])
            if row["live"]:
                kept |= {"live": 0, "ended": seq}
            self._database.update("label", "seq", hashed(kept))
        for query in {row["query"] for row in rows if row["live"]}:
            self._queue.refresh(self._queue.query(query))
        return len(rows)

    def next_seq(self) -> int:
        """Above every one ever used, also by rows that are gone."""
        used = self._database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'label'")
        return int(used[0][0]) + 1 if used else 1

    # ---- reading ----------------------------------------------------------------------

    def newest(self) -> int:
        """The largest `seq`; 0 where there is none."""
        return int(self._database.rows("SELECT coalesce(max(seq), 0) FROM label")[0][0])

    def changes(self, after: int, issued_by: int | None, as_of: int | None) -> Changes:
        """See `FeedbackStore.changes`; one statement, hence one moment."""
        where = "WHERE seq > ? OR ended > ? ORDER BY seq"
        rows = self._database.verified("label", where, (after, after))
        now = math.inf if as_of is None else as_of
        new = [row for row in rows if after < row["seq"] <= now and _lives(row, now)]
        gone = [row for row in rows if after < (row["ended"] or 0) <= now]
        found = {
            seq: label
            for seq, label in self._labels(filter(is_answer, [*new, *gone])).items()
            if label.status == "ok"
            and label.query.purpose == "normal"
            and (issued_by is None or label.query.policy_step <= issued_by)
        }
        ends = {row["seq"]: row["ended"] for row in gone if row["seq"] in found}
        labels = [found[row["seq"]] for row in new if row["seq"] in found]
        return Changes(
            labels=labels,
            withdrawn=[found[seq] for seq in sorted(ends, key=lambda seq: ends[seq])],
            seq=max([after, *(label.seq for label in labels), *ends.values()]),
        )

    def answers(self, *, live: bool) -> list[Label]:
        """All answers, or those that live."""
        where = "WHERE live = 1 ORDER BY seq" if live else "ORDER BY seq"
        rows = filter(is_answer, self._database.verified("label", where))
        return list(self._labels(rows).values())

    def find(self, id: str) -> Label | None:
        """The answer `id`, a skip too, if it was ever given."""
        rows = self._database.verified("label", "WHERE id = ?", (id,))
        return next(iter(self._labels(rows).values()), None)

    def replies(self) -> list[Label]:
        """All answers ever given, skips among them."""
        kinds = json.dumps([*FORMS])
        where = "WHERE kind IN (SELECT value FROM json_each(?)) ORDER BY seq"
        return list(self._labels(self._database.verified("label", where, (kinds,))).values())

    def acts(self) -> list[Act]:
        """All that raters did beside answering."""
        rows = self._database.verified("label", "ORDER BY seq")
        return [read_act(row) for row in rows if not is_answer(row)]

    def flaggers(self, query: str) -> set[str]:
        """Who says that a query is broken."""
        sql = "SELECT rater FROM label WHERE query = ? AND kind = 'flag'"
        return {row[0] for row in self._database.rows(sql, (query,))}

    def undoable(self, rater: str, session: str, *, last: int) -> tuple[str, str] | None:
        """(answer, query) of the newest that lives among the `last` ones of a sitting."""
        sql = """SELECT id, query, live FROM label WHERE rater = ? AND session = ?
            AND kind IN (SELECT value FROM json_each(?)) AND answer != ?
            ORDER BY seq DESC LIMIT ?"""
        rows = self._database.rows(sql, (rater, session, json.dumps([*FORMS]), SKIP, last))
        return next(((row["id"], row["query"]) for row in rows if row["live"]), None)

    def times(self, rater: str, *, session: str | None = None) -> list[float]:
        """When a rater's live answers were given; 0 where nobody wrote it down."""
        sql = """SELECT coalesce(time, 0) FROM label WHERE rater = ? AND live = 1
            AND (? IS NULL OR session = ?) ORDER BY seq"""
        return [row[0] for row in self._database.rows(sql, (rater, session, session))]

    def trainable(self) -> int:
        """How many labels there are that say anything about the reward: see `Label.trainable`."""
        sql = """SELECT count(*) FROM label JOIN query ON query.id = label.query
            WHERE live = 1 AND status IS NULL AND purpose IS NULL AND answer != ?
            AND (kind != 'edit' OR label.seq IN (SELECT label FROM edited))"""
        return int(self._database.rows(sql, (CANNOT,))[0][0])

    def mirror(self, after: int) -> list[dict[str, Any]]:
        """Lines of `labels.jsonl`."""
        rows = self._database.verified("label", "WHERE seq > ? ORDER BY seq", (after,))
        queries = self._queries(row["query"] for row in rows)
        return [mirror_row(dict(row), queries[row["query"]]) for row in rows]

    # ---- inside -----------------------------------------------------------------------

    def _standing(self, answer: Answer, query: Query) -> tuple[Late | None, bool]:
        """(status, does it live) of a new answer."""
        if isinstance(answer.reply, Comparison) and answer.reply.choice == "skip":
            return None, False
        voted = self._database.rows(
            "SELECT 1 FROM label WHERE query = ? AND rater = ? AND live = 1",
            (answer.query, answer.rater),
        )
        if self._queue.is_retired(query.id):
            return "stale", not voted
        if voted:
            return "extra", False
        full = query.purpose == "normal" and self._queue.answered(query.id) >= query.need
        return ("extra" if full else None), True

    def _own(self, answer: Answer) -> Any:
        where = "WHERE id = ? AND query = ? AND rater = ?"
        rows = self._database.verified(
            "label", where, (answer.supersedes, answer.query, answer.rater)
        )
        if not rows:
            raise ValueError(f"answer {answer.id} supersedes none of this rater's to its query")
        return rows[0]

    def _withdraw(self, row: Any, *, by: int) -> None:
        if row["live"]:
            self._database.update("label", "seq", hashed({**dict(row), "live": 0, "ended": by}))

    def _labels(self, rows: Iterable[Any]) -> dict[int, Label]:
        """Rows of replies as labels, by `seq`."""
        rows = list(rows)
        queries = self._queries(row["query"] for row in rows)
        edited = self._edited([row["seq"] for row in rows if row["kind"] == "edit"])
        return {
            row["seq"]: read_label(row, queries[row["query"]], edited.get(row["seq"], ""))
            for row in rows
        }

    def _edited(self, seqs: list[int]) -> dict[int, str]:
        if not seqs:
            return {}
        where = "WHERE label IN (SELECT value FROM json_each(?))"
        rows = self._database.verified("edited", where, (json.dumps(seqs),))
        return {row["label"]: row["segment"] for row in rows}

    def _queries(self, ids: Iterable[str]) -> dict[str, Query]:
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        where = "WHERE id IN (SELECT value FROM json_each(?))"
        rows = self._database.verified("query", where, (json.dumps(wanted),))
        if len(rows) < len(wanted):
            missing = len(wanted) - len(rows)
            raise self._database.damaged(f"{missing} queries of labels are missing")
        return {row["id"]: read_query(row) for row in rows}


def _lives(row: Any, now: float) -> bool:
    """Did it live when `now` was the newest `seq`?"""
    return bool(row["live"]) or (row["ended"] or 0) > now
