"""`prefrl.fit`: a reward model from the answers a run has gathered, without opening a window."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envs import make_vec
from prefrl.agents.policy import compute_dtype
from prefrl.config import TrainConfig, from_dict, read_toml, refuse_unbounded, to_dict
from prefrl.errors import UserError
from prefrl.feedback import FeedbackStore, Label
from prefrl.loop.fit_picture import write_fit_picture
from prefrl.loop.hardware import choose_device, set_threads
from prefrl.loop.offline import (
    SETTINGS,
    FitConfig,
    OfflineFit,
    chosen_labels,
    read_fit,
)
from prefrl.loop.rundir import RunDir, RunLock
from prefrl.loop.state import spaces_of
from prefrl.loop.train import Stop
from prefrl.rewards import RewardConfig, RewardModel, Spaces
from prefrl.run import keep_freed_memory, merged

log = logging.getLogger(__name__)


def fit(
    run: str | Path,
    *,
    out: str | Path | None = None,
    updates: int | None = None,
    answers: int | None = None,
    without: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    threads: int = 0,
    model: dict[str, Any] | RewardConfig | None = None,
) -> RewardModel:
    """Fit a new reward model to the stored answers of a run: pairs, rankings, ratings, edits.

    Args:
        run: its directory; it may still be training.
        out: where the model goes, and where the same call goes on after Ctrl-C. None: beside
            the run, `RUN-fit-<answers>`.
        updates: gradient steps. None: `model.pretrain_epochs` passes over the answers.
        answers: only those up to this `seq`; None: all there are.
        without: raters whose answers are left out.
        model: what differs from the run's own settings of the reward model.

    Returns:
        The model; `RewardModel.load(out)` reads it again.

    Raises:
        UserError: no run, no answers, or `out` holds something else; nothing was created.
        KeyboardInterrupt, SystemExit: a signal stopped it; what is fitted is saved.
    """
    asked = {"updates": updates, "answers": answers, "seed": seed, "threads": threads}
    from_dict(_Asked, {**asked, "without": without})
    if not isinstance(model, dict | RewardConfig | None):
        raise UserError(f"model: got {model!r}, wanted a dictionary of settings or a RewardConfig")
    source = RunDir.existing(Path(run))
    config = read_toml(source.config)
    chosen = from_dict(
        RewardConfig, merged(to_dict(config.model), _changes(model)), prefix="model."
    )
    if answers is None and out is not None and (Path(out) / SETTINGS).is_file():
        answers = read_fit(Path(out)).answers  # goes on with what it began with
    with FeedbackStore.open(source.path) as store:
        labels, seq = chosen_labels(store, answers=answers, without=without)
        named = source.path.name not in ("", "..")
        beside = source.path if named else source.path.resolve()
        where = Path(out) if out else Path(f"{beside}-fit-{seq}")
        settings = FitConfig(
            run=str(source.path),
            task=config.task,
            answers=seq,
            labels=len(labels),
            updates=passes(chosen, labels) if updates is None else updates,
            seed=seed,
            without=tuple(without),
            env=config.env,
            model=replace(chosen, keep=max(chosen.keep, len(labels))),
        )
        return _fit(settings, config, where, labels, store, device=device, threads=threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What `fit` is given, for `from_dict` to look at."""

    updates: int | None
    answers: int | None
    seed: int
    threads: int
    without: tuple[str, ...]

    def __post_init__(self) -> None:
        refuse_unbounded(self)


def passes(model: RewardConfig, labels: Sequence[Label]) -> int:
    """Gradient steps in `pretrain_epochs` passes over the labels."""
    return math.ceil(model.pretrain_epochs * len(labels) / model.batch)


def _fit(
    settings: FitConfig,
    config: TrainConfig,
    out: Path,
    labels: Sequence[Label],
    store: FeedbackStore,
    *,
    device: str,
    threads: int,
) -> RewardModel:
    keep_freed_memory()
    set_threads(threads)
    where = choose_device(device)
    parts = OfflineFit(
        settings,
        spaces=_spaces(config),
        labels=labels,
        store=store,
        dtype=compute_dtype(config.policy.precision, where),
        device=where,
    )
    directory = RunDir.prepare(out, settings, settings=SETTINGS)
    log.info("%s: %s answers of %s, in %s", config.task, f"{len(labels):,}", settings.run, out)
    with RunLock(directory), Stop().on_signals() as stop:
        done = parts.go_on(directory, stop)
        log.info("%s", _words(parts.figures()))
        log.info("picture: %s", write_fit_picture(parts, directory))
        if done:
            stop.complete()
        else:
            log.info("stopped: the same command with --out %s goes on from here", out)
    return parts.model


def _spaces(config: TrainConfig) -> Spaces:
    venv = make_vec(config.task, num_envs=1, seed=0, **config.env.options())
    try:
        return spaces_of(venv)
    finally:
        venv.close()


def _changes(model: dict[str, Any] | RewardConfig | None) -> dict[str, Any]:
    return to_dict(model) if isinstance(model, RewardConfig) else model or {}


def _words(figures: dict[str, float]) -> str:
    """One line.

    >>> _words({"reward/holdout_accuracy": 0.9, "reward/holdout_cross_entropy": 0.25})
    'on what each member never saw: accuracy 90 %, cross-entropy 0.250 nats a label'
    """
    parts = []
    for name, text in (
        ("holdout_accuracy", "accuracy {:.0%}"),
        ("holdout_cross_entropy", "cross-entropy {:.3f} nats a label"),
        ("holdout_rating_correlation", "correlation with ratings {:.2f}"),
        ("holdout_correlation_with_true", "correlation with true return {:.2f}"),
    ):
        if f"reward/{name}" in figures:
            parts.append(text.format(figures[f"reward/{name}"]).replace("%", " %"))
    return f"on what each member never saw: {', '.join(parts) or 'nothing was held out'}"
