"""Metrics that survive a kill, and the mean of the last episodes."""

import json
import math
import re
from pathlib import Path

import pytest

from prefrl.loop.metrics import EpisodeStats, MetricsLog, ProgressLine, read_metrics
from prefrl.loop.rundir import RunDir


def log(path: Path, step: int, *rows: tuple[int, dict[str, float]]) -> Path:
    metrics = MetricsLog(RunDir(path=path), step=step)
    for at, figures in rows:
        metrics.write(at, figures)
    metrics.close()
    return path / "metrics.jsonl"


def steps(path: Path) -> list[float]:
    return [row["step"] for row in read_metrics(path)]


def test_each_rollout_is_one_json_object(tmp_path: Path) -> None:
    path = log(tmp_path, 0, (10, {"ppo/loss": 0.5}), (20, {"ppo/loss": 0.1 + 0.2}))
    assert read_metrics(path) == [
        {"step": 10, "ppo/loss": 0.5},
        {"step": 20, "ppo/loss": 0.1 + 0.2},
    ]
    assert any((tmp_path / "tensorboard").iterdir())


def test_nan_and_infinity_are_left_out_for_json_has_none(tmp_path: Path) -> None:
    path = log(tmp_path, 0, (10, {"a": math.nan, "b": math.inf, "c": 1.0}))
    assert path.read_text() == '{"step": 10, "c": 1.0}\n'


def test_a_resumed_run_trims_the_rows_it_will_log_again(tmp_path: Path) -> None:
    log(tmp_path, 0, (10, {"a": 1.0}), (20, {"a": 2.0}), (30, {"a": 3.0}))
    path = log(tmp_path, 20, (30, {"a": 4.0}))
    assert [(r["step"], r["a"]) for r in read_metrics(path)] == [(10, 1), (20, 2), (30, 4)]


@pytest.mark.parametrize("torn", ['{"step": 30, "a"', '{"step": 30', "{", "\0\0\0"])
def test_a_line_torn_by_a_kill_is_cut(torn: str, tmp_path: Path) -> None:
    path = log(tmp_path, 0, (10, {"a": 1.0}), (20, {"a": 2.0}))
    with path.open("a") as file:
        file.write(torn)
    assert steps(path) == [10, 20]
    log(tmp_path, 100, (30, {"a": 3.0}))
    assert steps(path) == [10, 20, 30]
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("columns", [80, 100, 129, 130, 200])
def test_the_time_left_is_seen_on_every_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    line = ProgressLine(2_500_608, step=0)
    figures = {
        "time/steps_per_second": 1234.0, "episode/true_return": -20.4, "feedback/labels": 1400.0,
        "reward/holdout_accuracy": 1.0,
    }  # fmt: skip
    for step in (100_000, 1_234_944):
        line.update(step, figures)
    line.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    last = next(x for x in reversed(re.split(r"[\r\n]", shown)) if "%" in x)
    assert re.search(r"ETA +[\d:-]+", last)
    assert "1,234,944 steps" in last
    assert len(last) <= columns


@pytest.mark.parametrize("line", [b"\xff\xfe", b"3", b'{"a": 1}', b'{"step": null}', b"[]"])
def test_a_damaged_line_costs_no_other(line: bytes, tmp_path: Path) -> None:
    path = log(tmp_path, 0, (10, {"a": 1.0}), (20, {"a": 2.0}))
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line, second, b""]))
    assert steps(path) == [10, 20]
    log(tmp_path, 20, (30, {"a": 3.0}))
    assert steps(path) == [10, 20, 30]


def test_a_kill_while_trimming_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = log(tmp_path, 0, (10, {"a": 1.0}), (20, {"a": 2.0}))

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        log(tmp_path, 20)
    assert steps(path) == [10, 20]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_mean_return_is_over_the_last_hundred_episodes() -> None:
    episodes = EpisodeStats()
    assert math.isnan(episodes.mean_return())
    assert episodes.figures() == {}
    episodes.add([1000.0] * 50, [1] * 50)
    episodes.add([1.0] * 60 + [4.0] * 40, [10] * 100)
    # (60 * 1 + 40 * 4) / 100 = 2.2; the last ten are all 4; 150 have ended
    assert episodes.mean_return() == pytest.approx(2.2)
    assert episodes.mean_return(last=10) == 4.0
    assert episodes.figures() == {
        "episode/true_return": pytest.approx(2.2),
        "episode/length": 10.0,
        "episode/count": 150.0,
    }


def test_episode_statistics_come_back_through_json() -> None:
    episodes, back = EpisodeStats(), EpisodeStats()
    episodes.add([1.5, -2.25], [3, 4])
    back.add([7.0], [7])
    back.restore(json.loads(json.dumps(episodes.state())))
    assert back.figures() == episodes.figures()
