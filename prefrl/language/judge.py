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


Pair = tuple[str, Completion, Completion]
"""A prompt, and two completions of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which of two texts keeps better to a principle? Asked in this order."""

    prompt: str
    first: Completion
    second: Completion
    principle: Principle


class Backend(Protocol):
    """Who knows what a principle means."""

    def __call__(self, questions: Sequence[Question]) -> Sequence[float]:
        """P(second preferred) of each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A rater of texts with a constitution.

    What it says depends on the seed, the prompt, the two texts and nothing else (a language model's
    rounding aside); exchanging the texts exchanges the answer: p(a, b) + p(b, a) = 1.
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
        return self.probs([(prompt, first, second)])[0]

    def probs(self, pairs: Sequence[Pair]) -> list[float]:
        """P(second preferred) of each, both orders averaged; all asked of the backend at once."""
        questions = self.questions(pairs)
        said = [float(p) for p in self.backend(questions)]
        if len(said) != len(questions):
            raise UserError(
                f"judge {self.name!r}: got {len(said)} answers, wanted {len(questions)}"
            )
        impossible = [p for p in said if not 0 <= p <= 1]
        if impossible:
            raise UserError(f"judge {self.name!r}: got {impossible[0]}, wanted a probability")
        # so that equal answers are an exact tie
        each = iter([0.5 + (p - q) / 2 for p, q in zip(said[::2], said[1::2], strict=True)])
        judged_by = [self._principles(*pair) for pair in pairs]
        return [
            float(np.average([next(each) for _ in asked], weights=[p.weight for p in asked]))
            for asked in judged_by
        ]

    def questions(self, pairs: Sequence[Pair]) -> list[Question]:
        """What the backend is asked: of each pair by each principle in one order, and the other."""
        return [
            Question(prompt=prompt, first=a, second=b, principle=principle)
            for prompt, first, second in pairs
            for principle in self._principles(prompt, first, second)
            for a, b in ((first, second), (second, first))
        ]

    def labels(self, pairs: Sequence[Pair]) -> list[TextLabel]:
        """Soft labels."""
        return [
            TextLabel(
                prompt=prompt,
                completions=(first, second),
                verdict=Preference(second=prob),
                rater=self.name,
            )
            for (prompt, first, second), prob in zip(pairs, self.probs(pairs), strict=True)
        ]

    def _principles(
        self, prompt: str, first: Completion, second: Completion
    ) -> tuple[Principle, ...]:
        """Those that a comparison is judged by."""
        if self.mode == "mix":
            return self.constitution
        return (self.principle(prompt, first, second),)

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

    def answer(asked: Question) -> float:
        if asked.principle.name not in rules:
            wanted = ", ".join(rules)
            raise UserError(f"no rule {asked.principle.name!r}; wanted one of {wanted}")
        rule = rules[asked.principle.name]
        return sigmoid(rule(asked.prompt, asked.second) - rule(asked.prompt, asked.first))

    return lambda questions: [answer(asked) for asked in questions]


AT_ONCE = 32  # questions in a forward pass

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
    def __call__(self, questions: Sequence[Question]) -> list[float]:
        """Questions of about one length share a forward pass of at most `AT_ONCE`."""
        ids = [self._ids(asked) for asked in questions]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        said = torch.empty(len(ids))
        for start in range(0, len(ids), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            logp = next_token_logp(self._last_logits([ids[i] for i in rows]))
            said[rows] = logp[:, self.answers].softmax(-1)[:, 1].cpu()
        return said.tolist()

    def check_room(self, questions: Sequence[Question]) -> None:
        """Raises UserError where the model has not the positions."""
        for asked in questions:
            self._ids(asked)

    def _ids(self, asked: Question) -> list[int]:
        question = self.template.format(
            principle=asked.principle.text,
            prompt=asked.prompt,
            first=asked.first.text,
            second=asked.second.text,
        )
        ids = [*self.tokenizer.encode_prompt(question), *self.prefix]
        room = getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and len(ids) > room:
            raise UserError(
                f"the judge's question about {asked.prompt[:60]!r} has {len(ids)} tokens, its "
                f"model room for {room}"
            )
        return ids

    def _last_logits(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """[n, V] after the last token of each."""
        texts = completions_of(
            [row[:-1] for row in ids], [row[-1:] for row in ids], pad=self.tokenizer.pad
        )
        device = next(self.model.parameters()).device
        logits: torch.Tensor = read(self.model, texts.to(device), logits_to_keep=1).logits[:, -1]
        return logits
