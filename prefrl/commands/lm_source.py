"""What a stage begins from: a model, and texts of a task or a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.errors import UserError, refuse_idle

if TYPE_CHECKING:
    from torch import nn

    from prefrl.language.encoded import Limits
    from prefrl.language.tasks import TextTask
    from prefrl.language.tokenizer import Tokenizer
    from prefrl.loop.rundir import RunDir

NEW_MODELS = ("llama", "gpt2")
MODEL = "model"  # the finished model within a run directory
INPUTS = "inputs.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArgs:
    """A new model's size; a checkpoint has its own."""

    width: int = 64
    """Size of the hidden state."""
    layers: int = 2
    heads: int = 4
    positions: int = 128
    """Tokens of prompt and completion together."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "positions"):
            if getattr(self, name) < 1:
                raise UserError(f"new.{name}: got {getattr(self, name)}, wanted 1 or more")
        if self.width % (2 * self.heads):  # rotary positions turn pairs of numbers
            raise UserError(
                f"new.width: got {self.width}, wanted a multiple of {2 * self.heads}, twice "
                "new.heads"
            )


def load_policy(
    path: str, *, device: str, offline: bool, new: ModelArgs | None = None,
    task: TextTask | None = None, seed: int = 0,
) -> tuple[nn.Module, Tokenizer]:  # fmt: skip
    """A checkpoint by path or name, the model of a run directory, or a new small one; on `device`.

    Raises:
        UserError: none was named, or a new one where there is none to be; no such device.
    """
    if not path:
        raise UserError("no model: wanted --model RUN, the run of `prefrl lm sft`, or a checkpoint")
    from prefrl.loop.hardware import choose_device

    where = choose_device(device)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for each file loaded
    from prefrl.language.models import load_model, new_model
    from prefrl.language.tokenizer import load_tokenizer

    if path in NEW_MODELS:
        if new is None or task is None:
            raise UserError(
                f"model: got {path!r}, a new one, which knows nothing; wanted a checkpoint, or the "
                "run directory of `prefrl lm sft`"
            )
        tokenizer = task.tokenizer()
        model = new_model(
            path, tokenizer, width=new.width, layers=new.layers, heads=new.heads,  # type: ignore[arg-type]
            positions=new.positions, seed=seed,
        )  # fmt: skip
        return model.to(where), tokenizer
    if new is not None:
        refuse_idle("new", new, ModelArgs(), beside=f"{path}, which is there already")
    folder = model_in(path)
    tokenizer = load_tokenizer(folder, offline=offline)
    return load_model(folder, tokenizer, offline=offline).to(where), tokenizer


def model_in(path: str) -> str:
    """The model of a run directory; any other path or name as it is.

    Raises:
        UserError: the run has not finished, or this can only be a folder here and there is none:
            said at once, for a hub that cannot be reached is asked again and again.
    """
    inside = Path(path) / MODEL
    if inside.is_dir():
        return str(inside)
    if (Path(path) / "config.toml").is_file():
        raise UserError(f"{path} is a run that has not finished: wanted {inside}; let it go on")
    if _names_a_folder(path) and not Path(path).exists():
        raise UserError(
            f"no folder {path}: wanted a run directory, a checkpoint's folder, or a name on the hub"
        )
    return path


def _names_a_folder(path: str) -> bool:
    """A hub's names are `name` or `owner/name`; a folder of the owner's name comes first."""
    parts = Path(path).parts
    return (
        path.startswith((".", "~", "/")) or path.endswith("/") or len(parts) > 2
        or (len(parts) == 2 and Path(parts[0]).is_dir())
    )  # fmt: skip


def task_or_data(task: str, data: Path | None) -> TextTask | None:
    """The task named; None where there is a file.

    Raises:
        UserError: both, or neither.
    """
    from prefrl.language.tasks import TASKS, find_text_task

    if bool(task) == (data is not None):
        raise UserError(
            f"wanted either --task ({', '.join(TASKS)}) or --data FILE (.jsonl or .parquet)"
        )
    return find_text_task(task) if task else None


def limits_for(limits: Limits, task: TextTask | None, *, written: bool = False) -> Limits:
    """A task knows how long its texts are.

    Of what the model writes here, the rare text that is too long once it is read again is left
    out and counted.

    Args:
        written: are texts of `limits` written here?
    """
    from prefrl.language.encoded import Limits

    if task is None:
        return replace(limits, too_long="drop") if written else limits
    refuse_idle("limits", limits, Limits(), beside=f"the task {task.name}, which has its own")
    return Limits(max_prompt=task.max_prompt, max_completion=task.max_completion, too_long="drop")


def check_positions(model: nn.Module, limits: Limits) -> None:
    """Raises UserError where the model has fewer positions than the texts may want."""
    room = getattr(model.config, "max_position_embeddings", None)
    wanted = limits.max_prompt + limits.max_completion
    if room is not None and wanted > room:
        raise UserError(
            f"texts may have {wanted} tokens, the model has {room} positions: lower "
            "limits.max-prompt or limits.max-completion, or raise new.positions of a new model"
        )


def fingerprint(of: nn.Module | Sequence[object] | None) -> str:
    """SHA-256 of a model's weights, or of texts; of nothing, the empty string."""
    if of is None:
        return ""
    if isinstance(of, Sequence):
        return hashlib.sha256(repr(list(of)).encode()).hexdigest()
    import torch

    found = hashlib.sha256()
    for name, weight in sorted(of.state_dict().items()):
        found.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        found.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


Inputs = Mapping[str, str | int | None]
"""What a run begins with, by name: fingerprints, and how far a store was read."""


def check_inputs(run: RunDir, inputs: Inputs) -> None:
    """A run goes on with the very inputs it began with, or it would end as another run.

    Args:
        inputs: kept in `inputs.json`, each from when it is first known.

    Raises:
        UserError: one has changed since.
    """
    began = read_inputs(run)
    if not began and any(run.checkpoints.glob("*")):
        raise UserError(
            f"{run.path} was begun by an older prefrl, which did not write down with what: go "
            "on with that one, or give another --out to begin anew"
        )
    changed = [name for name in inputs if began.get(name, inputs[name]) != inputs[name]]
    if changed:
        raise UserError(
            f"{run.path} began with other inputs than there are now ({changed[0]}): bring those "
            "back to go on, or give another --out to begin anew"
        )
    if not inputs.keys() <= began.keys():
        temporary = (run.path / INPUTS).with_suffix(".part")
        temporary.write_text(json.dumps({**began, **inputs}, indent=2))
        temporary.replace(run.path / INPUTS)


def read_inputs(run: RunDir) -> dict[str, Any]:
    """What the run began with; nothing where it has not begun."""
    file = run.path / INPUTS
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return found
