"""PPO with a KL penalty against the enumerated optimum of *Exact*, for three betas.

    python benchmarks/language_exact.py [--seeds 5] [--symbols 6] [--length 3]

writes `runs/reference/language_exact/`: one JSON a run, which is not run again where it is
there, a table `results.json`, and `exact.png`. The optimum is reference * exp(reward / beta) / Z;
reached means a total variation of at most .02.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import kept, machine
from matplotlib.figure import Figure

from prefrl.language.config import LanguageConfig
from prefrl.language.tasks.exact import (
    Exact,
    exact_task,
    expected,
    kl,
    optimum,
    reference_model,
    sequence_logp,
    total_variation,
)
from prefrl.language.terms import TextExperience
from prefrl.language.trainer import LanguageTrainer
from prefrl.ppo import PPOConfig

OUT = Path("runs/reference/language_exact")
BETAS = (0.5, 1.0, 2.0)
COLOURS = ("#0072B2", "#D55E00", "#009E73")
REACHED = 0.02


def settings(beta: float, *, updates: int, length: int) -> LanguageConfig:
    """Advantages keep their scale: at the optimum they are all 0, and so is the noise."""
    ppo = PPOConfig(
        gamma=1.0,
        lam=0.95,
        lr=3e-3,
        lr_end=0.0,
        epochs=2,
        minibatches=2,
        clip=0.2,
        value_clip=None,
        value_coef=0.5,
        entropy_coef=0.0,
        max_grad_norm=1.0,
        normalise="none",
    )
    return LanguageConfig(
        updates=updates,
        max_tokens=length,
        beta=beta,
        critic="shared",
        missing_eos="keep",
        ppo=ppo,
    )


def train(task: Exact, *, beta: float, seed: int, updates: int, batch: int) -> dict[str, Any]:
    """One run: total variation on the way, and exact figures at the end."""
    started = time.process_time()
    model = reference_model(task, seed=seed)
    trainer = LanguageTrainer(
        model, task.tokenizer, settings(beta, updates=updates, length=task.length), seed=seed
    )
    sampling = trainer.policy.sampling
    reference = sequence_logp(trainer.policy.model, task, sampling)
    best = optimum(reference, task.reward, beta=beta)
    curve = [(0, total_variation(reference, best))]
    for update in range(1, updates + 1):
        said = trainer.collect(task.prompts(batch))
        trainer.update(said, task.score(said.rollout.inputs))  # type: ignore[arg-type]
        if update % 10 == 0 or update == updates:
            now = sequence_logp(trainer.policy.model, task, sampling)
            curve.append((update, total_variation(now, best)))
    return {
        "beta": beta,
        "seed": seed,
        "curve": curve,
        "total_variation": total_variation(now, best),
        "kl_to_optimum": kl(now, best),
        "kl": kl(now, reference),
        "kl_of_optimum": kl(best, reference),
        "kl_from_logged_tokens": logged_kl(trainer, task, now),
        "reward": expected(now, task.reward),
        "reward_of_optimum": expected(best, task.reward),
        "objective_gap": objective(best, reference, task, beta)
        - objective(now, reference, task, beta),
        "cpu_seconds": time.process_time() - started,
    }


def objective(p: torch.Tensor, reference: torch.Tensor, task: Exact, beta: float) -> float:
    """E[reward] - beta KL."""
    return expected(p, task.reward) - beta * kl(p, reference)


def logged_kl(trainer: LanguageTrainer, task: Exact, logp: torch.Tensor) -> float:
    """The trainer's own per-token estimates, summed over each completion and averaged exactly."""
    experience: TextExperience = trainer.read(task.completions)
    return expected(logp, experience.k1.double().sum(1))


def draw(rows: list[dict[str, Any]], task: Exact, path: Path) -> None:
    """Total variation while learning, and where each run ends on the frontier."""
    figure = Figure(figsize=(12, 4.8), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    for beta, colour in zip(BETAS, COLOURS, strict=True):
        mine = [row for row in rows if row["beta"] == beta]
        for i, row in enumerate(mine):
            steps, values = np.array(row["curve"]).T
            label = f"beta {beta:g}" if i == 0 else None
            left.plot(steps, values, color=colour, lw=1.3, alpha=0.8, label=label)
            gained = row["reward"] / row["reward_of_optimum"]
            spent = row["kl"] / row["kl_of_optimum"]
            right.plot(spent, gained, "o", color=colour, ms=7, alpha=0.7, label=label)
    left.axhline(REACHED, color="#666666", ls=":", label="reached: 0.02")
    left.set(yscale="log", xlabel="updates", ylabel="total variation to the optimum")
    seeds = len({row["seed"] for row in rows})
    left.set_title(f"PPO with a KL penalty, {seeds} seeds each", loc="left")
    left.set_ylim(top=1)
    right.axhline(1, color="#666666", lw=0.8)
    right.axvline(1, color="#666666", lw=0.8)
    right.set(xlabel="KL spent / KL of the optimum", ylabel="reward / reward of the optimum")
    right.set_title("Where the runs end", loc="left")
    span = max(0.02, *(abs(v - 1) for row in rows for v in _shares(row))) * 1.3
    right.set(xlim=(1 - span, 1 + span), ylim=(1 - span, 1 + span))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(
        f"Exact: {len(task.symbols)} symbols, at most {task.length} tokens, "
        f"{len(task.completions):,} completions",
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    figure.savefig(path)


def _shares(row: dict[str, Any]) -> tuple[float, float]:
    return row["kl"] / row["kl_of_optimum"], row["reward"] / row["reward_of_optimum"]


def main() -> None:
    """Run what is missing, then write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--symbols", type=int, default=6)
    parser.add_argument("--length", type=int, default=3)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if min(given.seeds, given.updates) < 1:
        parser.error("wanted one seed and one update or more")
    given.out.mkdir(parents=True, exist_ok=True)
    sizes = {name: getattr(given, name) for name in ("symbols", "length", "updates", "batch")}
    rows = []
    for seed in range(given.seeds):
        task = exact_task(symbols=given.symbols, length=given.length, seed=seed)
        for beta in BETAS:
            make = partial(
                train, task, beta=beta, seed=seed, updates=given.updates, batch=given.batch
            )
            rows.append(kept(given.out / f"beta{beta:g}-seed{seed}.json", sizes, make)["result"])
            print({k: v for k, v in rows[-1].items() if k != "curve"}, flush=True)
    table = {
        **sizes,
        "machine": machine(),
        "worst_total_variation": {
            f"{beta:g}": max(row["total_variation"] for row in rows if row["beta"] == beta)
            for beta in BETAS
        },
        "worst_gap_of_logged_kl": max(
            abs(row["kl_from_logged_tokens"] - row["kl"]) for row in rows
        ),
        "cpu_seconds": math.fsum(row["cpu_seconds"] for row in rows),
    }
    (given.out / "results.json").write_text(json.dumps(table, indent=1))
    draw(rows, task, given.out / "exact.png")


if __name__ == "__main__":
    main()
