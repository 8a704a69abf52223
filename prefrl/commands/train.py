"""`prefrl train TASK`: learn a task, or go on with a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.config import TrainConfig, from_dict, read_toml, to_dict
from prefrl.errors import UserError, plain_toml
from prefrl.loop.rundir import RunDir

NAMES = [field.name for field in dataclasses.fields(TrainConfig)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainArgs(TrainConfig):
    """Learn a task from comparisons of clips, the score hidden.

    Defaults are those of the task's recipe: `prefrl train TASK --help` shows them.
    """

    task: Positional[str] = ""
    """The task to learn; `prefrl tasks` lists them."""
    out: Path | None = None
    """Run directory; the same command with the same one resumes. Default: runs/TASK-TIME."""
    resume: bool = False
    """Go on with the run in --out, which must exist; TASK and settings may then be left out, and
    --threads and --video be others."""
    config: Path | None = None
    """TOML file of settings, laid over the recipe, whose values stand where the file has none;
    options on the command line win."""


def main(args: list[str], *, prog: str) -> None:
    """Read the options twice: first for the task, then with its recipe as the defaults."""
    helpless = [arg for arg in args if arg not in ("-h", "--help")]
    first = parse(TrainArgs, helpless, prog=prog, default=TrainArgs())
    if not first.task and helpless != args:
        parse(TrainArgs, args, prog=prog, default=TrainArgs())
    given = parse(TrainArgs, args, prog=prog, default=_defaults(first))
    config = TrainConfig(**{name: getattr(given, name) for name in NAMES})

    from prefrl.run import default_directory, run

    run(config, out=given.out or default_directory(config.task))


def _defaults(args: TrainArgs) -> TrainArgs:
    """The run's own settings, or those of the recipe with --config laid over them."""
    from prefrl.frozen import frozen_defaults
    from prefrl.recipes import recipe_for

    if args.resume:
        existing = _existing(args.out)
        if not args.task:
            config = read_toml(existing.config)
            changes = _read_changes(args.config, task=config.task)
            return _as_args(_laid_over(config, changes, args.config))
    if not args.task:
        raise UserError("no task: wanted `prefrl train TASK`; `prefrl tasks` lists them all")
    recipe = recipe_for(args.task)
    changes = _read_changes(args.config, task=recipe.task)
    model = changes.get("reward_model") if args.reward_model is None else args.reward_model
    recipe = frozen_defaults(recipe, model, out=args.out)
    return _as_args(_laid_over(recipe, changes, args.config))


def _laid_over(config: TrainConfig, changes: dict[str, Any], source: Path | None) -> TrainConfig:
    """`config` with `changes`, which `source` holds."""
    from prefrl.run import merged

    try:
        return from_dict(TrainConfig, merged(to_dict(config), changes))
    except UserError as error:
        raise UserError(f"{source}: {error}" if changes else str(error)) from error


def _existing(out: Path | None) -> RunDir:
    if out is None:
        raise UserError("--resume goes on with a run: name its directory with --out DIR")
    if not (out / "config.toml").is_file():
        raise UserError(
            f"--resume: {out} is not a run directory (no config.toml); "
            "leave out --resume to start a run there"
        )
    return RunDir.existing(out)


def _read_changes(path: Path | None, *, task: str) -> dict[str, Any]:
    """The settings in a TOML file; one of another task is refused."""
    if path is None:
        return {}
    changes = plain_toml(path)
    if changes.get("task", task) != task:
        raise UserError(f"--config {path} is for {changes['task']!r}, not {task!r}")
    return changes


def _as_args(config: TrainConfig) -> TrainArgs:
    return TrainArgs(**{name: getattr(config, name) for name in NAMES})
