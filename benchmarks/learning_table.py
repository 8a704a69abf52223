"""What `learning.py` writes of its runs: `results.json`, `table.md`, `curves.png`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (0, 1, 2)
EPISODES = 64  # that each last policy plays anew
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")  # Okabe and Ito

Table = Sequence[tuple["Arm", Sequence["Kept"]]]
"""Arms and their runs, in the order of their lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One line of the table: a task and settings, run on every seed."""

    name: str
    task: str
    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the task's recipe."""
    seeds: Sequence[int] = SEEDS
    sb3: bool = False
    """Trained by stable-baselines3 with the same settings."""
    target: float | None = None
    """A true return, and the table says when each run first had it over 100 episodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished run."""

    seed: int
    final: float
    """Mean true return over the last 100 episodes."""
    steps: int
    labels: int
    minutes: float
    curve: list[tuple[int, float]]
    """(step, mean true return over the last 100 episodes), at most 200 points."""
    reached: tuple[int, float] | None = None
    """(step, minutes) at which the arm's target was first reached."""
    anew: tuple[float, float, float] | None = None
    """True return of the last policy in new episodes, as long as the task's own, and its 95 %
    interval; of ours alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A result, and what made it."""

    result: Result
    settings: dict[str, Any]
    """All that count: see `what_counts` in `learning.py`."""
    commit: str
    machine: dict[str, Any]


def write(table: Table, out: Path) -> None:
    """`results.json`, `table.md`, `curves.png`."""
    if not table:
        return
    out.mkdir(parents=True, exist_ok=True)
    report = {
        arm.name: {
            "settings": found[0].settings,
            "runs": [{**asdict(r.result), "commit": r.commit, "machine": r.machine} for r in found],
        }
        for arm, found in table
    }
    (out / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(table, out / "curves.png")
    text = markdown(table)
    (out / "table.md").write_text(text)
    print(text)


def reached(results: Sequence[Result], target: float | None) -> str:
    """A cell of the table: when each run first had its arm's target."""
    return f" {', '.join(_when(r, target) for r in results) if target is not None else ''} |"


def _when(result: Result, target: float) -> str:
    if result.reached is None:  # of an older run: its curve alone tells
        did = any(value >= target for _, value in result.curve)
        return f"{target:g}: {'yes' if did else 'not'} ({result.seed})"
    step, minutes = result.reached
    return f"{target:g}: {step / 1e6:.2f}M steps, {minutes:.0f} minutes ({result.seed})"


def anew(results: Sequence[Result]) -> str:
    """A cell of the table: how the last policies play anew, where that is known."""
    return ", ".join(
        f"{r.anew[0]:.1f} ({r.anew[1]:.1f} to {r.anew[2]:.1f}) ({r.seed})"
        for r in results
        if r.anew is not None
    )


def markdown(table: Table) -> str:
    """One line an arm, every seed named."""
    more = " target first reached |" if any(arm.target is not None for arm, _ in table) else ""
    lines = [
        "| what | true return, last 100 episodes (mean of seeds) | each seed | steps | labels "
        f"| minutes of each |{more} last policy, {EPISODES} new episodes of the task's own length "
        "| processors |",
        f"|---|---|---|---|---|---|---|---|{'---|' if more else ''}",
    ]
    for arm, found in table:
        results = [one.result for one in found]
        finals = [r.final for r in results]
        each = ", ".join(f"{r.final:.1f} ({r.seed})" for r in results)
        minutes = ", ".join(f"{r.minutes:.0f}" for r in results)
        processors = ", ".join(dict.fromkeys(one.machine["processor"] for one in found))
        steps = found[0].settings.get("env", {}).get("horizon", "none")
        length = "" if steps == "none" else f", episodes of {steps} steps"
        lines.append(
            f"| {arm.name}{length} | {np.mean(finals):.1f} | {each} | {results[0].steps:,} "
            f"| {max(r.labels for r in results):,} | {minutes} "
            f"|{reached(results, arm.target) if more else ''} {anew(results)} | {processors} |"
        )
    return "\n".join(lines) + "\n"


def draw(table: Table, path: Path) -> None:
    """All seeds thin, their mean thick; one panel a task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(arm.task for arm, _ in table))
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(5.5 * len(tasks), 4), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        lines = [(arm.name, found) for arm, found in table if arm.task == task]
        for colour, (name, found) in zip(COLOURS, lines, strict=False):
            curves = [np.array(one.result.curve) for one in found]
            for curve in curves:
                axis.plot(curve[:, 0] / 1e6, curve[:, 1], color=colour, alpha=0.3, lw=0.8)
            grid = np.linspace(max(c[0, 0] for c in curves), min(c[-1, 0] for c in curves), 200)
            mean = np.mean([np.interp(grid, c[:, 0], c[:, 1]) for c in curves], axis=0)
            seeds = ", ".join(str(one.result.seed) for one in found)
            axis.plot(grid / 1e6, mean, color=colour, lw=2, label=f"{name} (seeds {seeds})")
        axis.set(title=task, xlabel="million steps", ylabel="true return, last 100 episodes")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=110)
    plt.close(figure)
