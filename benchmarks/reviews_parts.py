"""The experiments on Tiny reviews, each a function of a seed; `language_reviews.py` runs them.

All of them begin from the same SFT model of the seed and read the gold reward only to answer as
an annotator and to evaluate.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prefrl.language.best_of_n import best_of_n, best_of_n_kl
from prefrl.language.config import LanguageConfig, language_ppo
from prefrl.language.dpo import DirectConfig, DirectObjective, sequence_logp
from prefrl.language.encoded import Limits, encode_demonstrations
from prefrl.language.estimates import mean_of
from prefrl.language.evaluate import Samples, sample, sequence_kl
from prefrl.language.models import load_model, new_model, save_model
from prefrl.language.optimise import OptimConfig, fit_to_end
from prefrl.language.policy import Sampling
from prefrl.language.records import TextLabel
from prefrl.language.reward import TextRewardConfig, TextRewardModel, encode_labels, fit_reward
from prefrl.language.sft import SftObjective
from prefrl.language.tasks import Annotator, find_text_task
from prefrl.language.tokenizer import Tokenizer, load_tokenizer
from prefrl.language.trainer import LanguageTrainer

TASK = find_text_task("reviews")
LIMITS = Limits(max_prompt=TASK.max_prompt, max_completion=TASK.max_completion)
Point = dict[str, float]
Rewards = Callable[[int, nn.Module], TextRewardModel]
"""The reward model of an update, given the policy as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    demonstrations: int = 8000
    sft_epochs: float = 4.0
    pairs: int = 2000
    """Labels of a good reward model."""
    weak_pairs: int = 400
    """Labels of one that can be exploited, a tenth of them flipped."""
    weak_epochs: float = 4.0
    """Passes over those: chosen on seed 5 alone."""
    reward_epochs: float = 8.0
    """In batches of 16: after fewer steps the reward model has learned little but length."""
    direct_epochs: float = 4.0
    """Of DPO; this, the batch and the step size were chosen on seed 5 alone."""
    direct_batch: int = 16
    """Labels of each step of DPO."""
    direct_lr: float = 1e-3
    """Its step size."""
    least_labels: int = 500
    """With fewer, a reward model takes as many steps as with these."""
    updates: int = 60
    """Of PPO and GRPO, 128 completions each."""
    long_updates: int = 90
    """The same, where optimising is to go too far."""
    evaluated: int = 1020
    """Completions that a policy is evaluated on."""
    best_of: int = 256
    """Samples a prompt for best-of-n."""
    width: int = 64
    layers: int = 2


FULL = Scale()
LIGHT = Scale(
    demonstrations=300, sft_epochs=2, pairs=80, weak_pairs=24, weak_epochs=2, reward_epochs=2,
    direct_epochs=2, updates=2, long_updates=2, evaluated=36, best_of=16, width=32, layers=1,
    least_labels=1,
)  # fmt: skip
"""Seconds: does it run from end to end?"""


class World:
    """The SFT model of one seed, and what every part asks of it."""

    def __init__(self, seed: int, scale: Scale, folder: Path) -> None:
        self.seed, self.scale = seed, scale
        self.generator = torch.Generator().manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.annotator = Annotator(gold=TASK.gold)
        self.tokenizer, self.sft = _sft(seed, scale, folder)
        self.sampling = Sampling(temperature=1.0, never_said=self.tokenizer.never_said)

    def sample(self, model: nn.Module, count: int) -> Samples:
        """`count` completions, the prompts in turn."""
        prompts = [TASK.prompts[i % len(TASK.prompts)] for i in range(count)]
        return sample(
            model,
            prompts,
            tokenizer=self.tokenizer,
            sampling=self.sampling,
            max_completion=TASK.max_completion,
            generator=self.generator,
        )

    def compared(self, model: nn.Module, count: int, annotator: Annotator) -> list[TextLabel]:
        """So many answers about pairs that `model` wrote."""
        return [
            annotator.compare(prompt, *both, self.rng)
            for prompt, both in self.groups(model, count, size=2)
        ]

    def groups(self, model: nn.Module, count: int, *, size: int) -> list[tuple[str, tuple]]:
        """`count` times a prompt with `size` completions of `model`."""
        said = self.sample(model, -(-count // len(TASK.prompts)) * len(TASK.prompts) * size)
        by_prompt: dict[str, list] = {prompt: [] for prompt in TASK.prompts}
        for prompt, completion in zip(said.prompts, said.completions, strict=True):
            by_prompt[prompt].append(completion)
        cut = [
            (prompt, tuple(found[i : i + size]))
            for i in range(0, len(said) // len(TASK.prompts), size)
            for prompt, found in by_prompt.items()
        ]
        return cut[:count]

    def reward_model(
        self, labels: Sequence[TextLabel], *, epochs: float | None = None, **settings: Any
    ) -> TextRewardModel:
        """Fitted from the SFT model; mean 0 and deviation 1 on what that model says.

        Args:
            epochs: None: those of a good one.
        """
        made = TextRewardModel.from_sft(self.sft, TextRewardConfig(**settings), seed=self.seed)
        data = encode_labels(labels, self.tokenizer, limits=LIMITS)
        if epochs is None:
            epochs = self.scale.reward_epochs * max(1.0, self.scale.least_labels / len(labels))
        fit_reward(made, data, OptimConfig(lr=2e-3, batch=16, epochs=epochs, seed=self.seed))
        made.normalise_on(self.sample(self.sft, self.scale.evaluated).texts)
        return made

    def point(self, model: nn.Module, learned: TextRewardModel | None = None) -> Point:
        """Where a policy stands: KL, gold and learned reward, length."""
        said = self.sample(model, self.scale.evaluated)
        kl = mean_of(sequence_kl(model, self.sft, said.texts, sampling=self.sampling))
        gold = mean_of(said.gold(TASK.gold))
        found = {
            "kl": kl.value,
            "gold": gold.value,
            "gold_error": (gold.high - gold.low) / 2,
            "length": float(said.lengths.mean()),
            "ended": float(np.mean([c.ended for c in said.completions])),
        }
        return found if learned is None else {
            **found, "learned": float(learned.score(said.texts).mean()),
        }  # fmt: skip

    def optimise(
        self,
        rewards: TextRewardModel | Rewards,
        *,
        beta: float,
        updates: int,
        advantage: str = "critic",
        at: Sequence[int] = (),
        judge: TextRewardModel | None = None,
    ) -> list[Point]:
        """PPO, or GRPO, from the SFT model against a learned reward; where it stood on its way.

        Args:
            rewards: one model, or what gives the one of each update.
            at: after which updates such points are taken; after the last one always.
            judge: whose score is reported as the learned one; None: the model of that update.
        """
        grouped = advantage != "critic"
        config = LanguageConfig(
            updates=updates,
            samples=4 if grouped else 1,
            max_tokens=TASK.max_completion,
            advantage=advantage,  # type: ignore[arg-type]
            beta=beta,
            missing_eos="keep",  # the gold reward knows what a missing end costs
            ppo=replace(language_ppo(), lr=1e-3),
        )
        model = copy.deepcopy(self.sft)
        trainer = LanguageTrainer(model, self.tokenizer, config, seed=self.seed)
        points = []
        for update in range(updates):
            learned = rewards if isinstance(rewards, nn.Module) else rewards(update, model)
            count = 128 // config.samples
            prompts = [TASK.prompts[i] for i in self.rng.integers(len(TASK.prompts), size=count)]
            experience = trainer.collect(prompts)
            trainer.update(experience, learned.score(experience.rollout.inputs))  # type: ignore[arg-type]
            if update + 1 in at or update + 1 == updates:
                points.append({"update": update + 1.0, **self.point(model, judge or learned)})
        return points

    def direct(self, labels: Sequence[TextLabel], *, beta: float) -> nn.Module:
        """DPO from the SFT model."""
        policy = copy.deepcopy(self.sft)
        data = encode_labels(labels, self.tokenizer, limits=LIMITS)
        reference = sequence_logp(self.sft, data.texts)
        objective = DirectObjective(policy, data, reference, DirectConfig(beta=beta))
        scale = self.scale
        config = OptimConfig(
            lr=scale.direct_lr, batch=scale.direct_batch, epochs=scale.direct_epochs, seed=self.seed
        )
        fit_to_end(objective, config)
        return policy

    def best_of(self, learned: TextRewardModel, sizes: Sequence[int]) -> list[Point]:
        """Best of n of the SFT model, estimated for each n from the same samples."""
        N, P = self.scale.best_of, len(TASK.prompts)
        said = self.sample(self.sft, N * P)
        scores = learned.score(said.texts).cpu().double().numpy().reshape(N, P).T
        gold = said.gold(TASK.gold).reshape(N, P).T
        found = best_of_n(scores, gold, sizes).mean(0)
        proxy = best_of_n(scores, scores, sizes).mean(0)
        return [
            {"n": float(n), "kl": best_of_n_kl(n), "gold": float(g), "learned": float(p)}
            for n, g, p in zip(sizes, found, proxy, strict=True)
        ]

    def sizes(self) -> list[int]:
        """1, 2, 4, ... up to the samples there are."""
        return [2**i for i in range(int(np.log2(self.scale.best_of)) + 1)]


def _sft(seed: int, scale: Scale, folder: Path) -> tuple[Tokenizer, nn.Module]:
    """The SFT model of a seed, fitted once and kept in `folder`."""
    path = folder / f"sft-seed{seed}"
    if not (path / "config.json").exists():
        tokenizer = TASK.tokenizer()
        model = new_model(
            "llama", tokenizer, width=scale.width, layers=scale.layers, positions=32, seed=seed
        )
        demos = TASK.demonstrations(scale.demonstrations, seed)
        texts = encode_demonstrations(demos, tokenizer, limits=LIMITS)
        config = OptimConfig(lr=2e-3, lr_end=0.15, batch=64, epochs=scale.sft_epochs, seed=seed)
        fit_to_end(SftObjective(model, texts), config)
        save_model(model, tokenizer, path)
    tokenizer = load_tokenizer(path, offline=True)
    return tokenizer, load_model(path, tokenizer, offline=True)


def frontier(world: World) -> dict[str, Any]:
    """One reward model of 2,000 pairs; PPO, GRPO, DPO and best-of-n against it."""
    labels = world.compared(world.sft, world.scale.pairs, world.annotator)
    learned = world.reward_model(labels)
    updates = world.scale.updates
    found: dict[str, Any] = {"sft": [world.point(world.sft, learned)]}
    for beta in (0.3, 0.1, 0.03):
        found[f"ppo {beta}"] = world.optimise(learned, beta=beta, updates=updates)
    found["grpo 0.1"] = world.optimise(learned, beta=0.1, updates=updates, advantage="grpo")
    for beta in (0.3, 0.1, 0.03):
        policy = world.direct(labels, beta=beta)
        found[f"dpo {beta}"] = [world.point(policy, learned)]
    found["best of n"] = world.best_of(learned, world.sizes())
    return found


def overoptimisation(world: World) -> dict[str, Any]:
    """A reward model of few noisy pairs, pushed hard; then what holds it back.

    "learned" is the same single model in all arms; "none" and "kl" optimise it. The lower bound is
    the mean less one standard deviation of four members, each fitted on a bootstrap of the same
    labels; "both" optimises it with the same KL term.
    """
    noisy = replace(world.annotator, flips=0.1)
    labels = world.compared(world.sft, world.scale.weak_pairs, noisy)
    epochs = world.scale.weak_epochs
    weak = world.reward_model(labels, epochs=epochs)
    bound = world.reward_model(labels, epochs=epochs, members=4, pessimism=1.0)
    updates = world.scale.long_updates
    at = [round(2 ** (i / 2)) for i in range(2 * updates.bit_length())]  # KL grows fastest at first
    start = world.point(world.sft, weak)

    def run(against: TextRewardModel, beta: float) -> list[Point]:
        points = world.optimise(against, beta=beta, updates=updates, at=at, judge=weak)
        return [{"update": 0.0, **start}, *points]

    return {
        "none": run(weak, 0.0),
        "kl": run(weak, 0.05),
        "lower bound": run(bound, 0.0),
        "both": run(bound, 0.05),
        "best of n": world.best_of(weak, world.sizes()),
        "best of n, lower bound": world.best_of(bound, world.sizes()),
    }


def rankings(world: World) -> dict[str, Any]:
    """Reward models from K-wise answers: split into pairs or whole, at equal numbers of answers
    and at equal numbers of completions read. Correlation with gold on fresh completions."""
    said = world.sample(world.sft, 2 * world.scale.evaluated)
    gold = said.gold(TASK.gold)

    def quality(labels: Sequence[TextLabel], how: str) -> float:
        scores = world.reward_model(labels, rankings=how).score(said.texts).cpu().numpy()
        return float(np.corrcoef(scores, gold)[0, 1])

    found: dict[str, Any] = {}
    budget = world.scale.pairs // 4
    for K in (2, 4, 6):
        groups = world.groups(world.sft, budget, size=K)
        answers = [world.annotator.rank(prompt, texts, world.rng) for prompt, texts in groups]
        for how in ("pairs", "plackett-luce") if K > 2 else ("pairs",):
            found[f"K={K} {how}"] = {
                "equal answers": quality(answers, how),
                "equal completions": quality(answers[: 2 * budget // K], how),
            }
    return found


def online(world: World) -> dict[str, Any]:
    """The same number of labels: all of the SFT model's texts, or in rounds of the policy as it is.

    Nothing else differs: one run of PPO each, held to the SFT model. Online, each quarter of it
    begins with a quarter of the labels and a reward model of all labels so far.
    """
    budget, updates, rounds = world.scale.pairs // 4, world.scale.updates, 4
    part = max(updates // rounds, 1)
    at = range(part, updates + 1, part)
    all_at_first = world.reward_model(world.compared(world.sft, budget, world.annotator))
    labels: list[TextLabel] = []
    models: list[TextRewardModel] = []

    def in_rounds(update: int, policy: nn.Module) -> TextRewardModel:
        if update % part == 0 and len(models) < rounds:
            labels.extend(world.compared(policy, budget // rounds, world.annotator))
            models.append(world.reward_model(labels))
        return models[-1]

    return {
        "offline": world.optimise(all_at_first, beta=0.05, updates=updates, at=at),
        "online": world.optimise(in_rounds, beta=0.05, updates=updates, at=at),
    }


PARTS: dict[str, Callable[[World], dict[str, Any]]] = {
    part.__name__: part for part in (frontier, overoptimisation, online, rankings)
}


def run_part(name: str, seed: int, scale: Scale, folder: Path) -> dict[str, Any]:
    """One part of one seed, with the seconds it took by the clock and of the processor."""
    began, used = time.monotonic(), time.process_time()
    world = World(seed, scale, folder)
    found = PARTS[name](world)
    return {
        "seed": seed,
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - used,
        "found": found,
    }
