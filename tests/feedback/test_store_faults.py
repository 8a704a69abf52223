"""The store under damage, kills, a full disk, and other programs' files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prefrl.errors import UserError
from prefrl.feedback import DamagedStore, DiskFull, FeedbackStore, schema
from tests.feedback.helpers import filled
from tests.feedback.test_store import answer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A closed store with three labels."""
    store, queries = filled(tmp_path)
    with store:
        store.submit_many([answer(q) for q in queries])
    return tmp_path


def sql(path: Path, *statements: str) -> None:
    """Change a database behind the store's back."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def contents(directory: Path) -> list[object]:
    """All that a store holds, after checking it."""
    with FeedbackStore.open(directory) as store:
        store.check()
        segments = [(s.id, s.true_reward.tolist(), s.clip) for s in store.segments()]
        return [store.task, store.seed, segments, [*store.queries()], store.labels(after=0)]


@pytest.mark.parametrize(
    "change",
    [
        """label SET answer = '{"choice": "second"}' WHERE seq = 2""",
        "label SET rater = 'bob' WHERE seq = 2",
        "label SET live = 0 WHERE seq = 2",
        "label SET seq = 9 WHERE seq = 2",
        "label SET row_sha = x'00' WHERE seq = 2",
        "query SET policy_step = policy_step + 1",
    ],
)
def test_a_changed_label_or_query_is_not_read(run: Path, change: str) -> None:
    sql(run / "labels.db", f"UPDATE {change}")
    with pytest.raises(DamagedStore, match=r"labels\.jsonl"), FeedbackStore.open(run) as store:
        store.labels(after=0)


@pytest.mark.parametrize(
    "change",
    [
        "segment_ref SET true_reward = zeroblob(16)",
        "segment_ref SET ended = 1",
        "run SET task = 'Pong'",
    ],
)
def test_a_changed_row_is_found_by_a_check(run: Path, change: str) -> None:
    sql(run / "labels.db", f"UPDATE {change}")
    with pytest.raises(DamagedStore, match="is not what was written"):
        contents(run)


@pytest.mark.parametrize(
    "change", ["view = substr(view, 1, 90)", "recipe = x'00'", "sha256 = x'00'"]
)
def test_a_changed_clip_is_not_read(run: Path, change: str) -> None:
    sql(run / "clips.db", f"UPDATE clip SET {change}")
    with FeedbackStore.open(run) as store:
        label = store.labels(after=0)[0]
        with pytest.raises(DamagedStore, match=r"clip .* is not what was written"):
            store.segment(label.query.segments[0])


def test_swapped_clips_are_not_read(run: Path) -> None:
    sql(
        run / "clips.db",
        "CREATE TABLE old AS SELECT * FROM clip",
        """UPDATE clip SET (view, recipe, sha256) = (SELECT view, recipe, sha256 FROM old
           WHERE old.id != clip.id LIMIT 1)""",
        "DROP TABLE old",
    )
    with pytest.raises(DamagedStore, match="is not what was written"):
        contents(run)


@pytest.mark.parametrize("name", ["labels.db", "clips.db"])
def test_a_flipped_bit_is_noticed_or_harmless(run: Path, name: str) -> None:
    wanted, data = contents(run), (run / name).read_bytes()
    generator, noticed = random.Random(0), 0
    for _ in range(60):
        flipped = bytearray(data)
        flipped[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        (run / name).write_bytes(flipped)
        try:
            assert contents(run) == wanted
        except UserError:
            noticed += 1
    assert noticed > 0


@pytest.mark.parametrize("size", [0, 100, 4096, 9000])
def test_a_cut_database_is_noticed(run: Path, size: int) -> None:
    data = (run / "labels.db").read_bytes()
    (run / "labels.db").write_bytes(data[:size])
    with pytest.raises(DamagedStore, match=r"labels\.db is damaged.*labels\.jsonl"):
        FeedbackStore.open(run)
    assert (run / "labels.db").read_bytes() == data[:size]


def test_missing_clips_are_noticed(run: Path) -> None:
    (run / "clips.db").unlink()
    with pytest.raises(UserError, match=r"no clips\.db"):
        FeedbackStore.open(run)
    assert not (run / "clips.db").exists()


def test_another_programs_database_is_refused_and_left_alone(run: Path) -> None:
    path = run / "labels.db"
    path.unlink()
    sql(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"is not a labels\.db of prefrl"):
        FeedbackStore.open(run)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "foreign",
    [
        "CREATE TRIGGER sneak AFTER INSERT ON label BEGIN DELETE FROM label; END",
        "CREATE VIEW sneak AS SELECT * FROM label",
        "CREATE TABLE sneak (x)",
        "DROP INDEX one_vote",
        "ALTER TABLE label ADD COLUMN sneak",
    ],
)
def test_tables_that_are_not_ours_are_refused_before_any_is_read(run: Path, foreign: str) -> None:
    sql(run / "labels.db", foreign)
    before = (run / "labels.db").read_bytes()
    with pytest.raises(DamagedStore, match="its tables are not those of prefrl"):
        FeedbackStore.open(run)
    assert (run / "labels.db").read_bytes() == before


def test_a_newer_database_is_refused_and_left_alone(run: Path) -> None:
    sql(run / "labels.db", "PRAGMA user_version = 99")
    before = (run / "labels.db").read_bytes()
    with pytest.raises(UserError, match=r"newer prefrl \(schema 99.*update prefrl"):
        FeedbackStore.open(run)
    assert (run / "labels.db").read_bytes() == before


def test_the_oldest_schema_is_never_edited() -> None:
    """Databases of version 1 exist: a change of their tables is a new migration."""
    text = "".join(" ".join(s.split()) for s in schema.LABELS.migrations[0])
    text += "".join(" ".join(s.split()) for s in schema.CLIPS.migrations[0])
    assert (
        schema.row_sha({"text": text}).hex()
        == "ffd7147c9823c72b1ddbd022ab0b3e5879c56720cc95359f76231b10c8620992"
    )


def test_a_lagging_mirror_with_a_torn_line_is_topped_up(run: Path) -> None:
    mirror = run / "labels.jsonl"
    whole = mirror.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        mirror.write_bytes(whole[:cut])
        FeedbackStore.open(run).close()
        assert mirror.read_bytes() == whole
    mirror.write_bytes(whole + b'{"seq": 4, "id": ')
    FeedbackStore.open(run).close()
    assert mirror.read_bytes() == whole
    mirror.unlink()
    FeedbackStore.open(run).close()
    assert mirror.read_bytes() == whole


def test_a_database_older_than_its_mirror_is_refused(run: Path) -> None:
    sql(run / "labels.db", "DELETE FROM label WHERE seq = 3")
    with pytest.raises(DamagedStore, match=r"ends at label 2, .* at 3"):
        FeedbackStore.open(run)


def test_answers_without_their_database_are_not_built_over(run: Path) -> None:
    (run / "labels.db").unlink()
    with pytest.raises(UserError, match=r"without their labels\.db"):
        FeedbackStore.create(run, task="Dot", seed=7)


def test_a_creation_that_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "labels.db.new").write_bytes(b"half of it")
    (tmp_path / "labels.db.new-journal").write_bytes(b"and its journal")
    filled(tmp_path)[0].close()
    assert not (tmp_path / "labels.db.new").exists()


def test_a_full_disk_frees_the_reserve_and_loses_nothing(tmp_path: Path) -> None:
    store, queries = filled(tmp_path, need=200)
    with store:
        store.submit_many([answer(queries[0])])
        before = store.labels(after=0)
        handle = store._labels._handle
        handle.execute("PRAGMA max_page_count = 1")  # as many as there are: no room to grow
        many = [answer(queries[1], rater=f"rater {i}") for i in range(200)]
        with pytest.raises(DiskFull, match="a reserve of 8 MB has been freed"):
            store.submit_many(many)
        assert not (tmp_path / "reserve.bin").exists()
        assert store.labels(after=0) == before
        with pytest.raises(DiskFull, match="reserve is used up"):
            store.submit_many(many)
        handle.execute("PRAGMA max_page_count = 100000")
        assert store.submit_many(many) == ["ok"] * 200
    with FeedbackStore.open(tmp_path) as store:
        assert store.counts()["labels"] == 201
    assert (tmp_path / "reserve.bin").stat().st_size == 8 * 2**20


class NoRoom:
    """A connection on a disk that has no room for a second copy of the file."""

    def __init__(self, handle: sqlite3.Connection) -> None:
        self._handle = handle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql == "VACUUM":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._handle.execute(sql, *values)


def test_a_full_disk_says_of_a_removal_what_is_done_and_what_is_left(run: Path) -> None:
    with FeedbackStore.open(run) as store:
        store._labels._handle = NoRoom(store._labels._handle)  # type: ignore[assignment]
        with pytest.raises(DiskFull, match=r"all is stored, but traces .* the same command again"):
            store.forget("ann")
        assert [label.rater for label in store.labels(after=0)] == []
    assert b'"ann"' not in (run / "labels.jsonl").read_bytes()


def test_a_fork_may_not_use_its_parents_connection(run: Path) -> None:
    with FeedbackStore.open(run) as store:
        store._labels._pid = os.getpid() + 1
        with pytest.raises(RuntimeError, match="open the store after forking"):
            store.labels(after=0)
        store._labels._pid = os.getpid()


def test_pragmas_are_those_of_the_power_loss_tests(run: Path) -> None:
    with FeedbackStore.open(run) as store:
        for database in (store._labels, store._clips):
            got = {
                name: database.rows(f"PRAGMA {name}")[0][0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
            }
            assert got == {
                "journal_mode": "truncate",
                "synchronous": 2,
                "foreign_keys": 1,
                "trusted_schema": 0,
            }


RATER = """
import sys
from prefrl.feedback import Answer, Comparison, FeedbackStore
with FeedbackStore.open(sys.argv[1]) as store:
    query = next(store.queries()).id
    for i in range(10**6):
        sent = Answer(
            id=f"{sys.argv[2]}-{i}", query=query, rater=f"{sys.argv[2]}-{i}",
            reply=Comparison(choice="tie"),
        )
        store.submit_many([sent])
        print(sent.id, flush=True)
"""


def test_no_acknowledged_answer_is_lost_to_kills(tmp_path: Path) -> None:
    filled(tmp_path)[0].close()
    acknowledged: list[str] = []
    for kill, count in enumerate((1, 6, 11, 23)):
        with subprocess.Popen(
            [sys.executable, "-c", RATER, str(tmp_path), str(kill)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        ) as rater:
            assert rater.stdout is not None
            lines = [rater.stdout.readline() for _ in range(count)]
            rater.send_signal(signal.SIGKILL)
            lines += rater.stdout.readlines()
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
        image = tmp_path / f"image {kill}"
        image.mkdir()
        for name in ("labels.db", "labels.db-journal", "labels.jsonl", "clips.db"):
            shutil.copy(tmp_path / name, image / name)
        contents(image)
    with FeedbackStore.open(tmp_path) as store:
        stored = [label.id for label in store.feedback()]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(stored) - len(acknowledged) <= 4  # stored, then killed before the word got out
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == len(stored)
