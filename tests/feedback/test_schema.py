"""A store written by the first schema is found whole, and goes on."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from prefrl.feedback import FeedbackStore, Instructions, schema
from prefrl.feedback.database import Database
from prefrl.feedback.register import PackNote
from prefrl.feedback.schema import row_sha
from tests.feedback.helpers import ask, segment
from tests.feedback.test_store import answer

SEGMENTS = [segment((float(i), 0.5), t0=i, ended=i == 2) for i in range(6)]
ASKED = [ask(SEGMENTS[2 * i], SEGMENTS[2 * i + 1], step=10 * i) for i in range(3)]
REPLIES = ("second", "skip", "cannot")


def insert(connection: sqlite3.Connection, table: str, **row: Any) -> None:
    row = {**row, "row_sha": row_sha(row)} if "sha256" not in row else row
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Three answers, written with the first migration's SQL alone; one query is still open."""
    from prefrl.feedback.rows import clip_row

    labels, clips = (sqlite3.connect(tmp_path / n) for n in ("labels.db", "clips.db"))
    for connection, made in ((labels, schema.LABELS), (clips, schema.CLIPS)):
        for statement in made.migrations[0]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={made.application_id}")
        connection.execute("PRAGMA user_version=1")
    insert(labels, "run", id=1, task="Dot", seed=7)
    for s in SEGMENTS:
        insert(clips, "clip", **clip_row(s))
        p = s.provenance
        insert(
            labels, "segment_ref", id=s.id, task=p.task, seed=p.seed, policy_step=p.policy_step,
            env=p.env, episode=p.episode, t0=p.t0, steps=len(s), ended=int(s.ended),
            true_reward=s.true_reward.tobytes(),
        )  # fmt: skip
    for q in ASKED:
        about = {"policy_step": q.policy_step, "reason": q.reason, "priority": q.priority}
        insert(labels, "query", id=q.id, segments=json.dumps(q.segments), **about)
    for seq, (q, choice) in enumerate(zip(ASKED, REPLIES, strict=True), start=1):
        text, live = json.dumps({"choice": choice}), int(choice != "skip")
        about = {"kind": "comparison", "answer": text, "live": live}
        insert(labels, "label", seq=seq, id=f"old {seq}", query=q.id, rater="ann", **about)
    for connection in (labels, clips):
        connection.commit()
        connection.close()
    return tmp_path


def test_a_store_of_the_first_schema_is_found_whole(old: Path) -> None:
    with FeedbackStore.open(old) as store:
        store.check()
        assert (store.task, store.seed) == ("Dot", 7)
        assert [s.true_reward.tolist() for s in store.segments()] == [
            s.true_reward.tolist() for s in SEGMENTS
        ]
        assert list(store.queries()) == ASKED
        got = [(x.seq, x.id, x.query, x.comparison.choice) for x in store.labels(after=0)]
        assert got == [(1, "old 1", ASKED[0], "second"), (3, "old 3", ASKED[2], "cannot")]
        assert store.counts() == {"segments": 6, "queries": 3, "labels": 2, "skips": 1}
        assert [(a.seq, a.kind) for a in store.acts()] == [(2, "skip")]
        assert store.instructions().version == 0
        assert store.pictures(SEGMENTS[0].id) is None


def test_a_store_of_the_first_schema_goes_on(old: Path) -> None:
    with FeedbackStore.open(old) as store:
        assert store.queue.next_normal("bob", now=0.0, cap=None) == ASKED[1].id
        assert store.queue.next_normal("ann", now=0.0, cap=None) is None  # she skipped it
        assert store.submit_many([answer(ASKED[1], rater="bob")]) == ["ok"]
        assert store.submit_many([answer(ASKED[0], rater="bob")]) == ["extra"]
        store.check()
    connection = sqlite3.connect(old / "labels.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.LABELS.migrations),)
    connection.close()


def test_a_store_of_the_first_schema_takes_consents_and_packs(old: Path) -> None:
    with FeedbackStore.open(old) as store:
        assert store.consents() == []
        store.write_session(
            id="s1", rater="bob", app="", started=5.0, agreed=Instructions(version=0, text="near")
        )
        with store.writing(answers=False):
            store.register.note_pack(id="p", rater="bob", queries=[ASKED[0].id], made=6.0)
    with FeedbackStore.open(old) as store:
        store.check()
        assert [c.session for c in store.consents()] == ["s1"]
        assert store.register.pack("p") == PackNote(
            id="p", rater="bob", queries=(ASKED[0].id,), made=6.0
        )


def test_a_store_that_another_process_migrates_meanwhile_is_no_damage(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Database._pragma

    def disturbed(self: Database, name: str) -> int:
        value = look(self, name)
        other = sqlite3.connect(old / "labels.db", timeout=0, isolation_level=None)
        with contextlib.suppress(sqlite3.OperationalError):  # locked
            other.execute("BEGIN")
            for statement in (s for step in schema.LABELS.migrations[1:] for s in step):
                other.execute(statement)
            other.execute(f"PRAGMA user_version={len(schema.LABELS.migrations)}")
            other.execute("COMMIT")
        other.close()
        return value

    monkeypatch.setattr(Database, "_pragma", disturbed)
    FeedbackStore.open(old).close()


@pytest.mark.parametrize("version", range(1, len(schema.LABELS.migrations)))
def test_every_earlier_schema_leads_to_the_newest(old: Path, version: int) -> None:
    connection = sqlite3.connect(old / "labels.db")
    for statements in schema.LABELS.migrations[1:version]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version={version}")
    connection.commit()
    connection.close()
    with FeedbackStore.open(old) as store:
        store.check()
        assert [x.seq for x in store.labels(after=0)] == [1, 3]
        assert store.open_queries() == 1


def test_queries_are_hashed_as_the_first_schema_hashed_them(old: Path) -> None:
    from prefrl.feedback.rows import query_row

    connection = sqlite3.connect(old / "labels.db")
    stored = connection.execute("SELECT row_sha FROM query ORDER BY rowid").fetchall()
    connection.close()
    assert [query_row(q)["row_sha"] for q in ASKED] == [row[0] for row in stored]
