"""Answers out of a run and into another: nothing is lost, nothing doubled, nothing hidden shown."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.feedback import FeedbackStore
from prefrl.feedback.archive import Archive
from prefrl.feedback.columns import COLUMNS, from_cell, to_cell
from prefrl.feedback.entries import read_entries
from prefrl.feedback.export import rows_of
from prefrl.feedback.files import FORMATS, read_table, write_table
from prefrl.feedback.intake import take_in
from tests.feedback.helpers import ask, segment
from tests.feedback.tables import IDS, PAIRS, SEEN, asked, lived, said
from tests.feedback.test_store import answer


def export(store: FeedbackStore, path: Path) -> Path:
    write_table(rows_of(store), path, to=path.suffix[1:])
    return path


def bring(store: FeedbackStore, path: Path) -> dict[str, int]:
    return take_in(store, read_entries(read_table(path), file=path), file=path).counts


def files_of(directory: Path) -> dict[str, bytes]:
    names = ("labels.db", "clips.db", "labels.jsonl")
    return {name: (directory / name).read_bytes() for name in names}


@pytest.mark.parametrize("to", FORMATS)
def test_a_run_without_answers_becomes_the_run_that_was_exported(tmp_path: Path, to: str) -> None:
    with lived(tmp_path / "old") as old, asked(tmp_path / "new") as new:
        path = export(old, tmp_path / f"answers.{to}")
        assert bring(new, path) == {
            "ok": 9, "extra": 2, "stale": 1, "flag": 1, "withdrawn": 1,
        }  # fmt: skip
        assert said(new) == said(old)
        new.check()
        assert [x.id for x in new.labels(after=0)] == [x.id for x in old.labels(after=0)]
        before, mirror = said(new), (tmp_path / "new" / "labels.jsonl").read_bytes()
        assert bring(new, path) == {"dup": 13}
        assert said(new) == before
        assert (tmp_path / "new" / "labels.jsonl").read_bytes() == mirror


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_read_is_the_rows_written(tmp_path: Path, to: str) -> None:
    with lived(tmp_path / "run") as store:
        rows = list(rows_of(store))
        path = export(store, tmp_path / f"answers.{to}")
    assert [row for _, row in read_table(path)] == rows
    assert list(tmp_path.glob("*.new")) == []


def test_a_row_says_all_that_is_known_and_nothing_hidden(tmp_path: Path) -> None:
    with lived(tmp_path) as store:
        first, second, third, *_ = rows_of(store)
    assert list(first) == list(COLUMNS)
    got = {name: value for name, value in first.items() if value not in (None, "")}
    assert got == {
        "format": 1, "seq": 1, "answer": "a1", "kind": "comparison", "choice": "first",
        "note": SEEN.note, "status": "ok", "live": False, "withdrawn": 2, "rater": "ann",
        "time": 100.25, "session": "s1", "session_started": 90.0, "app": "viewer 1",
        "consent_version": 1, "consent_time": 90.0, "instructions": 1,
        "consent_sha256": hashlib.sha256(b"nearer is better").hexdigest(),
        "shown": [1, 0], "key": "Left", "response_seconds": 2.5, "first_frame_seconds": 0.1,
        "loops": 1.5, "speed": 0.25, "query": PAIRS[0].id, "form": "comparison",
        "purpose": "normal", "need": 1, "reason": "uniform", "priority": 0.0, "asked_at_step": 0,
        "segments": IDS[:2], "segment_tasks": ["Dot", "Dot"], "segment_seeds": [7, 7],
        "segment_policy_steps": [128, 128], "segment_envs": [3, 3], "segment_episodes": [2, 2],
        "segment_t0s": [0, 1], "segment_steps": [2, 2], "run_task": "Dot", "run_seed": 7,
    }  # fmt: skip
    assert (second["supersedes"], second["live"], second["withdrawn"]) == ("a1", True, None)
    assert (third["live"], third["withdrawn"]) == (False, 4)  # the undo had seq 4


def test_an_export_beside_a_live_run_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lived(tmp_path) as store, FeedbackStore.open(tmp_path) as trainer:
        monkeypatch.setattr(Archive, "places", grown_by(trainer, Archive.places))
        assert len(list(rows_of(store))) == 13
        assert len(list(rows_of(store))) == 14


def grown_by(trainer: FeedbackStore, read: Callable[[Archive], Any]) -> Callable[[Archive], Any]:
    """Reads, and then the trainer asks and answers something new."""

    def and_grow(archive: Archive) -> Any:
        found = read(archive)
        step = 1000 + trainer.counts()["segments"]
        a, b = segment((1.0, 0.5), t0=step), segment((2.0, 0.5), t0=step + 1)
        trainer.add_segments([a, b])
        trainer.add_queries([ask(a, b, step=step)])
        trainer.submit_many([answer(ask(a, b, step=step), rater="oracle")])
        return found

    return and_grow


def test_no_cell_of_a_csv_begins_like_a_formula(tmp_path: Path) -> None:
    with lived(tmp_path) as store:
        path = export(store, tmp_path / "answers.csv")
    cells = [cell for row in csv.reader(path.open(newline="")) for cell in row]
    wrong = [c for c in cells if c[:1] in ("=", "+", "@", "\t", "\r") and c]
    assert wrong == []
    assert [c for c in cells if c.startswith("-") and c != "-0.5"] == []  # a number is none
    assert '\'=SUM(A1), "quoted"\nund Grüße' in cells


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "＝1", "'x", "''", "'=1", "x", ""])
def test_what_is_kept_from_being_a_formula_comes_back_as_it_was(text: str) -> None:
    assert from_cell("note", to_cell("note", text)) == text
    assert not to_cell("note", text).startswith(("=", "+", "-", "@", "\t", "＝"))


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    with lived(tmp_path) as store:
        before = (tmp_path / "labels.db").read_bytes()
        with pytest.raises(UserError, match="exists: remove it, or name another"):
            write_table(rows_of(store), tmp_path / "labels.db", to="csv")
        assert (tmp_path / "labels.db").read_bytes() == before


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with lived(tmp_path / "run") as store, pytest.raises(UserError, match=r"prefrl\[parquet\]"):
        export(store, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"prefrl\[parquet\]"):
        list(read_table(tmp_path / "b.parquet"))


def test_pairs_written_by_hand_need_three_columns(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    pair = json.dumps(IDS[5:7]).replace('"', '""')
    path.write_text(f'rater,choice,segments\nann,second,"{pair}"\nbob,tie,"{pair}"\n')
    with asked(tmp_path / "run") as store:
        assert bring(store, path) == {"ok": 1, "extra": 1}
        assert bring(store, path) == {"dup": 2}
        (label,) = store.labels(after=0)
        assert (label.query.segments, label.query.reason) == (tuple(IDS[5:7]), "import")
        assert label.comparison.target == 1.0
        store.check()


@pytest.mark.parametrize("to", FORMATS)
def test_a_probability_goes_out_and_comes_in(tmp_path: Path, to: str) -> None:
    pair, path = list(IDS[5:7]), tmp_path / f"judge.{to}"
    row = dict.fromkeys(COLUMNS)
    write_table([row | {"rater": "judge", "choice": "first", "second": 0.2, "segments": pair}],
                path, to=to)  # fmt: skip
    with asked(tmp_path / "run") as store:
        assert bring(store, path) == {"ok": 1}
        (label,) = store.labels(after=0)
        assert label.comparison.target == 0.2
        out = export(store, tmp_path / f"out.{to}")
    ((_, found),) = read_table(out)
    assert (found["choice"], found["second"]) == ("first", 0.2)


def test_a_later_undo_arrives_with_the_next_file(tmp_path: Path) -> None:
    with lived(tmp_path / "old") as old, asked(tmp_path / "new") as new:
        bring(new, export(old, tmp_path / "1.jsonl"))
        with old.writing():
            old.ledger.undo("a2", rater="ann", time=6.0)
        assert bring(new, export(old, tmp_path / "2.jsonl")) == {"dup": 13, "withdrawn": 1}
        assert [x.id for x in new.labels(after=0)] == [x.id for x in old.labels(after=0)]
        new.check()


def changed(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**row, **changes}.items() if value is not ...}


WRONG = {
    "an unknown column": ({"chioce": "first"}, "unknown column 'chioce'; did you mean 'choice'?"),
    "no rater": ({"rater": ...}, "rater: got '', wanted 1 to 128"),
    "a rater that steers the terminal": ({"rater": "a\x1b[31m"}, "characters that can be printed"),
    "an unknown choice": ({"choice": "left"}, "choice: got 'left', wanted one of first"),
    "two replies": ({"rating": 3}, "reply: got choice and rating, wanted one of"),
    "no reply": ({"choice": ...}, "reply: got none"),
    "a probability of the other side": ({"second": 0.75}, "second: got 0.75 beside first, wanted"),
    "a probability of a rating": (
        {"choice": ..., "rating": 3, "second": 0.5}, "second: got 0.5, wanted it beside choice"
    ),
    "another kind": ({"kind": "rating"}, "kind: got 'rating', but the reply is a comparison"),
    "a number as text": ({"seq": "3"}, "seq: got '3', wanted a whole number"),
    "a truth as number": ({"live": 1}, "live: got '1', wanted true or false"),
    "a huge number": ({"seq": 2**64}, "seq: got '18446744073709551616', wanted a whole number"),
    "negative seconds": ({"response_seconds": -1.0}, "viewing.seconds: got -1.0, wanted 0 or more"),
    "half a viewing": ({"loops": ...}, "loops: got none, wanted it beside `shown`"),
    "a note without a viewing": ({"shown": ...}, "note: wanted only beside shown"),
    "places that are none": ({"shown": [0, 2]}, "viewing.order: got"),
    "a viewing of three": ({"shown": [0, 2, 1]}, "got a viewing in the order"),
    "an unknown segment": ({"segments": [IDS[0], "0" * 64], "query": ...}, "is not in this run"),
    "a segment that is no id": ({"segments": ["../x", IDS[0]]}, "wanted 64 hexadecimal digits"),
    "one segment twice": ({"segments": [IDS[0]] * 2}, "wanted 2 to 2, distinct"),
    "another query's id": ({"query": PAIRS[1].id}, f"but what it asks has the id {PAIRS[0].id}"),
    "an unknown query": (
        {"query": "0" * 64, "segments": ...}, "query " + "0" * 64 + " is not in the store"
    ),
    "segments of another query": (
        {"query": PAIRS[1].id, "asked_at_step": ...}, "segments: got"
    ),
    "neither query nor segments": ({"query": ..., "segments": ...}, "query: got none, wanted its"),
    "an unknown form": ({"form": "duel"}, "query.form: got 'duel'"),
    "an unknown purpose": ({"purpose": "fun", "query": ...}, "query.purpose: got 'fun'"),
    "gold without an answer": (
        {"purpose": "gold", "query": ..., "asked_at_step": 5}, "expected: a gold query"
    ),
    "a repeat of nothing": (
        {"purpose": "repeat", "repeat_of": "0" * 64, "query": ...}, "is not in the store"
    ),
    "a far future": ({"time": 1e12}, "the rater's clock was wrong"),
    "a time before 1970": ({"time": -5.0}, "the rater's clock was wrong"),
    "a withdrawal before the answer": ({"seq": 5, "withdrawn": 5}, "wanted more than its seq, 5"),
    "another format": ({"format": 2}, "format: got 2, wanted 1: update prefrl"),
    "a supersession of nothing": ({"answer": "x", "supersedes": "y"}, "supersedes none"),
    "an edit where there is none": ({"edited": IDS[0]}, "edited: wanted only beside an edit"),
    "a sitting that is no name": ({"session": " "}, "answer.session: got ' '"),
    "a consent to nothing": ({"consent_sha256": "x"}, "consent_sha256: wanted 64"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_named_by_its_line_and_nothing_is_stored(tmp_path: Path, name: str) -> None:
    changes, message = WRONG[name]
    with lived(tmp_path / "old") as old:
        good, first = list(rows_of(old))[5], next(rows_of(old))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (good, changed(first, **changes))))
    with asked(tmp_path / "run") as store:
        before = files_of(tmp_path / "run")
        with pytest.raises(UserError) as caught:
            bring(store, path)
    assert f"{path}:2: " in str(caught.value)
    assert message in str(caught.value)
    assert files_of(tmp_path / "run") == before


BROKEN = {
    "nan.jsonl": (b'{"rater": "ann", "time": NaN}', "got NaN, wanted a finite number"),
    "inf.jsonl": (b'{"rater": "ann", "time": 1e999}', "time: got 'inf', wanted a finite number"),
    "twice.jsonl": (b'{"rater": "ann", "rater": "bob"}', "a key twice"),
    "deep.jsonl": (b"[" * 100_000, "nested too deeply"),
    "list.jsonl": (b"[1, 2]", "wanted a JSON object"),
    "torn.jsonl": (b'{"rater": "an', "Unterminated string"),
    "latin.jsonl": (b'{"rater": "\xe4nn"}', "not UTF-8"),
    "long.jsonl": (b'{"rater": "' + b"a" * 2**20 + b'"}', "longer than"),
    "latin.csv": (b"rater,choice\nann,first\n\xe4nn,first\nbob,tie\n", ":3: not UTF-8"),
    "empty.jsonl": (b"\n", "has no rows"),
    "empty.csv": (b"", "has no rows"),
    "header.csv": (b"rater;choice\nann;first\n", "unknown column 'rater;choice'"),
    "twice.csv": (b"rater,rater\na,b\n", "column 'rater' twice"),
    "cells.csv": (b"rater,choice\nann\n", "got 1 cells, wanted 2"),
    "list.csv": (b"rater,segments\nann,pickle\n", ":2: "),
    "number.csv": (b"rater,rating\nann,nine\n", "rating: got 'nine', wanted a whole number"),
    "quote.csv": (b'rater,choice\nann,"first\n', ":2: "),
    "text.parquet": (b"not parquet", "Parquet"),
    "torn.parquet": (b"PAR1" + b"\xff" * 64 + b"PAR1", ":0: "),
    "db.csv": (b"SQLite format 3\0" + b"\0" * 84, "unknown column"),
    "answers.pkl": (b"\x80\x04.", "wanted .csv, .jsonl or .parquet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_table(tmp_path / name))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at_once", [1, 200])
def test_an_answer_that_is_known_with_other_words_is_refused_with_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("prefrl.feedback.intake.AT_ONCE", at_once)
    with lived(tmp_path / "old") as old, asked(tmp_path / "new") as new:
        path = export(old, tmp_path / "a.jsonl")
        new.submit_many([dataclasses.replace(answer(PAIRS[1], "second"), id="b1")])
        before = files_of(tmp_path / "new")
        with pytest.raises(UserError, match=r"a\.jsonl:3: answer: b1 is in this run already"):
            bring(new, path)
        assert files_of(tmp_path / "new") == before


def test_an_import_that_was_cut_short_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefrl.feedback.intake.AT_ONCE", 4)
    begun, writing = [], FeedbackStore.writing

    def killed(store: FeedbackStore) -> AbstractContextManager[None]:
        begun.append(store)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return writing(store)

    with lived(tmp_path / "old") as old, asked(tmp_path / "new") as new:
        path = export(old, tmp_path / "a.jsonl")
        with monkeypatch.context() as patch:
            patch.setattr(FeedbackStore, "writing", killed)
            with pytest.raises(KeyboardInterrupt):
                bring(new, path)
        assert 0 < new.ledger.newest() < old.ledger.newest()
        bring(new, path)
        assert said(new) == said(old)
        new.check()


def test_the_commands_write_a_file_and_take_it_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lived(tmp_path / "old").close()
    asked(tmp_path / "new").close()
    assert main(["export", str(tmp_path / "old"), "--to", "csv"]) == 0
    assert "answers.csv: 13 answers" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "new"), str(tmp_path / "old" / "answers.csv")]) == 0
    assert "9 new answers; " in capsys.readouterr().out
    assert main(["import", str(tmp_path / "new"), str(tmp_path / "gone.csv")]) == 2
    assert "gone.csv is not a file" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "old"), "--to", "csv"]) == 2


def test_a_forgotten_person_is_not_left_in_the_runs_own_export(tmp_path: Path) -> None:
    lived(tmp_path).close()
    assert main(["export", str(tmp_path), "--to", "jsonl"]) == 0
    assert b'"-bob"' in (tmp_path / "answers.jsonl").read_bytes()
    assert main(["raters", str(tmp_path), "--forget=-bob"]) == 0
    assert [
        p.name for p in tmp_path.rglob("*") if p.is_file() and b'"-bob"' in p.read_bytes()
    ] == []


def test_the_documentation_explains_every_column() -> None:
    text = (Path(__file__).parents[2] / "docs" / "feedback_files.md").read_text()
    listed = [line for line in text.splitlines() if line.startswith("| `")]
    assert listed == [f"| `{c.name}` | {c.kind} | {c.about} |" for c in COLUMNS.values()]
