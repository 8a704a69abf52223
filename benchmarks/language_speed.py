"""Speed of sampling and training, as ratios to plain transformers and to TRL in the same run.

    python benchmarks/language_speed.py [--rounds 5] [--width 64] [--batch 64]

Each round measures both sides one after the other, and the ratio is the median over rounds, so
that other jobs on the machine disturb it little. Writes `runs/reference/language_speed.json`.
Beside TRL only where it is installed (`pip install trl`).
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import machine

from prefrl.language.collect import settings, speak
from prefrl.language.config import LanguageConfig
from prefrl.language.dpo import DirectConfig, DirectObjective, sequence_logp
from prefrl.language.encoded import Limits
from prefrl.language.models import new_model
from prefrl.language.optimise import OptimConfig, fit_to_end
from prefrl.language.records import Completion, TextLabel
from prefrl.language.reward import TextRewardConfig, TextRewardModel, encode_labels, fit_reward
from prefrl.language.tasks import Annotator, find_text_task
from prefrl.language.tokenizer import Tokenizer, train_tokenizer
from prefrl.language.trainer import LanguageTrainer

OUT = Path("runs/reference/language_speed.json")
PROMPT, COMPLETION = 8, 24
PAIRS = 640


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process: what other jobs take does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def bare_generate(trainer: LanguageTrainer, prompts: Any) -> Any:
    """transformers alone, asked for the same."""
    with torch.no_grad():
        return trainer.policy.model.generate(
            input_ids=prompts.ids,
            attention_mask=prompts.mask.long(),
            generation_config=_fixed_length(trainer),
        )


def _fixed_length(trainer: LanguageTrainer) -> Any:
    return settings(trainer.policy.sampling, trainer.tokenizer, COMPLETION)


def plain_update(trainer: LanguageTrainer, texts: Any) -> None:
    """Forward and backward of a cross-entropy loss on the same tokens, as often as PPO's."""
    ppo = trainer.config.ppo
    model = trainer.policy.model
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-9)
    for _ in range(ppo.epochs):
        for rows in torch.arange(len(texts)).tensor_split(ppo.minibatches):
            part = texts.rows(rows)
            labels = part.ids.where(part.attention, -100)
            optimiser.zero_grad()
            model(input_ids=part.ids, attention_mask=part.attention.long(), labels=labels)[
                "loss"
            ].backward()
            optimiser.step()


def measure(trainer: LanguageTrainer, *, batch: int) -> dict[str, float]:
    """One round."""
    tokenizer = trainer.tokenizer
    words = " ".join("abcdefg")
    prompts = tokenizer.prompts([words] * batch)
    assert prompts.ids.shape[1] == PROMPT
    generator = torch.Generator().manual_seed(0)
    said: list[Any] = []

    def ours() -> None:
        said.append(
            speak(
                trainer.policy,
                prompts,
                tokenizer=tokenizer,
                max_tokens=COMPLETION,
                generator=generator,
            )
        )

    bare = seconds(lambda: bare_generate(trainer, prompts))
    mine = seconds(ours)
    read = seconds(lambda: trainer.read(said[0]))
    experience = trainer.read(said[0])
    update = seconds(lambda: trainer.update(experience, [0.0] * batch))
    plain = seconds(lambda: plain_update(trainer, said[0]))
    return {
        "bare_generate": bare,
        "our_generate": mine,
        "log_probabilities_and_values": read,
        "ppo_update": update,
        "cross_entropy_update": plain,
    }


def make_trainer(width: int) -> LanguageTrainer:
    """A small Llama that never ends by itself, so that all completions are as long."""
    tokenizer: Tokenizer = train_tokenizer([" ".join("abcdefghij")], kind="words")
    model = new_model("llama", tokenizer, width=width, layers=2, positions=64, seed=0)
    config = LanguageConfig(max_tokens=COMPLETION, critic="shared")
    trainer = LanguageTrainer(model, tokenizer, config, seed=0)
    never = tuple(sorted({*trainer.policy.sampling.never_said, tokenizer.eos}))
    trainer.policy.sampling = replace(trainer.policy.sampling, never_said=never)
    return trainer


def make_pairs() -> list[TextLabel]:
    """Pairs of demonstrations of *Tiny reviews*, compared by their gold reward."""
    task = find_text_task("reviews")
    said = task.demonstrations(2 * PAIRS, 0)
    annotator, rng = Annotator(gold=task.gold), np.random.default_rng(0)
    texts = [Completion(text=demonstration.completion) for demonstration in said]
    return [
        annotator.compare(said[i].prompt, texts[i], texts[i + 1], rng)
        for i in range(0, 2 * PAIRS, 2)
    ]


def training(width: int, *, batch: int, rounds: int) -> dict[str, Any]:
    """Pairs a CPU second of reward models and DPO: ours, and TRL's where it is installed."""
    task, labels = find_text_task("reviews"), make_pairs()
    tokenizer = task.tokenizer()
    model = new_model("llama", tokenizer, width=width, layers=2, positions=64, seed=0)
    limits = Limits(max_prompt=task.max_prompt, max_completion=task.max_completion)
    data = encode_labels(labels, tokenizer, limits=limits)
    optim = OptimConfig(lr=1e-3, batch=batch, epochs=1)

    def reward() -> None:
        fit_reward(TextRewardModel.from_sft(model, TextRewardConfig(), seed=0), data, optim)

    def dpo() -> None:
        policy = copy.deepcopy(model)
        reference = sequence_logp(model, data.texts)
        fit_to_end(DirectObjective(policy, data, reference, DirectConfig()), optim)

    works: dict[str, Callable[[], object]] = {"reward": reward, "dpo": dpo}
    if find_spec("trl") is not None:
        from language_speed_trl import trl_works
    took: dict[str, list[float]] = {}
    for warm in (False, *[True] * rounds):
        other = trl_works(model, tokenizer, labels, optim) if find_spec("trl") else {}
        for name, work in (works | other).items():
            spent = seconds(work)
            if warm:
                took.setdefault(name, []).append(spent)
    speeds = {name: PAIRS / statistics.median(each) for name, each in took.items()}
    ratios = {
        f"{theirs.removeprefix('trl_')}_against_trl": statistics.median(
            t / o for t, o in zip(took[theirs], took[ours], strict=True)
        )
        for ours in works
        for theirs in took
        if theirs.startswith(f"trl_{ours}")
    }
    return {
        "pairs_per_cpu_second": speeds,
        **ratios,
        "pairs": PAIRS,
        "trl": version("trl") if find_spec("trl") else None,
    }


def main() -> None:
    """Warm up, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    trainer = make_trainer(given.width)
    measure(trainer, batch=given.batch)
    rounds = [measure(trainer, batch=given.batch) for _ in range(given.rounds)]

    def ratio(top: str, bottom: str) -> float:
        return statistics.median(row[top] / row[bottom] for row in rounds)

    table = {
        "generation_speed_against_bare_generate": ratio("bare_generate", "our_generate"),
        "ppo_update_speed_against_cross_entropy": ratio("cross_entropy_update", "ppo_update"),
        "median_cpu_seconds": {
            name: statistics.median(row[name] for row in rounds) for name in rounds[0]
        },
        "training": training(given.width, batch=given.batch, rounds=given.rounds),
        "rounds": given.rounds,
        "width": given.width,
        "batch": given.batch,
        "tokens": [PROMPT, COMPLETION],
        "threads": 1,
        "machine": machine(),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
