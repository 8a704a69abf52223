"""Reward models on disk: which there are, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from prefrl.errors import UserError

log = logging.getLogger(__name__)

ABOUT, WEIGHTS = "reward_model.json", "reward_model.safetensors"
BEFORE_WRITTEN_DOWN = {
    "far_inputs": "cut", "error": 0.1, "clip": None, "firm_threshold": (0.0, 0.0)
}  # fmt: skip
"""Settings that older files lack, as they were then."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spaces:
    """The shapes a reward network is built for; saved beside its weights."""

    kind: Literal["pixels", "states"]
    observation: tuple[int, ...]
    """*obs: [H, W, C] for pixels, [d] for states."""
    actions: int
    """Number of discrete actions, or entries of a continuous one."""
    discrete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """What is known of a reward model on disk before its weights are read."""

    path: Path
    """The directory that holds its two files."""
    spaces: Spaces
    settings: dict[str, Any]
    """Those of `RewardConfig` that scoring needs."""
    dtype: str
    sha256: str
    """Of the weights."""


def find_model(path: Path) -> SavedModel:
    """The reward model in `path` itself, or the newest whole one below a run directory.

    Raises:
        UserError: none is there, or none that is whole.
    """
    candidates = saved_in(path)
    for candidate in candidates:
        damage = _damage_in(candidate)
        if damage is None:
            return _read_about(candidate)
        log.warning("the reward model in %s is damaged (%s): passed over", candidate, damage)
    if candidates:
        raise UserError(
            f"every reward model in {path} is damaged: got {len(candidates)}, wanted one that "
            "matches its hash; fit a new one, the answers in labels.db are safe"
        )
    raise UserError(
        f"no reward model in {path}: wanted {ABOUT} there or in its checkpoints/; "
        "has the run saved a checkpoint yet?"
    )


def saved_in(path: Path) -> list[Path]:
    """Directories with a reward model, whole or not, the newest first."""
    found: list[Path] = sorted(path.glob(f"checkpoints/step-*/{ABOUT}"), reverse=True)
    return [x.parent for x in (path / ABOUT, *found) if x.is_file()]


def _read_about(path: Path) -> SavedModel:
    about = json.loads((path / ABOUT).read_text())
    shapes = about["spaces"]
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in about["settings"].items()}
    settings = {**BEFORE_WRITTEN_DOWN, **settings}
    return SavedModel(
        path=path,
        spaces=Spaces(**{**shapes, "observation": tuple(shapes["observation"])}),
        settings=settings,
        dtype=about["dtype"],
        sha256=about["sha256"],
    )


def _damage_in(path: Path) -> str | None:
    """What is wrong with a saved model, or None."""
    try:
        about = json.loads((path / ABOUT).read_text())
        wanted = about["sha256"]
        complete = {"spaces", "settings", "dtype"} <= set(about) and about["dtype"] in DTYPES
    except (OSError, ValueError, KeyError, TypeError):
        return f"{ABOUT} is unreadable"
    if not complete:
        return f"{ABOUT} is incomplete"
    if not (path / WEIGHTS).is_file():
        return f"{WEIGHTS} is missing"
    return None if sha256(path / WEIGHTS) == wanted else f"{WEIGHTS} has changed"


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
