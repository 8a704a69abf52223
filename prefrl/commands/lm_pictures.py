"""`report/learning.png` of a stage: what was fitted, what was held out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from prefrl.loop.rundir import RunDir

Panel = Mapping[str, str]
"""Name of a metric -> its legend; the first is thin and smoothed, one for each step."""


def draw_stage(run: RunDir, panels: Mapping[str, Panel], *, title: str) -> Path:
    """One panel for each title, from `metrics.jsonl`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from prefrl.loop.metrics import read_metrics

    rows = read_metrics(run.metrics)
    figure = Figure(figsize=(5.2 * len(panels), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for i, (name, metrics) in enumerate(panels.items()):
        _panel(figure.add_subplot(1, len(panels), i + 1), name, metrics, rows)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    path = run.path / "report" / "learning.png"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(".learning.png.part")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
    return path


def _panel(ax: Axes, title: str, metrics: Panel, rows: Sequence[Mapping[str, float]]) -> None:
    import numpy as np

    from prefrl.loop.report import BLUE, GREEN, ORANGE, PURPLE, smooth

    for colour, (name, label) in zip((BLUE, ORANGE, GREEN, PURPLE), metrics.items(), strict=False):
        found = [(row["step"], row[name]) for row in rows if name in row]
        if not found:
            continue
        steps, values = np.array(found, dtype=float).T
        if len(found) > 30:
            ax.plot(steps, values, color=colour, lw=0.7, alpha=0.3)
            ax.plot(steps, smooth(values), color=colour, lw=2, label=label)
        else:
            ax.plot(steps, values, "o-", color=colour, ms=4, lw=1.5, label=label)
    ax.set_title(title, loc="left", fontsize=11.5)
    ax.set_xlabel("step")
    ax.grid(color="#e2e2e2", lw=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.lines:
        ax.legend(frameon=False, fontsize=9.5)
