"""How the pictures of a run look: colours, axes, legends, running means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator

# Okabe and Ito 2008: told apart with any colour vision
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = "#666666"

Row = dict[str, float]


def panels(layout: Any, *, size: tuple[float, float]) -> tuple[Figure, dict[str, Axes]]:
    """A figure of `size` inches, and its panels by name (`Figure.subplot_mosaic`)."""
    figure = Figure(figsize=size, dpi=130, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    FigureCanvasAgg(figure)
    return figure, figure.subplot_mosaic(layout)


def save(figure: Figure, path: Path, *, title: str) -> Path:
    """Write a PNG, whole or not at all; its folder is made."""
    figure.suptitle(title, fontsize=15, fontweight="bold", x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)
    return path


def style(ax: Axes, *, last: float, unit: str, empty: str = "nothing yet") -> None:
    """The look of an axis that counts `unit` from 0 to `last`; call it when all is drawn.

    Args:
        empty: stands where there is nothing to see.
    """
    plain(ax)
    ax.set_xlim(0, last)
    ax.set_xlabel(unit, fontsize=11)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    if not ax.has_data() or all(len(np.asarray(line.get_xdata())) == 0 for line in ax.lines):
        ax.text(0.5, 0.5, empty, transform=ax.transAxes, ha="center", color=GREY)
        ax.set_yticks([])


def plain(ax: Axes) -> None:
    """No frame, a faint grid, the title at the left."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#e2e2e2", lw=0.8)
    ax.set_axisbelow(True)
    ax.set_title(ax.get_title(), loc="left", fontsize=12.5)
    ax.set_title("")
    ax.yaxis.label.set_fontsize(11)
    ax.tick_params(labelsize=10)


def legend(ax: Axes) -> None:
    """Where there is anything to explain."""
    handles = ax.get_legend_handles_labels()[0]
    if handles:
        ax.legend(handles=handles, loc="best", fontsize=9.5, framealpha=0.8, edgecolor="none")


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


def series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] and values [n] where `name` was logged."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def newest(rows: Sequence[Row], name: str, otherwise: float) -> float:
    """The last value of `name` that was logged."""
    return next((row[name] for row in reversed(rows) if name in row), otherwise)
