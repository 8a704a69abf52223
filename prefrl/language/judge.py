"""Judges: AI raters that read a constitution (Bai et al. 2022, arXiv:2212.08073; Lee et al. 2023).

A constitution is a list of principles. For every comparison one principle is sampled, or all are
mixed by their weights; the backend is asked in both orders and the answers are averaged, which
takes out a preference for whatever stands first; the result is a soft label.

Backends:
  * rules, `rule_backend`: a principle is a function of prompt and completion. Rules test the
    plumbing - sampling, orders, soft labels, the reward model behind - and say nothing about how
    well any model judges.
  * a local causal language model, `LanguageModelBackend`: the log-probabilities of the answers
    "1" and "2".
  * people: `prefrl.language.forms.ask` puts the same pairs into the store, `instruct` gives them
    the constitution as their instructions, and `prefrl rate` shows both.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from prefrl.errors import UserError, plain_toml
from prefrl.language.models import next_token_logp, read
from prefrl.language.records import Completion, Preference, TextLabel
from prefrl.language.tasks.annotator import sigmoid
from prefrl.language.tokenizer import Tokenizer
from prefrl.language.tokens import completions_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Principle:
    """One line of a constitution."""

    name: str
    text: str
    """As a person or a language model reads it."""
    weight: float = 1.0
    """How often it is sampled, or how much it counts in the mixture."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise UserError(f"principle {self.name!r}: got weight {self.weight}, wanted above 0")


class Backend(Protocol):
    """Who knows what a principle means."""

    def __call__(
        self, prompt: str, first: Completion, second: Completion, principle: Principle
    ) -> float:
        """P(second preferred), asked once, in this order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A rater of texts with a constitution.

    What it says depends on the seed, the prompt, the two texts and nothing else; exchanging the
    texts exchanges the answer: p(a, b) + p(b, a) = 1.
    """

    backend: Backend
    constitution: tuple[Principle, ...]
    mode: Literal["sample", "mix"] = "sample"
    """One principle a comparison, drawn by weight; or the weighted mean of all."""
    seed: int = 0
    """Of the draws of principles."""
    name: str = "judge"

    def __post_init__(self) -> None:
        if not self.constitution:
            raise UserError("constitution: got no principle, wanted at least one")

    def __call__(self, prompt: str, first: Completion, second: Completion) -> float:
        """P(second preferred), both orders averaged."""
        if self.mode == "sample":
            return self.prob(prompt, first, second, self.principle(prompt, first, second))
        weights = np.array([p.weight for p in self.constitution])
        each = [self.prob(prompt, first, second, p) for p in self.constitution]
        return float(np.average(each, weights=weights))

    def prob(
        self, prompt: str, first: Completion, second: Completion, principle: Principle
    ) -> float:
        """P(second preferred) by one principle, both orders averaged."""
        p = float(self.backend(prompt, first, second, principle))
        q = float(self.backend(prompt, second, first, principle))
        if not (0 <= p <= 1 and 0 <= q <= 1):
            raise UserError(f"judge {self.name!r}: got {p} and {q}, wanted probabilities")
        return 0.5 + (p - q) / 2  # so that equal answers are an exact tie

    def label(self, prompt: str, first: Completion, second: Completion) -> TextLabel:
        """A soft label."""
        verdict = Preference(second=self(prompt, first, second))
        return TextLabel(
            prompt=prompt, completions=(first, second), verdict=verdict, rater=self.name
        )

    def principle(self, prompt: str, first: Completion, second: Completion) -> Principle:
        """The one that is drawn for a comparison, by weight; the same for either order."""
        texts = sorted([(first.text, first.ended), (second.text, second.ended)])
        digest = hashlib.sha256(json.dumps([self.seed, prompt, texts]).encode()).digest()
        share = int.from_bytes(digest[:6], "big") / 2**48
        bounds = np.cumsum([p.weight for p in self.constitution])
        place = int(np.searchsorted(bounds, share * bounds[-1], side="right"))
        return self.constitution[min(place, len(self.constitution) - 1)]


def read_constitution(path: Path) -> tuple[Principle, ...]:
    """Principles from a TOML file: tables [[principle]] of name, text and perhaps weight.

    Raises:
        UserError: no such file, not TOML, or a principle that is none.
    """
    read = plain_toml(path)
    rows = read.get("principle")
    if set(read) != {"principle"} or not isinstance(rows, list) or not rows:
        got = ", ".join(read) or "nothing"
        raise UserError(f"{path}: got {got}, wanted tables [[principle]] and nothing else")
    return tuple(_principle(row, f"{path}, principle {i}") for i, row in enumerate(rows))


def _principle(row: Any, where: str) -> Principle:
    if not isinstance(row, dict) or not {"name", "text"} <= set(row) <= {"name", "text", "weight"}:
        got = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{where}: got {got}, wanted name, text and, if need be, weight")
    weight = row.get("weight", 1.0)
    if not isinstance(row["name"], str) or not isinstance(row["text"], str):
        raise UserError(f"{where}: wanted name and text in quotes")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise UserError(f"{where}: got the weight {weight!r}, wanted a number")
    return Principle(name=row["name"], text=row["text"], weight=float(weight))


Rule = Callable[[str, Completion], float]
"""(prompt, completion) -> how well it keeps to a principle, in nats."""


def rule_backend(rules: Mapping[str, Rule]) -> Backend:
    """Principles by name as functions; a gap of one nat is preferred 73 : 27."""

    def ask(prompt: str, first: Completion, second: Completion, principle: Principle) -> float:
        if principle.name not in rules:
            raise UserError(f"no rule {principle.name!r}; wanted one of {', '.join(rules)}")
        rule = rules[principle.name]
        return sigmoid(rule(prompt, second) - rule(prompt, first))

    return ask


QUESTION = """Which of two answers follows the principle better?
Principle: {principle}
Prompt: {prompt}
Answer 1: {first}
Answer 2: {second}
The better answer is number"""


class LanguageModelBackend:
    """Asks a causal language model, and reads the probabilities of "1" and "2".

    Args:
        model: as `prefrl.language.models.load_model` gives it.
        template: with {principle}, {prompt}, {first} and {second}; ends where the answer begins.
        answers: how the two answers are written after the template.

    Raises:
        UserError: the answers begin with the same token, so that one token cannot tell.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        template: str = QUESTION,
        answers: tuple[str, str] = (" 1", " 2"),
    ) -> None:
        self.model, self.tokenizer, self.template = model, tokenizer, template
        ids = [tokenizer.encode(answer) for answer in answers]
        # a space of its own says nothing: what differs comes behind it
        shared = [i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a == b]
        self.prefix = ids[0][: len(shared)] if shared == list(range(len(shared))) else []
        rest = [row[len(self.prefix) :] for row in ids]
        if not all(rest) or rest[0][0] == rest[1][0]:
            raise UserError(f"answers: got {answers}, wanted two that differ in their first token")
        self.answers = [row[0] for row in rest]

    @torch.no_grad()
    def __call__(
        self, prompt: str, first: Completion, second: Completion, principle: Principle
    ) -> float:
        question = self.template.format(
            principle=principle.text, prompt=prompt, first=first.text, second=second.text
        )
        ids = [*self.tokenizer.encode_prompt(question), *self.prefix]
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and len(ids) > room:
            raise UserError(
                f"the judge's question has {len(ids)} tokens, its model room for {room}"
            )
        logp = next_token_logp(self._last_logits(ids))
        return float(logp[self.answers].softmax(0)[1])

    def _last_logits(self, ids: Sequence[int]) -> torch.Tensor:
        """[V] after the last token."""
        texts = completions_of([ids[:-1]], [ids[-1:]], pad=self.tokenizer.pad)
        device = next(self.model.parameters()).device
        logits: torch.Tensor = read(self.model, texts.to(device)).logits[0, -1]
        return logits
