import json
import math

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from prefrl.config import TrainConfig, write_toml
from prefrl.errors import UserError
from prefrl.loop.axes import smooth
from prefrl.loop.report import _draw_true_return, summarise, write_learning_curves
from prefrl.loop.rundir import RunDir


def fake_run(path, rows, **settings):
    path.mkdir()
    write_toml(TrainConfig(task="ALE/Pong-v5", steps=200, **settings), path / "config.toml")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunDir(path=path)


ROWS = [
    {"step": 100, "feedback/labels": 5, "feedback/due": 8, "time/act": 30.0, "time/learn": 30.0,
     "reward/learned_mean": 0.0, "time/steps_per_second": 9.0},
    {"step": 200, "feedback/labels": 9, "feedback/due": 9, "time/act": 60.0,
     "episode/true_return": -20.5, "reward/learned_mean": 0.4, "reward/holdout_accuracy": 0.75,
     "reward/correlation_with_true": -0.3, "time/steps_per_second": 7.0},
]  # fmt: skip


def test_curves_are_a_readable_picture(tmp_path):
    path = write_learning_curves(fake_run(tmp_path / "run", ROWS))
    assert path == tmp_path / "run" / "report" / "learning.png"
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 800
    assert picture.shape[1] > 1200
    assert [p.name for p in path.parent.iterdir()] == ["learning.png"]


@pytest.mark.parametrize(
    ("counts", "drawn"), [((1, 9, 10, 12), [30, 40]), ((1, 9), [10, 20]), ((0, 0), [])]
)
def test_a_mean_of_few_episodes_is_drawn_only_where_no_more_came(counts, drawn):
    rows = [
        {"step": 10 * (i + 1), "episode/count": float(n), "episode/true_return": -5.0}
        if n
        else {"step": 10 * (i + 1)}
        for i, n in enumerate(counts)
    ]
    ax = Figure().subplots()
    _draw_true_return(ax, rows)
    assert ax.lines[0].get_xdata().tolist() == drawn


@pytest.mark.parametrize("reward", ["learned", "true"])
def test_the_first_rollout_is_enough_for_curves(reward, tmp_path):
    assert write_learning_curves(fake_run(tmp_path / "run", ROWS[:1], reward=reward)).is_file()


def test_a_summary_holds_the_newest_figures(tmp_path):
    got = summarise(fake_run(tmp_path / "run", ROWS, rater="mistake", seed=4))
    assert (got.task, got.rater, got.seed, got.step, got.labels) == (
        "ALE/Pong-v5", "mistake", 4, 200, 9,
    )  # fmt: skip
    assert (got.true_return, got.holdout) == (-20.5, 0.75)
    assert got.minutes == 2.0  # 30 + 30 + 60 seconds


def test_a_summary_says_nan_where_nothing_was_measured(tmp_path):
    got = summarise(fake_run(tmp_path / "run", ROWS[:1]))
    assert math.isnan(got.true_return)
    assert math.isnan(got.holdout)


def test_a_run_without_metrics_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="has logged nothing yet"):
        write_learning_curves(fake_run(tmp_path / "run", []))


def test_smoothing_keeps_constants_and_length():
    assert smooth(np.full(500, 3.0)) == pytest.approx(np.full(500, 3.0))
    ramp = np.arange(500.0)
    assert smooth(ramp)[6:-6] == pytest.approx(ramp[6:-6])
    assert len(smooth(np.array([]))) == 0
