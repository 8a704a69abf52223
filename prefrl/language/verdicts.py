"""What verdicts say about scores: one loss for reward models and for direct methods.

A score is the reward model's, or `beta` times the log-ratio of a policy to its reference (Rafailov
et al. 2023): both explain the same answers by the same likelihoods (`prefrl.rewards.likelihood`).
Every label weighs 1, however many completions it is about, and every completion has one score,
however many pairs it is in (Ouyang et al. 2022, section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from prefrl.feedback import Rating
from prefrl.language.records import Preference, TextLabel, ranked_pairs
from prefrl.rewards.likelihood import (
    Choices,
    bradley_terry_loss,
    ranking_choices,
    ranking_loss,
    rating_loss,
    stack_choices,
)

RankingLoss = Literal["pairs", "plackett-luce"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What was said about C completions, in n labels, as tensors.

    A ranking of three (completions 0, 1, 2: best, worst, middle) and a preference:

        pairs   [[0, 2], [0, 1], [2, 1], [3, 4]]
        target  [   0,      0,      0,      1  ]
        weight  [  1/3,    1/3,    1/3,     1  ]
        of      [   0,      0,      0,      1  ]
    """

    pairs: Tensor
    """[m, 2] int64: completions that were compared."""
    target: Tensor
    """[m] probability that the second of the pair is preferred."""
    weight: Tensor
    """[m] those of one label sum to 1."""
    of: Tensor
    """[m] int64: the label that says it."""
    ranked: Tensor
    """[r, K] int64: the completions of each ranking, in the order of its label; 0 pads."""
    choices: Choices
    """[r, M, K] what was chosen among what was left, in each ranking."""
    ranking_of: Tensor
    """[r] int64: the label that says it."""
    rated: Tensor
    """[q] int64: completions that were rated."""
    value: Tensor
    """[q] 1 to 9."""
    rating_of: Tensor
    """[q] int64: the label that says it."""
    labels: int
    """n"""

    def to(self, device: torch.device) -> Verdicts:
        """The same on `device`."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "labels"}
        return replace(self, **{name: value.to(device) for name, value in moved.items()})


def read_verdicts(labels: Sequence[TextLabel]) -> Verdicts:
    """The verdicts of `labels` about their completions, counted through in order."""
    pairs: list[tuple[int, int, float, float, int]] = []
    ranked: list[tuple[list[int], Choices, int]] = []
    rated, start = [], 0
    for i, label in enumerate(labels):
        verdict, K = label.verdict, len(label.completions)
        if isinstance(verdict, Preference):
            pairs.append((start, start + 1, verdict.second, 1.0, i))
        elif isinstance(verdict, Rating):
            rated.append((start, verdict.value, i))
        else:
            ranked.append((list(range(start, start + K)), ranking_choices(verdict.order), i))
            weight = 2 / (K * (K - 1))
            pairs += [
                (start + a, start + b, target, weight, i)
                for a, b, target in ranked_pairs(verdict.order)
            ]
        start += K
    widest = max((len(at) for at, _, _ in ranked), default=1)
    return Verdicts(
        pairs=torch.tensor([p[:2] for p in pairs], dtype=torch.int64).view(-1, 2),
        target=torch.tensor([p[2] for p in pairs]),
        weight=torch.tensor([p[3] for p in pairs]),
        of=torch.tensor([p[4] for p in pairs], dtype=torch.int64),
        ranked=torch.tensor([at + [0] * (widest - len(at)) for at, _, _ in ranked]).view(
            -1, widest
        ),
        choices=stack_choices([choices for _, choices, _ in ranked], places=widest),
        ranking_of=torch.tensor([i for _, _, i in ranked], dtype=torch.int64),
        rated=torch.tensor([at for at, _, _ in rated], dtype=torch.int64),
        value=torch.tensor([float(v) for _, v, _ in rated]),
        rating_of=torch.tensor([i for _, _, i in rated], dtype=torch.int64),
        labels=len(labels),
    )


def verdict_loss(
    scores: Tensor, verdicts: Verdicts, *, rankings: RankingLoss, error: float = 0.0
) -> Tensor:
    """Negative log-likelihood of every label, in nats: [C] -> [n].

    Args:
        scores: [C] of every completion.
        rankings: all pairs of a ranking, their mean; or the choices that made it, their sum.
        error: share of answers assumed to be drawn at random, inside the likelihood.
    """
    first, second = scores[verdicts.pairs[:, 0]], scores[verdicts.pairs[:, 1]]
    target, weight = verdicts.target.to(scores.dtype), verdicts.weight.to(scores.dtype)
    paired = bradley_terry_loss(second - first, target, error=error)
    if rankings == "plackett-luce":
        weight = torch.where(torch.isin(verdicts.of, verdicts.ranking_of), 0.0, weight)
    loss = scores.new_zeros(verdicts.labels).index_add(0, verdicts.of, weight * paired)
    if rankings == "plackett-luce" and len(verdicts.ranked):
        ranked = ranking_loss(scores[verdicts.ranked], verdicts.choices, error=error)
        loss = loss.index_add(0, verdicts.ranking_of, ranked)
    rated = rating_loss(scores[verdicts.rated], verdicts.value, error=error)
    return loss.index_add(0, verdicts.rating_of, rated)


def pair_accuracy(scores: Tensor, verdicts: Verdicts) -> Tensor:
    """[n] share of each label's decided pairs whose order is right; ties take no part.

    A pair of equal scores is half right. A label without a decided pair counts as half right too,
    so that a mean over labels says how much better than guessing the scores are.
    """
    difference = scores[verdicts.pairs[:, 1]] - scores[verdicts.pairs[:, 0]]
    right = ((difference > 0) == (verdicts.target > 0.5)).to(scores.dtype)
    right = torch.where(difference == 0, 0.5, right)
    decided = (verdicts.target != 0.5).to(scores.dtype)
    zeros = scores.new_zeros(verdicts.labels)
    hits = zeros.index_add(0, verdicts.of, right * decided)
    counts = zeros.index_add(0, verdicts.of, decided)
    return torch.where(counts > 0, hits / counts.clamp_min(1), 0.5)
