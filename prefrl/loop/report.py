"""`learning.png`: what a run has learned, and from how many labels.

The true return stands beside the learned one: a learned reward that rises while the true
return falls is a reward model that is being exploited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from prefrl.config import TrainConfig, read_toml
from prefrl.errors import UserError
from prefrl.loop.axes import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    Row,
    legend,
    newest,
    panels,
    save,
    series,
    smooth,
    style,
)
from prefrl.loop.metrics import read_metrics
from prefrl.loop.rundir import RunDir

EPISODES = 10  # a mean of fewer is not drawn, if more came
LAYOUT: Any = [["true"] * 3 + ["learned"] * 3, ["labels"] * 2 + ["fit"] * 2 + ["speed"] * 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run in one line of a table."""

    path: Path
    """Run directory."""
    task: str
    rater: str
    """Or "true reward", for a baseline, or "frozen reward model"."""
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
    figure, axes = panels(LAYOUT, size=(12.5, 7.2))
    _draw_true_return(axes["true"], rows)
    _draw_learned_reward(axes["learned"], rows, config)
    _draw_labels(axes["labels"], rows, config)
    _draw_fit(axes["fit"], rows)
    _draw_speed(axes["speed"], rows)
    for name, ax in axes.items():
        empty = "no whole episode yet" if name == "true" else "nothing yet"
        style(ax, last=max(rows[-1]["step"], 1), unit="agent steps", empty=empty)
    return save(figure, run.path / "report" / "learning.png", title=_title(config))


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
        labels=int(newest(rows, "feedback/labels", 0.0)),
        true_return=newest(rows, "episode/true_return", math.nan),
        holdout=newest(rows, "reward/holdout_accuracy", math.nan),
        minutes=sum(_seconds(row) for row in rows) / 60,
    )


def _read(run: RunDir) -> tuple[TrainConfig, list[Row]]:
    rows = read_metrics(run.metrics)
    if not rows:
        raise UserError(f"{run.path} has logged nothing yet: wait for the first rollout")
    return read_toml(run.config), rows


def _draw_true_return(ax: Axes, rows: Sequence[Row]) -> None:
    many = newest(rows, "episode/count", 0.0) >= EPISODES
    known = [row for row in rows if row.get("episode/count", 0.0) >= EPISODES] if many else rows
    steps, values = series(known, "episode/true_return")
    alone = "o" if len(steps) == 1 else None  # no line would be seen
    ax.plot(steps, values, color=BLUE, lw=2.2, marker=alone)
    ax.set_title("True return (hidden from the agent)")
    ax.set_ylabel("mean of the last 100 episodes")


def _draw_learned_reward(ax: Axes, rows: Sequence[Row], config: TrainConfig) -> None:
    learned = config.reward == "learned"
    steps, values = series(rows, "reward/learned_mean" if learned else "reward/true_mean")
    ax.plot(steps, values, color=ORANGE, lw=0.8, alpha=0.3)
    ax.plot(steps, smooth(values), color=ORANGE, lw=2.2)
    ax.set_title("Learned reward (what the policy learns from)" if learned else "Training reward")
    ax.set_ylabel("learned reward a step" if learned else "true reward a step")


def _draw_labels(ax: Axes, rows: Sequence[Row], config: TrainConfig) -> None:
    ax.step(*series(rows, "feedback/due"), color=GREY, lw=1.5, ls=":", label="due", where="post")
    ax.step(*series(rows, "feedback/labels"), color=GREEN, lw=2.2, label="answered", where="post")
    ax.set_title("Labels")
    ax.set_ylabel(f"labels (of {config.labels:,})")
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(ax)


def _draw_fit(ax: Axes, rows: Sequence[Row]) -> None:
    steps, correlation = series(rows, "reward/correlation_with_true")
    ax.plot(steps, correlation, color=BLUE, lw=0.8, alpha=0.25)
    ax.plot(steps, smooth(correlation), color=BLUE, lw=2, label="correlation with true return")
    steps, accuracy = series(rows, "reward/holdout_accuracy")
    ax.plot(steps, accuracy, color=PURPLE, lw=2, marker="o", ms=3, label="hold-out accuracy")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.axhline(0.5, color=GREY, lw=1, ls=":", label="accuracy by chance")
    ax.set_title("Reward model")
    ax.set_ylabel("correlation, accuracy")
    values = np.concatenate([correlation, accuracy, [0.0]])
    ax.set_ylim(min(-0.05, 1.1 * float(values.min())), 1.05)
    legend(ax)


def _draw_speed(ax: Axes, rows: Sequence[Row]) -> None:
    steps, speed = series(rows, "time/steps_per_second")
    ax.plot(steps, speed, color=GREY, lw=0.8, alpha=0.3)
    ax.plot(steps, smooth(speed), color=GREY, lw=2)
    ax.set_title("Speed")
    ax.set_ylabel("agent steps / s")
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))


def _title(config: TrainConfig) -> str:
    asks = config.reward == "learned" and config.reward_model is None
    labels = f" · {config.labels:,} labels" if asks else ""
    return f"{config.task} · {_rater(config)}{labels} · seed {config.seed}"


def _rater(config: TrainConfig) -> str:
    if config.reward == "true":
        return "true reward"
    return config.rater if config.reward_model is None else "frozen reward model"


def _seconds(row: Row) -> float:
    """How long this rollout and its update took."""
    return sum(v for k, v in row.items() if k.startswith("time/") and k != TOTAL)


TOTAL = "time/steps_per_second"
