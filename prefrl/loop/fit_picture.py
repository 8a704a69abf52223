"""`fit.png`: how a reward model was fitted offline, and what it says of what it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from prefrl.loop.axes import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    Row,
    legend,
    panels,
    plain,
    save,
    series,
    style,
)
from prefrl.loop.metrics import read_metrics
from prefrl.loop.offline import OfflineFit
from prefrl.loop.rundir import RunDir


def write_fit_picture(fit: OfflineFit, directory: RunDir) -> Path:
    """Draw `report/fit.png` from the fit's `metrics.jsonl` and its model."""
    rows = read_metrics(directory.metrics)
    figure, axes = panels([["loss", "accuracy", "returns"]], size=(13.5, 4.6))
    _draw_loss(axes["loss"], rows)
    _draw_accuracy(axes["accuracy"], rows)
    for name in ("loss", "accuracy"):
        style(axes[name], last=fit.config.updates, unit="updates")
    _draw_returns(axes["returns"], *fit.held_out_segments())
    title = f"{fit.config.task} · reward model of {len(fit.bank):,} answers"
    return save(figure, directory.path / "report" / "fit.png", title=title)


def _draw_loss(ax: Axes, rows: Sequence[Row]) -> None:
    """A member's losses are smoothed, with dropout; the ensemble's is of its last weights."""
    for name, colour, label in (
        ("train_loss", GREY, "a member's, labels it fits"),
        ("holdout_loss", ORANGE, "a member's, labels it never sees"),
        ("holdout_cross_entropy", PURPLE, "of each label, by members that never see it"),
    ):
        ax.plot(*series(rows, f"reward/{name}"), color=colour, lw=2, label=label)
    ax.axhline(np.log(2), color=GREY, lw=1, ls=":", label="knowing nothing of a pair")
    ax.set_title("Cross-entropy")
    ax.set_ylabel("nats a label")
    ax.set_ylim(bottom=0)
    legend(ax)


def _draw_accuracy(ax: Axes, rows: Sequence[Row]) -> None:
    for name, colour, label in (
        ("holdout_accuracy", PURPLE, "accuracy, held-out labels"),
        ("holdout_correlation_with_true", BLUE, "correlation with true return"),
        ("holdout_rating_correlation", ORANGE, "correlation with held-out ratings"),
    ):
        steps, values = series(rows, f"reward/{name}")
        if len(steps):
            ax.plot(steps, values, color=colour, lw=2.2, label=label)
    ax.axhline(0.5, color=GREY, lw=1, ls=":", label="accuracy by chance")
    lines = [np.asarray(line.get_ydata(), dtype=float).min() for line in ax.lines]
    ax.set_title("Hold-out")
    ax.set_ylim(min(0.0, 1.1 * min(lines)), 1.03)
    legend(ax)


def _draw_returns(ax: Axes, learned: np.ndarray, true: np.ndarray) -> None:
    """Of held-out segments: learned return over true return, or alone where there is no true."""
    ax.set_title("Segments that were held out")
    if len(true) and true.std() > 0:
        ax.scatter(true, learned, s=14, alpha=0.45, color=BLUE, edgecolor="none")
        ax.set_xlabel("true return", fontsize=11)
        ax.set_ylabel("learned return")
    else:
        ax.hist(learned, bins=30, color=BLUE)
        ax.set_xlabel("learned return", fontsize=11)
        ax.set_ylabel("segments")
    plain(ax)
