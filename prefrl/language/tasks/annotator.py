"""Synthetic annotators of text: they read the gold reward, err, and have tastes.

An annotator sees how good a completion is, and what it likes for reasons of its own:

    appeal(y)      = gold(y) / temperature + length_bias * words(y) + tastes of the words in y
    P(b over a)    = (1 - 2 flips) sigmoid(appeal(b) - appeal(a)) + flips

A ranking is a sequence of choices of the best out of what is left (Luce 1959, Plackett 1975),
each of which is drawn uniformly with probability 2 flips: for two completions the same law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback import Ranking, Rating
from prefrl.language.records import Completion, Preference, TextLabel
from prefrl.language.tasks.task import Gold

WORST, MIDDLE, BEST = 1, 5, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """Who answers, and how well."""

    gold: Gold
    name: str = "annotator"
    temperature: float = 1.0
    """A gap in gold of so much is answered 73 : 27; near 0, always for the better one."""
    flips: float = 0.0
    """Share of answers that are turned round, 0 to .5."""
    length_bias: float = 0.0
    """What every word is worth to this annotator, in nats."""
    tastes: Mapping[str, float] = field(default_factory=dict)
    """What single words are worth beyond the gold, in nats: the bias of one rater."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature: got {self.temperature}, wanted more than 0")
        if not 0 <= self.flips <= 0.5:
            raise UserError(f"flips: got {self.flips}, wanted 0 to 0.5")

    def appeal(self, prompt: str, completion: Completion) -> float:
        """How much it likes a completion, in nats."""
        words = completion.text.split()
        worth = self.gold(prompt, completion.text, completion.ended) / self.temperature
        return worth + self.length_bias * len(words) + sum(self.tastes.get(w, 0.0) for w in words)

    def prob(self, prompt: str, first: Completion, second: Completion) -> float:
        """P(second preferred)."""
        gap = self.appeal(prompt, second) - self.appeal(prompt, first)
        return (1 - 2 * self.flips) * sigmoid(gap) + self.flips

    def compare(
        self, prompt: str, first: Completion, second: Completion, rng: np.random.Generator
    ) -> TextLabel:
        """One answer; exact ties are tossed for, as everything else."""
        preferred = float(rng.random() < self.prob(prompt, first, second))
        return self._label(prompt, (first, second), Preference(second=preferred))

    def rank(
        self, prompt: str, completions: Sequence[Completion], rng: np.random.Generator
    ) -> TextLabel:
        """All of them in order, best first."""
        left, order = list(range(len(completions))), []
        appeal = np.array([self.appeal(prompt, c) for c in completions])
        while left:
            weights = np.exp(appeal[left] - appeal[left].max())
            p = (1 - 2 * self.flips) * weights / weights.sum() + 2 * self.flips / len(left)
            order.append(left.pop(int(rng.choice(len(left), p=p / p.sum()))))
        return self._label(prompt, completions, Ranking(order=tuple((k,) for k in order)))

    def rate(self, prompt: str, completion: Completion, rng: np.random.Generator) -> TextLabel:
        """1 to 9, drawn as `prefrl.rewards.likelihood.rating_loss` assumes."""
        noise = rng.logistic()
        value = math.floor(self.appeal(prompt, completion) + noise + MIDDLE + 0.5)
        rating = Rating(value=min(max(value, WORST), BEST))
        return self._label(prompt, (completion,), rating)

    def _label(
        self, prompt: str, completions: Sequence[Completion], verdict: Preference | Ranking | Rating
    ) -> TextLabel:
        return TextLabel(
            prompt=prompt, completions=tuple(completions), verdict=verdict, rater=self.name
        )


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
