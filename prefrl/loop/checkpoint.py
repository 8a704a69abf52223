"""Checkpoints that are whole or absent: tensors and JSON, hashed, never pickled."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefrl.errors import UserError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
KEPT = 2
REPLACED = ".tmp-old-"


def write_checkpoint(root: Path, step: int, fill: Callable[[Path], None]) -> Path:
    """Write `root/step-...` atomically and keep the newest two.

    `fill` writes files into a temporary directory; those are synced, hashed into a manifest,
    and the directory is renamed into place, so that a kill or a power loss at any point leaves
    either the old state or the new one.
    """
    root.mkdir(parents=True, exist_ok=True)
    for old in _replaced(root):
        old.rename(root / f"step-{old.name.removeprefix(REPLACED)}")
    for stale in _directories(root, ".tmp-*"):
        shutil.rmtree(stale)
    temporary = root / f".tmp-{step:012d}"
    temporary.mkdir()
    fill(temporary)
    hashes = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
    (temporary / MANIFEST).write_text(json.dumps({"step": step, "sha256": hashes}, indent=2))
    for path in temporary.iterdir():
        _sync(path)
    _sync(temporary)
    final = root / f"step-{step:012d}"
    if final.exists():  # an interrupted run saves the same step again when it resumes
        final.rename(root / f"{REPLACED}{step:012d}")  # at once, where rmtree could be cut short
    temporary.rename(final)
    _sync(root)
    _forget(root, newest=final)
    return final


def _forget(root: Path, *, newest: Path) -> None:
    """Keep `newest` and those before it; later ones were damaged, or it would not follow."""
    found = _directories(root, "step-*")
    kept = [path for path in found if path <= newest][-KEPT:]
    for path in [*found, *_directories(root, ".tmp-*")]:
        if path not in kept:
            shutil.rmtree(path)


def newest_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint whose files are whole; damaged ones are named and passed over.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    found = [*_directories(root, "step-*"), *_replaced(root)]
    found.sort(key=lambda path: path.name.rpartition("-")[2], reverse=True)
    for path in found:
        damage = damage_in(path)
        if damage is None:
            return path
        instead = ": using the previous one" if path is not found[-1] else ""
        log.warning("checkpoint %s is damaged (%s)%s", path.name, damage, instead)
    if found:
        raise UserError(
            f"every checkpoint in {root} is damaged: got {len(found)}, wanted one that matches its "
            "manifest; move that directory away and give the same command: it begins at step 0, "
            "with the answers that are in labels.db"
        )
    return None


def _replaced(root: Path) -> list[Path]:
    """What a kill between the two renames of a step that was saved again has left.

    Readers leave it alone, for whoever writes may be between the two.
    """
    old = _directories(root, f"{REPLACED}*")
    return [x for x in old if not (root / f"step-{x.name.removeprefix(REPLACED)}").exists()]


def _directories(root: Path, pattern: str) -> list[Path]:
    """In order of their names; files among them are not ours."""
    return sorted(path for path in root.glob(pattern) if path.is_dir())


def damage_in(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        hashes = list(manifest["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or unreadable"
    if not hashes:
        return f"{MANIFEST} names no files"
    for name, wanted in hashes:
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if _sha256(file) != wanted:
            return f"{name} has changed"
    return None


def optimiser_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of `torch.optim.Optimizer.state_dict()`, flat: `index.name`."""
    return {
        f"{index}.{name}": value
        for index, entry in state["state"].items()
        for name, value in entry.items()
    }


def load_optimiser(
    optimiser: Any,
    tensors: dict[str, Tensor],
    *,
    held: Callable[[Tensor, Tensor], Tensor] = lambda value, parameter: value,
) -> None:
    """Put back what `optimiser_tensors` took; groups keep the settings of the config.

    Moments get the memory layout of their parameter: fused Adam pairs the two address by address,
    and files hold no layout such as channels last.

    Args:
        held: what of a moment goes with its parameter, where this process has a part of it only.

    Raises:
        UserError: these are the moments of other parameters.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        known = int(index) < len(parameters)
        if not known or (value.ndim and value.shape != parameters[int(index)].shape):
            raise UserError(
                f"the checkpoint's optimiser holds {name} of shape {tuple(value.shape)} for weight "
                f"{index}, which this run has not: its update was compiled where it began and is "
                "not here, or the other way round; go on where there is a C++ compiler, or none, "
                "as there"
            )
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    for parameter, entry in optimiser.state.items():
        for name, value in entry.items():
            if value.shape == parameter.shape:
                room = torch.empty_like(parameter, dtype=value.dtype)
                entry[name] = room.copy_(held(value, parameter))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """One file for the tensors of several owners: `prefix` tells whose they are."""
    return {prefix + k: v for k, v in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one owner, from `prefixed`."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
