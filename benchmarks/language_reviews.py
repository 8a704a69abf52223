"""Tiny reviews from end to end: reward against KL, over-optimisation, rankings, online labels.

    .venv/bin/python benchmarks/language_reviews.py               all parts, seeds 0 to 4
    .venv/bin/python benchmarks/language_reviews.py --parts frontier --seeds 0
    .venv/bin/python benchmarks/language_reviews.py --draw        pictures of what is there

What is finished (`runs/bench/language_reviews/PART-seedN.json`) is not run again, and refused where
other settings made it. Figures and pictures go to `runs/reference/language_reviews/`, with every
seed's commit and machine. The experiments are in `reviews_parts.py`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kept import kept, same_settings, with_earlier
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from reviews_parts import FULL, LIGHT, PARTS, Scale, run_part

from prefrl.language.estimates import OveroptimisationFit, fit_overoptimisation, mean_of

SEEDS = (0, 1, 2, 3, 4)
COLOURS = {  # Okabe and Ito 2008
    "sft": "#666666", "ppo": "#0072B2", "grpo": "#56B4E9", "dpo": "#D55E00", "best of n": "#009E73",
    "none": "#D55E00", "kl": "#0072B2", "lower bound": "#CC79A7", "both": "#009E73",
    "best of n, lower bound": "#E69F00", "offline": "#666666", "online": "#0072B2",
}  # fmt: skip
HELD = {
    "none": "no KL term", "kl": "KL term, beta .05", "lower bound": "mean - sd of 4 members",
    "both": "both",
}  # fmt: skip
"""What held the policy back, in the part on over-optimisation."""
BEST_OF_N = ("best of n", "best of n, lower bound")
Runs = list[dict[str, Any]]


def main() -> None:
    """Run what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    parser.add_argument("--light", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--draw", action="store_true", help="run nothing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench/language_reviews"))
    parser.add_argument("--out", type=Path, default=Path("runs/reference/language_reviews"))
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    folder, scale = (args.runs / "light", LIGHT) if args.light else (args.runs, FULL)
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.parts:
        for seed in args.seeds:
            if not args.draw:
                make = partial(run_part, name, seed, scale, folder)
                found = kept(folder / f"{name}-seed{seed}.json", asdict(scale), make)["result"]
                print(f"{name}, seed {seed}: {found['seconds'] / 60:.1f} minutes", flush=True)
    write({name: finished(folder, name, scale) for name in PARTS}, args.out, scale)


def finished(folder: Path, name: str, scale: Scale) -> Runs:
    """All finished seeds of a part, each with what made it."""
    runs = []
    for path in sorted(folder.glob(f"{name}-seed*.json")):
        about = kept(path, asdict(scale), dict)
        runs.append({**about["result"], "commit": about["commit"], "machine": about["machine"]})
    return runs


def write(parts: dict[str, Runs], out: Path, scale: Scale) -> None:
    """`results.json`, and one picture for each part that has results.

    Other seeds that are there already stay, where the same settings made them.
    """
    out.mkdir(parents=True, exist_ok=True)
    before = earlier(out, scale)
    parts = {
        name: with_earlier(runs, before.get(name, []), seed=lambda run: run["seed"])
        for name, runs in parts.items()
    }
    report = {"settings": asdict(scale), "parts": parts, "summary": summary(parts)}
    (out / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, runs in parts.items():
        if runs:
            figure = DRAW[name](runs)
            figure.savefig(out / f"{name}.png")
    print(json.dumps(report["summary"], indent=1))


def earlier(out: Path, scale: Scale) -> dict[str, Runs]:
    """Runs of each part that `results.json` holds, where the present settings made them."""
    file = out / "results.json"
    held = json.loads(file.read_text()) if file.exists() else {}
    parts: dict[str, Runs] = held.get("parts", {})
    return parts if same_settings(held.get("settings"), asdict(scale)) else {}


def summary(parts: dict[str, Runs]) -> dict[str, Any]:
    """The figures that a table quotes: mean over seeds, and every seed."""
    found: dict[str, Any] = {}
    for name, runs in parts.items():
        if not runs:
            continue
        found[name] = {
            "seeds": [run["seed"] for run in runs],
            "minutes by the clock": [round(run["seconds"] / 60, 1) for run in runs],
            "minutes of the processor": [
                round(run["cpu_seconds"] / 60, 1) if "cpu_seconds" in run else None for run in runs
            ],
            "figures": FIGURES[name](runs),
        }
    return found


def last(runs: Runs, arm: str, key: str) -> list[float]:
    """[seeds] of the last point of an arm."""
    return [run["found"][arm][-1][key] for run in runs]


def _frontier_figures(runs: Runs) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for arm in runs[0]["found"]:
        if arm == "best of n":
            continue
        gold, kl = last(runs, arm, "gold"), last(runs, arm, "kl")
        found[arm] = {"gold": str(mean_of(np.array(gold))), "each": _rounded(gold),
                      "kl": _rounded(kl)}  # fmt: skip
    of16 = [next(p["gold"] for p in run["found"]["best of n"] if p["n"] == 16) for run in runs]
    found["best of 16"] = {"gold": str(mean_of(np.array(of16))), "each": _rounded(of16)}
    sft = last(runs, "sft", "gold")
    found["seeds in which it is above SFT and best of 16"] = {
        arm: sum(g > max(s, o) for g, s, o in zip(last(runs, arm, "gold"), sft, of16, strict=True))
        for arm in runs[0]["found"]
        if arm not in ("sft", "best of n")
    }
    return found


def _over_figures(runs: Runs) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for arm in HELD:
        peaks = [max(p["gold"] for p in run["found"][arm]) for run in runs]
        fits = [_gao(run["found"][arm], "rl") for run in runs]
        found[arm] = {
            "gold at its peak": _rounded(peaks),
            "gold at the end": _rounded(last(runs, arm, "gold")),
            "learned at the end": _rounded(last(runs, arm, "learned")),
            "kl at the end": _rounded(last(runs, arm, "kl")),
            **_coefficients(fits),
        }
    for arm in BEST_OF_N:
        gold = [[p["gold"] for p in run["found"][arm]] for run in runs]
        found[arm] = {
            "gold at its peak": _rounded([max(each) for each in gold]),
            "gold at the largest n": _rounded([each[-1] for each in gold]),
            **_coefficients([_gao(run["found"][arm], "best-of-n") for run in runs]),
        }
    return found


def _coefficients(fits: Sequence[OveroptimisationFit]) -> dict[str, Any]:
    """Of Gao et al.'s form, and the KL beyond which it says that gold falls; none: nowhere."""
    return {
        "alpha": _rounded([fit.alpha for fit in fits]),
        "beta": _rounded([fit.beta for fit in fits]),
        "nats at the fitted peak": [
            round(fit.peak**2, 1) if math.isfinite(fit.peak) else None for fit in fits
        ],
    }


def _ranking_figures(runs: Runs) -> dict[str, Any]:
    return {
        arm: {how: str(mean_of(np.array([run["found"][arm][how] for run in runs])))
              for how in runs[0]["found"][arm]}
        for arm in runs[0]["found"]
    }  # fmt: skip


def _online_figures(runs: Runs) -> dict[str, Any]:
    gaps = np.array(last(runs, "online", "gold")) - np.array(last(runs, "offline", "gold"))
    return {
        **{arm: _rounded(last(runs, arm, "gold")) for arm in ("offline", "online")},
        "online - offline": str(mean_of(gaps)),
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]


def _gao(points: Runs, form: str) -> OveroptimisationFit:
    """Fitted on what was gained over the first point, which is the SFT policy's."""
    kl = np.array([max(p["kl"], 0.0) for p in points])
    gold = np.array([p["gold"] for p in points])
    return fit_overoptimisation(kl[1:], gold[1:] - gold[0], form=form)  # type: ignore[arg-type]


# ---- pictures -----------------------------------------------------------------------------


def _figure(columns: int, *, width: float = 6.0) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * columns, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.grid(color="#e2e2e2", lw=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _seeds(runs: Runs) -> str:
    named = ", ".join(str(run["seed"]) for run in runs)
    return f"seed {named} alone" if len(runs) == 1 else f"seeds {named}"


def draw_frontier(runs: Runs) -> Figure:
    """Gold reward against KL: a marker for each seed and setting, a line for best-of-n.

    Points below all SFT models by more than their reward's unit are named instead of drawn: one at
    -9 would leave no room for the others.
    """
    figure, (ax,) = _figure(1, width=8.0)
    for run in runs:
        line = run["found"]["best of n"]
        label = "best of n" if run is runs[0] else None
        ax.plot([p["kl"] for p in line], [p["gold"] for p in line], "-", lw=1, alpha=0.7,
                color=COLOURS["best of n"], label=label)  # fmt: skip
    floor = min(run["found"]["sft"][-1]["gold"] for run in runs) - 1
    below = []
    for kind, marker in (("sft", "o"), ("ppo", "s"), ("grpo", "D"), ("dpo", "^")):
        arms = [arm for arm in runs[0]["found"] if arm.split()[0] == kind]
        every = [run["found"][arm][-1] for arm in arms for run in runs]
        points = [p for p in every if p["gold"] >= floor]
        below += [f"{kind.upper()} {p['gold']:.1f} at {p['kl']:.0f} nats"
                  for p in every if p["gold"] < floor]  # fmt: skip
        betas = ", ".join(arm.split()[1] for arm in arms if " " in arm)
        ax.scatter([p["kl"] for p in points], [p["gold"] for p in points], marker=marker, s=42,
                   color=COLOURS[kind], alpha=0.85,
                   label=kind.upper() + (f" (beta {betas})" if betas else ""))  # fmt: skip
    ax.set(xlabel="KL to the SFT policy, nats a completion", ylabel="gold reward",
           title=f"Tiny reviews: one reward model of 2,000 pairs ({_seeds(runs)})")  # fmt: skip
    if below:
        ax.text(0.98, 0.03, "below the picture: " + ", ".join(below), transform=ax.transAxes,
                ha="right", fontsize=9)  # fmt: skip
    ax.legend(frameon=False, loc="center right")
    return figure


def draw_overoptimisation(runs: Runs) -> Figure:
    """Learned and gold reward against the distance, with Gao et al.'s curves."""
    figure, (ppo, bon) = _figure(2)
    for arm, name in HELD.items():
        for run in runs:
            points = run["found"][arm]
            d = np.sqrt([max(p["kl"], 0) for p in points])
            label = f"{name}: gold" if run is runs[0] else None
            ppo.plot(d, [p["gold"] for p in points], "-", color=COLOURS[arm], lw=1.6, label=label)
            if arm == "none":
                label = f"{name}: learned" if run is runs[0] else None
                ppo.plot(d, [p["learned"] for p in points], ":", color=COLOURS[arm], lw=1.2,
                         label=label)  # fmt: skip
                fit = _gao(points, "rl")
                grid = np.linspace(0.05, d.max(), 100)
                label = "d (alpha - beta log d)" if run is runs[0] else None
                ppo.plot(grid, points[0]["gold"] + fit.gold(grid), "--", color="#999999", lw=1,
                         label=label)  # fmt: skip
    for arm in BEST_OF_N:
        for run in runs:
            points = run["found"][arm]
            d = np.sqrt([p["kl"] for p in points])
            label = arm if run is runs[0] else None
            bon.plot(d, [p["gold"] for p in points], "-", color=COLOURS[arm], label=label)
            fit, grid = _gao(points, "best-of-n"), np.linspace(0, d.max(), 100)
            label = "d (alpha - beta d)" if run is runs[0] and arm == BEST_OF_N[0] else None
            bon.plot(grid, points[0]["gold"] + fit.gold(grid), "--", color="#999999", lw=1,
                     label=label)  # fmt: skip
    ppo.set(title=f"PPO on a weak reward model ({_seeds(runs)})", ylabel="reward")
    bon.set(title="Best of n on the same", ylabel="gold reward")
    for ax in (ppo, bon):
        ax.set_xlabel("sqrt(KL to the SFT policy / nats)")
        ax.legend(frameon=False, fontsize=9)
    return figure


def draw_rankings(runs: Runs) -> Figure:
    """Correlation of learned and gold reward, every seed a dot."""
    figure, axes = _figure(2)
    arms = list(runs[0]["found"])
    for ax, how in zip(axes, ("equal answers", "equal completions"), strict=True):
        for place, arm in enumerate(arms):
            values = [run["found"][arm][how] for run in runs]
            ax.plot([place] * len(values), values, "o", color="#0072B2", alpha=0.6)
            ax.plot([place - 0.2, place + 0.2], [np.mean(values)] * 2, "-", color="black")
        ax.set_xticks(range(len(arms)), [arm.replace(" ", "\n", 1) for arm in arms], fontsize=9)
        ax.set(title=f"{how} ({_seeds(runs)})", ylabel="correlation of learned and gold reward")
    return figure


def draw_online(runs: Runs) -> Figure:
    """Gold reward over a quarter, half, ... of all updates; labels grow with online only."""
    figure, (ax,) = _figure(1, width=7.0)
    for arm in ("offline", "online"):
        for run in runs:
            gold = [p["gold"] for p in run["found"][arm]]
            label = arm if run is runs[0] else None
            ax.plot(range(1, len(gold) + 1), gold, "-o", ms=3, color=COLOURS[arm], label=label)
    ax.set(xlabel="quarter of the updates", ylabel="gold reward",
           title=f"500 labels: all at first, or a quarter each ({_seeds(runs)})")  # fmt: skip
    ax.legend(frameon=False)
    return figure


FIGURES = {
    "frontier": _frontier_figures, "overoptimisation": _over_figures,
    "online": _online_figures, "rankings": _ranking_figures,
}  # fmt: skip
DRAW = {
    "frontier": draw_frontier, "overoptimisation": draw_overoptimisation,
    "online": draw_online, "rankings": draw_rankings,
}  # fmt: skip

if __name__ == "__main__":
    main()
