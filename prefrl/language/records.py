"""Texts and what was said of them: the records that every stage of a language model reads.

The same four forms of feedback as for clips (`prefrl.feedback`), about completions of one prompt:
a comparison is a `Preference`, an edit is the preference of the edited text over the original,
rankings and ratings are those of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from prefrl.feedback import Ranking, Rating


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What was written after a prompt."""

    text: str
    """Without the end token."""
    ended: bool = True
    """By itself; False: it was cut off at the cap, and has no end token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A completion to be imitated."""

    prompt: str
    completion: str
    ended: bool = True
    """False: it was cut off, and no end token follows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Of the first or the second of two completions.

    >>> Preference(second=0.5)  # equally good
    Preference(second=0.5)
    """

    second: float
    """Probability that the second is preferred: 0, 1, 0.5 for a tie, or a judge's opinion."""

    def __post_init__(self) -> None:
        if not 0 <= self.second <= 1:
            raise ValueError(f"preference.second: got {self.second!r}, wanted 0 to 1")


Verdict = Preference | Ranking | Rating


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLabel:
    """One answer about completions of one prompt."""

    prompt: str
    completions: tuple[Completion, ...]
    """[K] two for a preference, one for a rating, as many as it ranks for a ranking."""
    verdict: Verdict
    rater: str = ""

    def __post_init__(self) -> None:
        wanted = places(self.verdict)
        if len(self.completions) != wanted:
            raise ValueError(f"label: got {len(self.completions)} completions, wanted {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """One completion that somebody found good, or bad (KTO: Ethayarajh et al. 2024)."""

    prompt: str
    completion: Completion
    good: bool


def places(verdict: Verdict) -> int:
    """K, how many completions a verdict is about."""
    if isinstance(verdict, Ranking):
        return verdict.places
    return 2 if isinstance(verdict, Preference) else 1


def pair(prompt: str, chosen: str, rejected: str, *, rater: str = "") -> TextLabel:
    """`chosen` over `rejected`, both with their end."""
    both = (Completion(text=chosen), Completion(text=rejected))
    return TextLabel(prompt=prompt, completions=both, verdict=Preference(second=0.0), rater=rater)


def split_ranking(label: TextLabel) -> list[TextLabel]:
    """The K-choose-2 preferences that a ranking implies; others stay as they are.

    For what can only read pairs. Ties become preferences of one half.
    """
    if not isinstance(label.verdict, Ranking):
        return [label]
    return [
        TextLabel(
            prompt=label.prompt,
            completions=(label.completions[better], label.completions[worse]),
            verdict=Preference(second=second),
            rater=label.rater,
        )
        for better, worse, second in ranked_pairs(label.verdict.order)
    ]


def ranked_pairs(order: Sequence[Sequence[int]]) -> list[tuple[int, int, float]]:
    """The pairs of a ranking: (better, worse, 0), or (one, other, .5) for a tie.

    >>> ranked_pairs([(2,), (0, 1)])
    [(2, 0, 0.0), (2, 1, 0.0), (0, 1, 0.5)]
    """
    level = {k: i for i, group in enumerate(order) for k in group}
    return [(a, b, 0.5 if level[a] == level[b] else 0.0) for a, b in combinations(level, 2)]
