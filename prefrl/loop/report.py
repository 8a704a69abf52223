"""`learning.png`: what a run has learned, and from how many labels.

The true return stands beside the learned one: a learned reward that rises while the true
return falls is a reward model that is being exploited.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator

from prefrl.config import TrainConfig, read_toml
from prefrl.errors import UserError
from prefrl.loop.metrics import read_metrics
from prefrl.loop.rundir import RunDir

# Okabe and Ito 2008: told apart with any colour vision
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = "#666666"
LAYOUT: Any = [["true"] * 3 + ["learned"] * 3, ["labels"] * 2 + ["fit"] * 2 + ["speed"] * 2]

Row = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run in one line of a table."""

    path: Path
    """Run directory."""
    task: str
    rater: str
    """Or "true reward", for a baseline."""
    seed: int
    step: int
    """Steps done."""
    steps: int
    """Steps wanted."""
    labels: int
    true_return: float
    """Mean over the last 100 episodes; nan before the first ends."""
    holdout: float
    """Hold-out accuracy; nan where it was not measured."""
    minutes: float
    """Time in the loop, over all its sessions."""


def write_learning_curves(run: RunDir) -> Path:
    """Draw `report/learning.png` from `metrics.jsonl`.

    Raises:
        UserError: nothing has been logged yet.
    """
    config, rows = _read(run)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(12.5, 7.2), dpi=130, layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic(LAYOUT)
    _draw_true_return(axes["true"], rows)
    _draw_learned_reward(axes["learned"], rows, config)
    _draw_labels(axes["labels"], rows, config)
    _draw_fit(axes["fit"], rows)
    _draw_speed(axes["speed"], rows)
    for ax in axes.values():
        _style(ax, last=max(rows[-1]["step"], 1))
    figure.suptitle(_title(config), fontsize=15, fontweight="bold", x=0.01, ha="left")
    path = run.path / "report" / "learning.png"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(".learning.png.part")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
    return path


def summarise(run: RunDir) -> Summary:
    """The run's newest figures.

    Raises:
        UserError: nothing has been logged yet.
    """
    config, rows = _read(run)
    return Summary(
        path=run.path,
        task=config.task,
        rater=_rater(config),
        seed=config.seed,
        step=int(rows[-1]["step"]),
        steps=config.steps,
        labels=int(_newest(rows, "feedback/labels", 0.0)),
        true_return=_newest(rows, "episode/true_return", math.nan),
        holdout=_newest(rows, "reward/holdout_accuracy", math.nan),
        minutes=sum(_seconds(row) for row in rows) / 60,
    )


def _read(run: RunDir) -> tuple[TrainConfig, list[Row]]:
    rows = read_metrics(run.metrics)
    if not rows:
        raise UserError(f"{run.path} has logged nothing yet: wait for the first rollout")
    return read_toml(run.config), rows


def _draw_true_return(ax: Axes, rows: Sequence[Row]) -> None:
    ax.plot(*_series(rows, "episode/true_return"), color=BLUE, lw=2.2)
    ax.set_title("True return (hidden from the agent)")
    ax.set_ylabel("mean of the last 100 episodes")


def _draw_learned_reward(ax: Axes, rows: Sequence[Row], config: TrainConfig) -> None:
    learned = config.reward == "learned"
    steps, values = _series(rows, "reward/learned_mean" if learned else "reward/true_mean")
    ax.plot(steps, values, color=ORANGE, lw=0.8, alpha=0.3)
    ax.plot(steps, smooth(values), color=ORANGE, lw=2.2)
    ax.set_title("Learned return (what the policy learns from)" if learned else "Training reward")
    ax.set_ylabel("learned reward a step" if learned else "true reward a step")


def _draw_labels(ax: Axes, rows: Sequence[Row], config: TrainConfig) -> None:
    ax.step(*_series(rows, "feedback/due"), color=GREY, lw=1.5, ls=":", label="due", where="post")
    ax.step(*_series(rows, "feedback/labels"), color=GREEN, lw=2.2, label="answered", where="post")
    ax.set_title("Labels")
    ax.set_ylabel(f"comparisons (of {config.labels:,})")
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(ax)


def _draw_fit(ax: Axes, rows: Sequence[Row]) -> None:
    steps, correlation = _series(rows, "reward/correlation_with_true")
    ax.plot(steps, correlation, color=BLUE, lw=0.8, alpha=0.25)
    ax.plot(steps, smooth(correlation), color=BLUE, lw=2, label="correlation with true return")
    steps, accuracy = _series(rows, "reward/holdout_accuracy")
    ax.plot(steps, accuracy, color=PURPLE, lw=2, marker="o", ms=3, label="hold-out accuracy")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.axhline(0.5, color=GREY, lw=1, ls=":", label="accuracy by chance")
    ax.set_title("Reward model")
    ax.set_ylabel("correlation, accuracy")
    values = np.concatenate([correlation, accuracy, [0.0]])
    ax.set_ylim(min(-0.05, 1.1 * float(values.min())), 1.05)
    _legend(ax)


def _draw_speed(ax: Axes, rows: Sequence[Row]) -> None:
    steps, speed = _series(rows, "time/steps_per_second")
    ax.plot(steps, speed, color=GREY, lw=0.8, alpha=0.3)
    ax.plot(steps, smooth(speed), color=GREY, lw=2)
    ax.set_title("Speed")
    ax.set_ylabel("agent steps / s")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))


def _legend(ax: Axes) -> None:
    handles = ax.get_legend_handles_labels()[0]
    if handles:
        ax.legend(handles=handles, loc="best", fontsize=9.5, framealpha=0.8, edgecolor="none")


def _style(ax: Axes, *, last: float) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#e2e2e2", lw=0.8)
    ax.set_axisbelow(True)
    ax.set_xlim(0, last)
    ax.set_xlabel("agent steps", fontsize=11)
    ax.set_title(ax.get_title(), loc="left", fontsize=12.5)
    ax.set_title("")
    ax.yaxis.label.set_fontsize(11)
    ax.tick_params(labelsize=10)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    if not ax.has_data() or all(len(np.asarray(line.get_xdata())) == 0 for line in ax.lines):
        ax.text(0.5, 0.5, "nothing yet", transform=ax.transAxes, ha="center", color=GREY)


def _title(config: TrainConfig) -> str:
    labels = f" · {config.labels:,} labels" if config.reward == "learned" else ""
    return f"{config.task} · {_rater(config)}{labels} · seed {config.seed}"


def _rater(config: TrainConfig) -> str:
    return config.rater if config.reward == "learned" else "true reward"


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean over about a fortieth of the values: [n] -> [n].

    >>> smooth(np.array([1.0, 3.0])).tolist()
    [1.0, 3.0]
    """
    half = len(values) // 80
    total = np.concatenate([[0.0], values.cumsum()])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [n] where `name` was logged."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def _newest(rows: Sequence[Row], name: str, otherwise: float) -> float:
    return next((row[name] for row in reversed(rows) if name in row), otherwise)


def _seconds(row: Row) -> float:
    """How long this rollout and its update took."""
    return sum(v for k, v in row.items() if k.startswith("time/") and k != TOTAL)


TOTAL = "time/steps_per_second"
