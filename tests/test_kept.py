"""Kept results of benchmarks are never taken for those of other settings."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kept import kept, machine, same_settings, with_earlier


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


def test_other_seeds_stay_and_the_same_is_replaced() -> None:
    def run(seed: int, final: float) -> dict[str, float]:
        return {"seed": seed, "final": final}

    joined = with_earlier([run(1, 5.0)], [run(2, 4.0), run(1, 3.0)], seed=lambda x: int(x["seed"]))
    assert joined == [run(1, 5.0), run(2, 4.0)]


def test_settings_are_compared_as_json_has_them() -> None:
    assert same_settings({"points": (0, 1)}, {"points": [0, 1]})
    assert not same_settings({"points": (0, 1)}, {"points": [0, 2]})
    assert not same_settings(None, {"points": [0, 1]})


def test_a_table_keeps_seeds_of_earlier_days_where_the_recipe_is_still_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    learning = importlib.import_module("learning")
    arm = learning.pong()[0]

    def one(seed: int, final: float) -> Any:
        result = learning.Result(
            seed=seed, final=final, steps=9, labels=3, minutes=1.0, curve=[(0, -21.0), (9, final)]
        )
        return learning.Kept(
            result=result, settings=learning.settings_of(arm), commit="c", machine=machine()
        )

    learning.write([(arm, [one(0, 15.0), one(2, 9.0)])], tmp_path)
    table = json.loads((tmp_path / "results.json").read_text())
    del table["Pong"]["settings"]["schedule"]  # as if it had come since, with this default
    (tmp_path / "results.json").write_text(json.dumps(table))
    assert [x.result.final for x in learning.earlier(tmp_path, arm)] == [15.0, 9.0]
    assert learning.earlier(tmp_path, dataclasses.replace(arm, settings={"labels": 9})) == []
    assert learning.earlier(tmp_path / "nowhere", arm) == []


def test_a_run_on_the_true_reward_is_kept_when_the_reward_model_s_recipe_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    learning = importlib.import_module("learning")
    learned, true = learning.robots()[:2]
    changed = {"model": {"members": 7}}
    for arm, same in ((true, True), (learned, False)):
        other = dataclasses.replace(arm, settings={**arm.settings, **changed})
        assert same_settings(learning.settings_of(arm), learning.settings_of(other)) == same
    faster = dataclasses.replace(true, settings={**true.settings, "ppo": {"lr": 1.0}})
    assert not same_settings(learning.settings_of(true), learning.settings_of(faster))


def test_a_table_says_when_a_target_was_first_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    learning = importlib.import_module("learning")
    returns = {1000: None, 2000: 14.0, 3000: 15.5, 4000: 14.0, 5000: 16.0}
    rows = [
        {"step": step} | ({} if value is None else {"episode/true_return": value})
        for step, value in returns.items()
    ]
    seconds = np.array([60.0, 120.0, 200.0, 240.0, 300.0])
    assert learning.first_at(15.0, rows, seconds) == (3000, 3.3)
    assert learning.first_at(17.0, rows, seconds) is None
    assert learning.first_at(None, rows, seconds) is None

    def one(seed: int, reached: tuple[int, float] | None, final: float = 16.0) -> Any:
        curve = [(0, -21.0), (9, final)]
        result = learning.Result(
            seed=seed, final=final, steps=9, labels=3, minutes=5.0, curve=curve, reached=reached
        )
        return learning.Kept(result=result, settings={}, commit="c", machine=machine())

    runs = [one(0, (1_130_000, 21.4)), one(1, None, 14.0), one(2, None)]
    learning.write([(learning.pong()[0], runs)], tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "15: 1.13M steps, 21 minutes (0), 15: not (1), 15: yes (2)" in table
