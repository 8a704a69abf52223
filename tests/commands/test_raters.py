"""`prefrl raters`: a table, a picture, a page, and a person removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefrl.cli import main
from prefrl.feedback import Comparison, Desk, DeskConfig, FeedbackStore, Viewing
from prefrl.feedback.database import Database
from prefrl.feedback.mirror import Mirror
from tests.feedback.helpers import filled

EVIL = "<script>alert(1)</script>"
ODD = "_ann$x_{$"  # what matplotlib would read as a formula, and leave out of a legend


def rated(run: Path, *names: str) -> None:
    store, _ = filled(run, 12, need=len(names))
    with store:
        for name in names:
            desk = Desk(store, rater=name, config=DeskConfig(repeat_share=0.0))
            for one in desk.take(12):
                viewing = Viewing(order=one.order, key="Left", seconds=2.0, loops=1.0, speed=1.0,
                                  first_frame_seconds=0.1, note="by " + name)  # fmt: skip
                desk.submit(one, Comparison(choice="first"), viewing)


def test_raters_are_measured_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rated(tmp_path, "ann", EVIL, ODD)
    assert main(["raters", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "ann" in out
    assert "Raw agreement 100 %" in out
    assert (tmp_path / "report" / "raters.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "raters.html").read_text()
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_person_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rated(tmp_path, "Ann-Kathrin", "bob")
    assert main(["raters", str(tmp_path)]) == 0
    shown = ("report/index.html", "report/mistakes.png", "report/mistakes/0.mp4",
             "videos/queries/ab.mp4")  # fmt: skip
    for name in shown:  # as prefrl report and prefrl clips write them
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Ann-Kathrin: the left one is better")
    (tmp_path / "videos" / "final.mp4").write_text("of nobody")
    assert main(["raters", str(tmp_path), "--forget", "Ann-Kathrin"]) == 0
    assert (tmp_path / "videos" / "final.mp4").exists()
    assert "forgotten-" in capsys.readouterr().out
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert all(b"Ann-Kathrin" not in p.read_bytes() for p in files)
    with FeedbackStore.open(tmp_path) as store:
        assert {x.rater for x in store.labels(after=0)} == {"bob"}
        assert len(store.answers()) == 24
    assert main(["raters", str(tmp_path), "--forget", "Ann-Kathrin"]) == 2


def test_a_removal_that_was_cut_short_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its report is older than the removal and goes; one made since stays."""
    rated(tmp_path, "Ann-Kathrin", "bob")
    old, new = tmp_path / "answers.csv", tmp_path / "answers.jsonl"
    old.write_text("Ann-Kathrin,first")
    os.utime(old, (9.0, 9.0))
    with FeedbackStore.open(tmp_path) as store, monkeypatch.context() as cut:
        cut.setattr(Mirror, "rewrite", killed)
        cut.setattr(Database, "vacuum", killed)
        with pytest.raises(KeyboardInterrupt):
            store.forget("Ann-Kathrin")
    new.write_text("bob,first")
    assert b"Ann-Kathrin" in (tmp_path / "labels.jsonl").read_bytes()
    assert main(["raters", str(tmp_path), "--forget", "Ann-Kathrin"]) == 2
    assert "no rater 'Ann-Kathrin'" in capsys.readouterr().err
    assert new.exists()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert all(b"Ann-Kathrin" not in p.read_bytes() for p in files)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_nobody_of_that_name_costs_no_file(tmp_path: Path) -> None:
    rated(tmp_path, "bob")
    (tmp_path / "answers.csv").write_text("bob,first")
    assert main(["raters", str(tmp_path), "--forget", "bop"]) == 2
    assert (tmp_path / "answers.csv").exists()


def test_nobody_has_answered_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)[0].close()
    assert main(["raters", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nobody has answered yet\n"
    assert main(["raters", str(tmp_path / "nowhere")]) == 2
