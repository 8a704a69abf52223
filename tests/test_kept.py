"""Kept results of benchmarks are never taken for those of other settings."""

from pathlib import Path

import pytest

from benchmarks.kept import kept


def refuse() -> None:
    raise AssertionError("made once more")


def test_what_is_finished_is_read_and_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    made = kept(path, {"steps": (1, 2)}, lambda: {"final": 3.5})
    assert made["result"] == {"final": 3.5}
    assert {"settings", "commit", "machine"} <= made.keys()
    assert kept(path, {"steps": (1, 2)}, refuse) == made
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_what_other_settings_made_is_refused_by_name(tmp_path: Path) -> None:
    kept(tmp_path / "a.json", {"lr": 1, "seed": 2}, dict)
    with pytest.raises(SystemExit, match=r"other settings \(lr, steps\)"):
        kept(tmp_path / "a.json", {"lr": 3, "seed": 2, "steps": 4}, refuse)


def test_what_is_older_than_settings_are_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"seed": 0, "final": 1.0}')
    with pytest.raises(SystemExit, match="other settings"):
        kept(tmp_path / "a.json", {"lr": 3}, refuse)
