"""The labels a reward model is fitted on, as tensors ready for batches."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from prefrl.feedback import Comparison, Edit, Label, Rating, Reply, Segment
from prefrl.feedback.codec import slides
from prefrl.pixels import from_planes
from prefrl.rewards.likelihood import Choices, ranking_choices, stack_choices

# P(Poisson(1) <= k); beyond five copies the chance is below one in a thousand
POISSON_CDF = np.cumsum([np.exp(-1.0) / np.prod(np.arange(1, k + 1)) for k in range(6)])


def bootstrap_counts(query: str, members: int) -> np.ndarray:
    """How often each member sees a label: [E] int64, Poisson(1), fixed by the query's id.

    Drawing |D| labels with replacement from D leaves a share of 1/e out, and that share is
    Christiano et al.'s hold-out of each member (2017, section 2.2.3). Poisson counts are its
    online form (Oza and Russell 2001): a label that a member leaves out stays out for ever,
    through restarts and however many labels follow.
    """
    counts = []
    for member in range(members):
        digest = hashlib.sha256(f"bootstrap:{member}:{query}".encode()).digest()
        uniform = int.from_bytes(digest[:8], "big") / 2**64
        counts.append(int(np.searchsorted(POISSON_CDF, uniform, side="right")))
    return np.array(counts, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps of S segments, flattened for a network."""

    observation: Tensor
    """[S * T, *obs]"""
    action: Tensor
    """[S * T, *act]"""
    shape: tuple[int, int]
    """(S, T)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """Which labels of a mixed batch are what."""

    places: Tensor
    """[n, K] int64: where each label's segments are among those of `steps`; 0 pads."""
    comparisons: Tensor
    """[c] int64: which labels are comparisons."""
    rankings: Tensor
    """[r] int64"""
    choices: Choices
    """[r, M, K] of the rankings."""
    ratings: Tensor
    """[q] int64"""
    values: Tensor
    """[q] int64, 1 to 9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBatch:
    """n labels."""

    steps: Steps
    """Of the labels' segments: all first ones, then all second ones, and so on."""
    target: Tensor
    """[n] 1 second preferred, 0 first, 0.5 a tie; nan where it is no comparison."""
    counts: Tensor
    """[E, n] copies in each member's bootstrap; 0 means held out."""
    forms: Forms | None = None
    """None: all are comparisons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Example:
    segments: tuple[str, ...]
    target: float
    counts: np.ndarray
    choices: Choices | None = None
    value: int | None = None


class LabelBank:
    """The last `keep` trainable labels and their segments, on `device`.

    Stacked frames are kept as the T + C - 1 frames they were made of, a quarter of the memory.
    """

    def __init__(self, *, members: int, keep: int, device: torch.device) -> None:
        self.members, self.keep, self.device = members, keep, device
        self._examples: OrderedDict[int, _Example] = OrderedDict()
        self._segments: dict[str, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def widest(self) -> int:
        """Segments of the label that has most of them."""
        return max(len(example.segments) for example in self._examples.values())

    def add(self, label: Label, segments: Sequence[Segment]) -> None:
        """Take in one label; what says nothing about the reward is not trained on.

        All answers to one query are held out by the same members.

        Args:
            segments: those of `label.segments`, in that order.
        """
        if not label.trainable:
            return
        for segment in segments:
            if segment.id not in self._segments:
                self._segments[segment.id] = self._tensors(segment)
        self._examples[label.seq] = _Example(
            segments=label.segments,
            counts=bootstrap_counts(label.query.id, self.members),
            **_reply(label.reply),
        )
        while len(self._examples) > self.keep:
            self._drop(next(iter(self._examples)))

    def remove(self, label: Label) -> None:
        """Forget a label that was withdrawn, if it is still there."""
        if label.seq in self._examples:
            self._drop(label.seq)

    @property
    def seqs(self) -> list[int]:
        """Of the labels kept, the oldest first. Their ids may change: when a rater is forgotten."""
        return list(self._examples)

    @property
    def segment_steps(self) -> int:
        """T of the segments kept."""
        return len(next(iter(self._segments.values()))[1])

    def batch(self, index: Tensor, *, stride: int = 1, offset: int = 0) -> LabelBatch:
        """The labels `index` [n], counted from the oldest kept.

        Args:
            stride: only the steps offset, offset + stride, ... of each segment.
        """
        chosen = self._chosen(index)
        widest = max(len(x.segments) for x in chosen)
        ids = [x.segments[k] for k in range(widest) for x in chosen if len(x.segments) > k]
        return LabelBatch(
            steps=self.steps(ids, stride=stride, offset=offset),
            target=torch.tensor([x.target for x in chosen], device=self.device),
            counts=self.counts(index),
            forms=_forms(chosen, widest, self.device),
        )

    def counts(self, index: Tensor) -> Tensor:
        """[E, n] copies of the labels `index` [n] in each member's bootstrap."""
        counts = np.stack([x.counts for x in self._chosen(index)], axis=1)
        return torch.from_numpy(counts).to(self.device, torch.float32)

    @property
    def segment_ids(self) -> list[str]:
        """Of the segments kept, in the order in which labels last named them.

        It depends on the labels kept and on nothing before, so that a resumed run has it too.
        """
        newest_first = reversed(self._examples.values())
        return [*dict.fromkeys(i for x in newest_first for i in reversed(x.segments))][::-1]

    def segment_counts(self, ids: Sequence[str]) -> Tensor:
        """[E, S] how many copies of labels about each segment are in each member's bootstrap."""
        totals = {i: np.zeros(self.members) for i in ids}
        for example in self._examples.values():
            for i in set(example.segments) & totals.keys():
                totals[i] += example.counts
        return torch.from_numpy(np.stack(list(totals.values()), axis=1)).to(self.device)

    def recent_segments(self, count: int, *, stride: int = 1) -> Steps:
        """Every `stride`-th step, from number stride // 2 on, of the last labelled segments."""
        return self.steps(self.segment_ids[-count:], stride=stride, offset=stride // 2)

    def steps(self, ids: list[str], *, stride: int = 1, offset: int = 0) -> Steps:
        """The steps offset, offset + stride, ... of the segments `ids` in the bank."""
        observation = torch.stack([self._segments[i][0] for i in ids])
        action = torch.stack([self._segments[i][1] for i in ids])
        T = action.shape[1]
        action = action[:, offset::stride]
        if observation.dtype == torch.uint8:
            observation = restack(observation, T, stride=stride, offset=offset)
        else:
            observation = observation[:, offset::stride]
        S, taken = action.shape[:2]
        return Steps(
            observation=observation.flatten(0, 1), action=action.flatten(0, 1), shape=(S, taken)
        )

    def target_entropy(self) -> float:
        """Mean entropy of the targets, in nats: the floor of the loss without an error term.

        Of comparisons only; the floor of other forms is not known.
        """
        compared = [x.target for x in self._examples.values() if not math.isnan(x.target)]
        if not compared:
            return 0.0
        second = torch.tensor(compared, dtype=torch.float64)
        return torch.special.entr(torch.stack([second, 1 - second])).sum(0).mean().item()

    def _chosen(self, index: Tensor) -> list[_Example]:
        examples = list(self._examples.values())
        return [examples[i] for i in index.tolist()]

    def _tensors(self, segment: Segment) -> tuple[Tensor, Tensor]:
        observation = segment.observations
        if observation.dtype == np.uint8:
            observation = unstack(observation)
        return (
            torch.from_numpy(np.ascontiguousarray(observation)).to(self.device),
            torch.from_numpy(np.ascontiguousarray(segment.actions)).to(self.device),
        )

    def _drop(self, label: int) -> None:
        dropped = self._examples.pop(label)
        used = {i for x in self._examples.values() for i in x.segments}
        for i in set(dropped.segments) - used:
            del self._segments[i]


def _reply(reply: Reply) -> dict[str, Any]:
    """What an example keeps of a trainable reply; an edit prefers the second, edited segment."""
    if isinstance(reply, Comparison):
        return {"target": reply.target}
    if isinstance(reply, Edit):
        return {"target": 1.0}
    if isinstance(reply, Rating):
        return {"target": math.nan, "value": reply.value}
    return {"target": math.nan, "choices": ranking_choices(reply.order)}


def _forms(chosen: Sequence[_Example], widest: int, device: torch.device) -> Forms | None:
    if not any(math.isnan(x.target) for x in chosen):
        return None
    places, start = np.zeros((len(chosen), widest), dtype=np.int64), 0
    for k in range(widest):
        has = [i for i, x in enumerate(chosen) if len(x.segments) > k]
        places[has, k] = start + np.arange(len(has))
        start += len(has)
    rankings = [i for i, x in enumerate(chosen) if x.choices is not None]
    ratings = [i for i, x in enumerate(chosen) if x.value is not None]
    compared = [i for i, x in enumerate(chosen) if not math.isnan(x.target)]
    return Forms(
        places=torch.from_numpy(places).to(device),
        comparisons=torch.tensor(compared, dtype=torch.int64, device=device),
        rankings=torch.tensor(rankings, dtype=torch.int64, device=device),
        choices=stack_choices([c for x in chosen if (c := x.choices)], places=widest).to(device),
        ratings=torch.tensor(ratings, dtype=torch.int64, device=device),
        values=torch.tensor([chosen[i].value for i in ratings], device=device),
    )


def unstack(stacked: np.ndarray) -> np.ndarray:
    """[T, H, W, C] a sliding window over frames -> [T + C - 1, H, W] the frames."""
    assert slides(stacked[:2]), "not a sliding window"  # two steps tell: all of them take 2 ms
    return np.concatenate([np.moveaxis(stacked[0], -1, 0), stacked[1:, ..., -1]])


def restack(frames: Tensor, T: int, *, stride: int = 1, offset: int = 0) -> Tensor:
    """[S, T + C - 1, H, W] frames -> [S, n, H, W, C] at steps offset, offset + stride, ..."""
    C = frames.shape[1] - T + 1
    if frames.device.type != "cpu":  # there OpenCV takes two fifths of the time
        return torch.stack([frames[:, offset + c : T + c : stride] for c in range(C)], dim=-1)
    windows = sliding_window_view(frames.numpy(), C, axis=1, writeable=True)  # [S, T, H, W, C]
    return from_planes(np.moveaxis(windows[:, offset::stride], -1, 2), frames.device)
