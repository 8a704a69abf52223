"""Does the pretraining term keep language alive? *Docstrings*, gamma = 0 against gamma > 0.

    .venv/bin/python benchmarks/language_docstrings.py [--seeds 0 1 2] [--light]

A small Llama learns whole docstrings of the standard library, then one-line summaries of
signatures, then PPO on the rubric of five rules itself. On the way, gold reward on prompts that
were held out stands beside the loss on whole docstrings that were. Both arms are compared at equal
gold: the loss when the mean of three evaluations in a row first reaches a level, the highest that
both arms of a seed reach. Finished seeds are in `runs/bench/language_docstrings/`; figures and the
picture go to `runs/reference/language_docstrings/`.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from prefrl.language.config import LanguageConfig, language_ppo
from prefrl.language.encoded import Encoded, Limits, encode_demonstrations
from prefrl.language.estimates import mean_of
from prefrl.language.evaluate import sample
from prefrl.language.models import new_model
from prefrl.language.optimise import OptimConfig, fit_to_end
from prefrl.language.pretraining import pretraining_texts
from prefrl.language.sft import SftObjective, language_loss
from prefrl.language.tasks import find_text_task
from prefrl.language.tasks.docstrings import language_texts
from prefrl.language.tokenizer import Tokenizer
from prefrl.language.trainer import LanguageTrainer

TASK = find_text_task("docstrings")
GAMMAS = (0.0, 0.5)
COLOURS = {0.0: "#D55E00", 0.5: "#0072B2"}  # Okabe and Ito 2008
TOKENS = 64  # of a docstring, where it is cut
Point = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    docstrings: int = 8000
    width: int = 64
    updates: int = 80
    batch: int = 64
    """Completions of an update."""
    every: int = 4
    """Updates between two evaluations."""
    evaluated: int = 200
    """Prompts and docstrings, all held out."""


FULL = Scale()
LIGHT = Scale(docstrings=200, width=32, updates=4, batch=8, every=1, evaluated=16)
"""Seconds: does it run from end to end?"""


def whole(texts: Sequence[str], tokenizer: Tokenizer) -> Encoded:
    """Docstrings as language modelling reads them."""
    read = pretraining_texts(texts, tokenizer, limit=TOKENS)
    return Encoded(
        prompts=read.prompt.tolist(),
        completions=[
            row[keep].tolist() for row, keep in zip(read.completion, read.mask, strict=True)
        ],
        pad=tokenizer.pad,
    )


def sft(tokenizer: Tokenizer, scale: Scale, *, seed: int) -> nn.Module:
    """Language first, then the task."""
    model = new_model("llama", tokenizer, width=scale.width, layers=2, positions=128, seed=seed)
    texts = whole(language_texts(held_out=False)[: scale.docstrings], tokenizer)
    fit_to_end(SftObjective(model, texts), OptimConfig(lr=3e-3, lr_end=0.1, batch=32, seed=seed))
    limits = Limits(max_prompt=TASK.max_prompt, max_completion=TASK.max_completion, too_long="drop")
    demos = encode_demonstrations(
        TASK.demonstrations(scale.docstrings, seed), tokenizer, limits=limits
    )
    fit_to_end(SftObjective(model, demos), OptimConfig(lr=1e-3, lr_end=0.1, batch=32, seed=seed))
    return model


def fitting(prompts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """Those within the task's limit."""
    return [p for p in prompts if len(tokenizer.encode_prompt(p)) <= TASK.max_prompt]


def ppo(
    start: nn.Module, tokenizer: Tokenizer, scale: Scale, *, gamma: float, seed: int
) -> list[Point]:
    """Gold reward and held-out loss on the way."""
    config = LanguageConfig(
        updates=scale.updates,
        max_tokens=TASK.max_completion // 2,
        beta=0.02,
        missing_eos="keep",  # the gold reward knows what a missing end costs
        pretraining=gamma,
        ppo=replace(language_ppo(), lr=1e-3),
    )
    trainer = LanguageTrainer(
        copy.deepcopy(start),
        tokenizer,
        config,
        seed=seed,
        pretraining=language_texts(held_out=False)[: scale.docstrings],
    )
    rng = np.random.default_rng(seed)
    prompts = fitting(TASK.prompts, tokenizer)
    asked = fitting(TASK.held_out_prompts, tokenizer)[: scale.evaluated]
    aside = whole(language_texts(held_out=True)[: scale.evaluated], tokenizer)

    def point(update: int) -> Point:
        said = sample(
            trainer.policy.model,
            asked,
            tokenizer=tokenizer,
            sampling=trainer.policy.sampling,
            max_completion=config.max_tokens,
            generator=torch.Generator().manual_seed(seed),
        )
        return {
            "update": float(update),
            "gold": float(said.gold(TASK.gold).mean()),
            "loss": language_loss(trainer.policy.model, aside),
            "length": float(said.lengths.mean()),
        }

    points = [point(0)]
    for update in range(1, scale.updates + 1):
        batch = trainer.collect([prompts[i] for i in rng.integers(len(prompts), size=scale.batch)])
        ended = batch.ended.tolist()
        gold = [
            TASK.gold(prompt, text, end)
            for prompt, text, end in zip(batch.prompts, batch.completions, ended, strict=True)
        ]
        figures = trainer.update(batch, gold)
        if update % scale.every == 0:
            points.append({**point(update), "kl": figures["lm/kl"]})
    return points


def run(seed: int, scale: Scale) -> dict[str, Any]:
    """Both arms from one SFT model."""
    started = time.process_time()
    tokenizer = TASK.tokenizer()
    start = sft(tokenizer, scale, seed=seed)
    arms = {f"{gamma:g}": ppo(start, tokenizer, scale, gamma=gamma, seed=seed) for gamma in GAMMAS}
    return {"seed": seed, "arms": arms, "cpu_seconds": time.process_time() - started}


def smoothed(points: Sequence[Point], key: str) -> np.ndarray:
    """[n - 2] means of three evaluations in a row."""
    return np.convolve([p[key] for p in points], np.ones(3) / 3, mode="valid")


def at_equal_gold(arms: dict[str, list[Point]]) -> dict[str, float]:
    """The highest gold that both arms reach, and the loss of each when it first does."""
    level = min(smoothed(points, "gold").max() for points in arms.values())
    found = {"gold": float(level)}
    for gamma, points in arms.items():
        first = int(np.argmax(smoothed(points, "gold") >= level))
        found[f"loss at gamma {gamma}"] = float(smoothed(points, "loss")[first])
    return found


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a table quotes."""
    equal = [at_equal_gold(run["arms"]) for run in runs]
    with_term = f"loss at gamma {GAMMAS[1]:g}"
    gaps = np.array([e[with_term] - e["loss at gamma 0"] for e in equal])
    return {
        "seeds": [run["seed"] for run in runs],
        "cpu minutes": [round(run["cpu_seconds"] / 60, 1) for run in runs],
        "at equal gold": equal,
        "difference of the losses": str(mean_of(gaps)),
        "at the start": [run["arms"]["0"][0] for run in runs],
        "at the end": {
            gamma: [run["arms"][gamma][-1] for run in runs] for gamma in runs[0]["arms"]
        },
    }


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Both figures over updates, and one against the other."""
    figure = Figure(figsize=(15, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots(1, 3)
    for run_ in runs:
        for gamma in GAMMAS:
            points = run_["arms"][f"{gamma:g}"]
            look = {"color": COLOURS[gamma], "lw": 1.3, "alpha": 0.8}
            label = f"gamma {gamma:g}" if run_ is runs[0] else None
            updates = [p["update"] for p in points]
            axes[0].plot(updates, [p["gold"] for p in points], label=label, **look)
            axes[1].plot(updates, [p["loss"] for p in points], label=label, **look)
            gold, loss = smoothed(points, "gold"), smoothed(points, "loss")
            axes[2].plot(gold, loss, "-o", ms=3, label=label, **look)
    axes[0].set(xlabel="update", ylabel="gold reward, 0 to 5", title="Rubric on held-out prompts")
    axes[1].set(xlabel="update", ylabel="nats a token", title="Loss on held-out docstrings")
    axes[2].set(xlabel="gold reward", ylabel="nats a token", title="One against the other")
    for ax in axes:
        ax.grid(color="#e2e2e2", lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    seeds = ", ".join(str(run_["seed"]) for run_ in runs)
    figure.suptitle(f"Docstrings: PPO on the rubric, with and without the pretraining term "
                    f"(seeds {seeds})")  # fmt: skip
    figure.savefig(path)


def main() -> None:
    """Run what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--light", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench/language_docstrings"))
    parser.add_argument("--out", type=Path, default=Path("runs/reference/language_docstrings"))
    given = parser.parse_args()
    from kept import kept  # beside this script

    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    folder, scale = (given.runs / "light", LIGHT) if given.light else (given.runs, FULL)
    runs = []
    for seed in given.seeds:
        about = kept(folder / f"seed{seed}.json", asdict(scale), partial(run, seed, scale))
        runs.append({**about["result"], "commit": about["commit"], "machine": about["machine"]})
    report = {"settings": asdict(scale), "summary": summary(runs), "runs": runs}
    (given.out / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(runs, given.out / "docstrings.png")
    print(json.dumps(report["summary"], indent=1))


if __name__ == "__main__":
    main()
