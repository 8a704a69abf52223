"""Fits a reward model to stored answers of every kind, without environment or policy.

The members, their bootstraps and their hold-outs are those of the loop (Christiano et al. 2017,
section 2.2.3). The fit goes in pieces; after each, figures are logged and a checkpoint is
written, so it can be stopped and goes on, to the same weights as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from prefrl.config import EnvConfig, read_settings
from prefrl.errors import UserError, nearest
from prefrl.feedback import FeedbackStore, Label, Segment
from prefrl.loop.checkpoint import (
    below,
    load_optimiser,
    newest_checkpoint,
    optimiser_tensors,
    prefixed,
    write_checkpoint,
)
from prefrl.loop.metrics import MetricsLog, ProgressLine
from prefrl.loop.rundir import RunDir
from prefrl.loop.train import Stop
from prefrl.rewards import (
    LabelBank,
    RewardConfig,
    RewardFitter,
    RewardModel,
    Spaces,
    check_stride,
    held_out_returns,
)

SETTINGS = "fit.toml"
PIECES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """One fit; kept in `fit.toml`."""

    run: str
    """Run directory whose answers are fitted."""
    task: str
    """What they are about."""
    answers: int
    """The newest answer that counts, by its `seq`."""
    labels: int
    """How many of them are fitted on: fewer, once somebody has been forgotten."""
    updates: int
    """Gradient steps."""
    seed: int
    """Draws weights and batches."""
    without: tuple[str, ...]
    """Raters whose answers are left out."""
    env: EnvConfig
    """The run's: what the actions mean."""
    model: RewardConfig

    def __post_init__(self) -> None:
        if self.updates < 1:
            raise UserError(f"updates: got {self.updates}, wanted 1 or more")
        if self.seed < 0:
            raise UserError(f"seed: got {self.seed}, wanted 0 or more")


class OfflineFit:
    """A model, the answers it is fitted on, and how far the fit has come.

    Args:
        labels: trainable, in order of arrival, of `store`.
        dtype: of the arithmetic on pixels.

    Raises:
        UserError: answers that the model cannot read, or with its settings not fit on.
    """

    def __init__(
        self,
        config: FitConfig,
        *,
        spaces: Spaces,
        labels: Sequence[Label],
        store: FeedbackStore,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.config = config
        self.updates = 0
        seeds = np.random.SeedSequence([config.seed, 2]).generate_state(2, np.uint64)
        weights = torch.Generator()
        weights.manual_seed(int(seeds[0] >> 1))
        self.generator = torch.Generator(device=device)
        self.generator.manual_seed(int(seeds[1] >> 1))
        self.model = RewardModel.build(
            spaces, config.model, dtype=dtype, device=device, generator=weights
        )
        self.bank = LabelBank(members=config.model.members, keep=len(labels), device=device)
        self.true_returns = fill(self.bank, store, labels, spaces)
        check_stride(config.model, self.bank.segment_steps)
        self.fitter = RewardFitter(self.model, self.bank, config.model, generator=self.generator)

    def go_on(self, directory: RunDir, stop: Stop) -> bool:
        """Fit until all updates are made, or `stop` is asked for; returns whether it is done.

        Args:
            directory: from `RunDir.prepare`, with these settings in `fit.toml`.
        """
        self._resume(directory)
        total = self.config.updates
        metrics = MetricsLog(directory, step=self.updates)
        progress = ProgressLine(total, step=self.updates, unit="updates")
        try:
            while self.updates < total and not stop.asked:
                piece = min(math.ceil(total / PIECES), total - self.updates)
                figures = self.fitter.fit(piece)
                self.updates += piece
                figures |= self.figures()
                metrics.write(self.updates, figures)
                progress.update(self.updates, figures)
                write_checkpoint(directory.checkpoints, self.updates, self._write)
        finally:
            progress.close()
            metrics.close()
        return self.updates >= total

    def figures(self) -> dict[str, float]:
        """Of all labels, each judged by members that never saw it."""
        figures = self.fitter.holdout(len(self.bank))
        learned, true = self.held_out_segments()
        if len(true) > 1 and true.std() > 0 and learned.std() > 0:
            figures["reward/holdout_correlation_with_true"] = float(
                np.corrcoef(learned, true)[0, 1]
            )
        return figures

    def held_out_segments(self) -> tuple[np.ndarray, np.ndarray]:
        """Learned and true returns [S] of segments, by members that saw no label about them."""
        ids = self.bank.segment_ids
        with torch.no_grad():
            learned = held_out_returns(self.model, self.bank, ids).cpu().numpy()
        true = np.array([self.true_returns[i] for i in ids])
        known = np.isfinite(learned)
        return learned[known], true[known]

    def _write(self, path: Path) -> None:
        self.model.save(path)
        tensors = prefixed("adam.", optimiser_tensors(self.fitter.optimiser.state_dict()))
        tensors |= prefixed("fitter.", self.fitter.state())
        tensors |= {"rng": self.generator.get_state(), "updates": torch.tensor(self.updates)}
        save_file(
            {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()},
            path / "fitter.safetensors",
        )

    def _resume(self, directory: RunDir) -> None:
        """Go back to the newest whole checkpoint, if there is any."""
        path = newest_checkpoint(directory.checkpoints)
        if path is None:
            return
        self.model.restore(load_file(path / "reward_model.safetensors"))
        tensors = load_file(path / "fitter.safetensors")
        load_optimiser(self.fitter.optimiser, below("adam.", tensors))
        self.fitter.restore(below("fitter.", tensors))
        self.generator.set_state(tensors["rng"])
        self.updates = int(tensors["updates"])


def read_fit(directory: Path) -> FitConfig:
    """The settings of the fit in `directory`.

    Raises:
        UserError: they are not readable.
    """
    return read_settings(directory / SETTINGS, FitConfig)


def chosen_labels(
    store: FeedbackStore, *, answers: int | None, without: Sequence[str]
) -> tuple[list[Label], int]:
    """The trainable answers of a store, and the `seq` up to which they were read.

    What a person who was forgotten had said is not among them, however early the `seq`.

    Raises:
        UserError: there are none, or nobody is called like one of `without`.
    """
    changes = store.changes(0, as_of=answers)
    forgotten = {act.rater for act in store.acts() if act.kind == "forget"}  # their new names
    found = [x for x in changes.labels if x.trainable and x.rater not in forgotten]
    raters = {label.rater for label in found}
    for name in without:
        if name not in raters:
            hint = nearest(name, raters) or f"answers are by {', '.join(sorted(raters))}"
            raise UserError(f"without: got {name!r}, who has answered nothing here; {hint}")
    kept = [label for label in found if label.rater not in without]
    newest = store.changes(0).seq if not kept else changes.seq
    if changes.seq < newest:
        raise UserError(
            f"answers: got {answers}, and none of the first so many is one to fit on; there are "
            f"{newest}"
        )
    if found and not kept:
        raise UserError(f"without: got {', '.join(without)}, by whom all {len(found)} answers are")
    if not kept:
        raise UserError(
            f"{store.directory} holds no answers to fit on: wanted comparisons, rankings, ratings "
            "or edits; `prefrl rate` gathers them"
        )
    return kept, changes.seq  # what is answered later, even below `answers`, is not among them


def fill(
    bank: LabelBank, store: FeedbackStore, labels: Sequence[Label], spaces: Spaces
) -> dict[str, float]:
    """Put labels and their segments into `bank`; returns each segment's true return.

    Raises:
        UserError: segments that the model cannot read, or of several lengths.
    """
    true_returns: dict[str, float] = {}
    lengths: set[int] = set()
    for label in labels:
        segments = [store.segment(i) for i in label.segments]
        for segment in segments:
            _check_readable(segment, spaces)
            lengths.add(len(segment))
            true_returns[segment.id] = float(segment.true_reward.sum())
        bank.add(label, segments)
        if len(lengths) > 1:
            raise UserError(
                f"{store.directory}: got segments of {' and '.join(map(str, sorted(lengths)))} "
                "steps, wanted one length; fit the answers about each in a store of its own"
            )
    return true_returns


def _check_readable(segment: Segment, spaces: Spaces) -> None:
    got = segment.observations.shape[1:]
    if got != spaces.observation:
        raise UserError(
            f"segment {segment.id[:12]}: got observations of shape {got}, "
            f"wanted {spaces.observation}, as {segment.provenance.task} gives now"
        )
