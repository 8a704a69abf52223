"""Training on a reward model that is there already: whose, what it settles, and what must fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from prefrl.config import EnvConfig, TrainConfig, read_toml
from prefrl.errors import UserError
from prefrl.loop.checkpoint import newest_checkpoint
from prefrl.loop.offline import SETTINGS, read_fit
from prefrl.loop.rundir import RunDir
from prefrl.rewards import RewardModel, SavedModel, Spaces, find_model
from prefrl.rewards.model import SAVED_SETTINGS


def frozen_defaults(
    config: TrainConfig, model: str | Path | None, *, out: Path | None
) -> TrainConfig:
    """`config` with what a reward model settles: no labels, its shape, its actions.

    Args:
        model: its directory. None, or "none" as in TOML: there is none.
        out: run directory; a run that is there says what its model settled when it began, for
            that may have changed since, or be gone.

    Raises:
        UserError: no whole reward model there, or one of another task.
    """
    if model in (None, "none"):
        return config
    if not str(model):
        raise UserError("reward_model: got '', wanted the directory of a run or of a fit")
    path = Path(str(model))
    begun = _begun(out, path)
    if begun is not None:
        sha256, env = begun.reward_model_sha256, begun.env
        settings = {name: getattr(begun.model, name) for name in SAVED_SETTINGS}
    else:
        saved, source = find_model(path), _source(path)
        if source is not None and source[0] != config.task:
            raise UserError(
                f"reward_model: the one in {path} is of {source[0]!r}, not {config.task!r}: "
                f"give `prefrl train {source[0]}`, or a model of {config.task}"
            )
        sha256, env = saved.sha256, config.env
        if source is not None:  # its buttons; how long episodes are is no matter of the model's
            env = dataclasses.replace(source[1], horizon=config.env.horizon)
        settings = saved.settings
    return dataclasses.replace(
        config,
        labels=0,
        reward_model=str(path),
        reward_model_sha256=sha256,
        env=env,
        model=dataclasses.replace(config.model, **settings),
    )


def named_as_begun(config: TrainConfig, out: Path) -> TrainConfig:
    """`config`, its reward model's directory written as the run in `out` has it: `./a` is `a`."""
    if config.reward_model is None:
        return config
    begun = _begun(out, Path(config.reward_model))
    return config if begun is None else dataclasses.replace(config, reward_model=begun.reward_model)


def frozen_model(
    config: TrainConfig, out: RunDir, *, spaces: Spaces, device: torch.device
) -> RewardModel | None:
    """The model `config` names, or None where it names none; a resumed run holds its own copy.

    Args:
        spaces: what the environment gives.

    Raises:
        UserError: it is another one than at the start, was never fitted, or does not fit.
    """
    if config.reward_model is None:
        return None
    _check_asks_nobody(config)
    own = newest_checkpoint(out.checkpoints)
    saved = find_model(own or Path(config.reward_model))
    if config.reward_model_sha256 not in (None, saved.sha256):
        raise UserError(
            f"reward_model: got one with the hash {saved.sha256[:12]} in {saved.path}, wanted "
            f"{str(config.reward_model_sha256)[:12]}: has its run gone on since? Keep a copy"
        )
    _check_fits(saved, config, spaces)
    model = RewardModel.load(saved.path, device=str(device))
    if not model.fitted:
        raise UserError(f"reward_model: the one in {saved.path} was never fitted to any answer")
    return model


def _begun(out: Path | None, model: Path) -> TrainConfig | None:
    """Settings of the run in `out`, where there is one that trains on this model."""
    if out is None or not RunDir(path=out).config.is_file():
        return None
    config = read_toml(RunDir(path=out).config)
    named = config.reward_model
    same = named is not None and Path(named).resolve() == model.resolve()
    return config if same else None


def _source(path: Path) -> tuple[str, EnvConfig] | None:
    """Task and options that a model was fitted for, where its directory says so."""
    if (path / SETTINGS).is_file():
        fit = read_fit(path)
        return fit.task, fit.env
    run = RunDir(path=path)
    if run.config.is_file():
        config = read_toml(run.config)
        return config.task, config.env
    return None


def _check_asks_nobody(config: TrainConfig) -> None:
    """A reward model that stays as it is leaves nothing to ask."""
    for name, wanted in (("labels", 0), ("reward", "learned")):
        got = getattr(config, name)
        if got != wanted:
            raise UserError(f"{name}: got {got!r}, with a frozen reward_model; wanted {wanted!r}")
    if config.rater == "human":
        raise UserError("rater: got 'human', but with a frozen reward_model nobody is asked")


def _check_fits(saved: SavedModel, config: TrainConfig, spaces: Spaces) -> None:
    for field in dataclasses.fields(Spaces):
        wanted, got = getattr(saved.spaces, field.name), getattr(spaces, field.name)
        if wanted != got:
            raise UserError(
                f"reward_model: the one in {saved.path} reads {field.name} {wanted}, "
                f"but {config.task} gives {got}"
            )
    for name, wanted in saved.settings.items():
        got = getattr(config.model, name)
        if got != wanted:
            raise UserError(
                f"model.{name}: got {got}, but the reward model in {saved.path} has {wanted}: "
                "leave it out"
            )
