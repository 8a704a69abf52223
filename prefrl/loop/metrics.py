"""Numbers out: `metrics.jsonl`, TensorBoard, and a progress line with an ETA."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from prefrl.loop.rundir import RunDir

WINDOW = 100  # episodes in a mean
WIDE = 130  # characters of a terminal with room for a bar


class EpisodeStats:
    """True returns of finished episodes: for oracles and metrics only."""

    def __init__(self) -> None:
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self.lengths: deque[int] = deque(maxlen=WINDOW)
        self.count = 0

    def add(self, returns: list[float], lengths: list[int]) -> None:
        """Episodes that ended in one rollout."""
        self.returns.extend(returns)
        self.lengths.extend(lengths)
        self.count += len(returns)

    def mean_return(self, last: int = WINDOW) -> float:
        """Mean true return of the last episodes; nan before the first one ends."""
        return float(np.mean(list(self.returns)[-last:])) if self.returns else math.nan

    def mean_length(self, last: int = WINDOW) -> float:
        """Mean steps of the last episodes; nan before the first one ends."""
        return float(np.mean(list(self.lengths)[-last:])) if self.lengths else math.nan

    def figures(self) -> dict[str, float]:
        """Under `episode/...`; empty before the first episode ends."""
        if not self.returns:
            return {}
        return {
            "episode/true_return": self.mean_return(),
            "episode/length": self.mean_length(),
            "episode/count": float(self.count),
        }

    def state(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "count": self.count,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`; what was there before is forgotten."""
        self.returns = deque(state["returns"], maxlen=WINDOW)
        self.lengths = deque(state["lengths"], maxlen=WINDOW)
        self.count = state["count"]


class MetricsLog:
    """Appends one JSON object a rollout, and the same to TensorBoard.

    Args:
        step: the run goes on from here; what was logged later (by a run that was killed
            after its last checkpoint) is cut off, for it will be logged again.
    """

    def __init__(self, run: RunDir, *, step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        _cut(run.metrics, step)
        self._file = run.metrics.open("a")
        self._board = SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Figures under slash names; nan is left out, for JSON has none."""
        finite = {k: v for k, v in figures.items() if math.isfinite(v)}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush both."""
        self._file.close()
        self._board.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`; lines that a kill or a disk has damaged are passed over."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int | float):
            rows.append(row)
    return rows


def _cut(path: Path, step: int) -> None:
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    whole = path.with_name(path.name + ".new")
    whole.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole.replace(path)  # so that a kill leaves the old lines or the new ones, never none


class ProgressLine:
    """One line: bar, step, speed, true return, labels, hold-out accuracy, ETA."""

    def __init__(self, total: int, *, step: int, unit: str = "steps") -> None:
        self._unit = unit
        console = Console()
        self._quiet = not console.is_terminal
        wide = [BarColumn(bar_width=24), TimeElapsedColumn()] if console.width >= WIDE else []
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f}%"),
            *wide,
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
            console=console,
            speed_estimate_period=120,
            disable=self._quiet,
        )
        self._task = self._bar.add_task("", total=total, completed=step, note="")
        self._bar.start()
        self._last = time.monotonic()

    def update(self, step: int, figures: dict[str, float]) -> None:
        """Show the newest figures; a line every half minute where there is no terminal."""
        note = f"{step:,} {self._unit}  {_note(figures)}"
        self._bar.update(self._task, completed=step, note=note)
        if self._quiet and time.monotonic() - self._last > 30:
            self._last = time.monotonic()
            left = self._bar.tasks[0].time_remaining
            eta = f"  ETA {left / 60:.0f} min" if left is not None else ""
            self._bar.console.print(note + eta, highlight=False, soft_wrap=True)

    def wait(self, why: str) -> None:
        """Say what is waited for; time passes, steps do not."""
        self._bar.update(self._task, note=why)
        if self._quiet and time.monotonic() - self._last > 30:
            self._last = time.monotonic()
            self._bar.console.print(why, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last figures standing."""
        self._bar.stop()
        if self._quiet:
            self._bar.console.print(
                self._bar.tasks[0].fields["note"], highlight=False, soft_wrap=True
            )


def _note(figures: dict[str, float]) -> str:
    parts = []
    for name, text in (
        ("time/steps_per_second", "{:,.0f}/s"),
        ("fit/loss", "loss {:.3f}"),
        ("lm/score", "reward {:.2f}"),
        ("lm/gold", "gold {:.2f}"),
        ("lm/kl", "KL {:.1f}"),
        ("fit/held_out_loss", "held out {:.3f}"),
        ("episode/true_return", "true return {:.1f}"),
        ("feedback/labels", "{:.0f} labels"),
        ("reward/holdout_accuracy", "hold-out {:.0%}"),
        ("feedback/behind", "labels behind by {:.0f}"),
    ):
        if name in figures and math.isfinite(figures[name]):
            parts.append(text.format(figures[name]))
    return "  ".join(parts)
