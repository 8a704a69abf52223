"""Speed of sampling and of PPO's update, as ratios to plain transformers in the same run.

    python benchmarks/language_speed.py [--rounds 5] [--width 64] [--batch 64]

Each round measures both sides one after the other, and the ratio is the median over rounds, so
that other jobs on the machine disturb it little. Writes `runs/reference/language_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prefrl.language.collect import settings, speak
from prefrl.language.config import LanguageConfig
from prefrl.language.models import new_model
from prefrl.language.tokenizer import Tokenizer, train_tokenizer
from prefrl.language.trainer import LanguageTrainer

OUT = Path("runs/reference/language_speed.json")
PROMPT, COMPLETION = 8, 24


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
        "rounds": given.rounds,
        "width": given.width,
        "batch": given.batch,
        "tokens": [PROMPT, COMPLETION],
        "cpus": os.cpu_count(),
        "threads": 1,
        "torch": torch.__version__,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
