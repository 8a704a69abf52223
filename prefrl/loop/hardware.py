"""What a run computes on, and whether compiling pays there."""

from __future__ import annotations

import os
import shutil

import torch

from prefrl.config import TrainConfig
from prefrl.errors import UserError

STEPS_WORTH_COMPILING = 200_000  # at 200 us a minibatch of eight steps, four epochs and more


def compiles(config: TrainConfig, *, pixels: bool, device: torch.device) -> bool:
    """Is the policy update worth compiling?

    Convolutions are not: they are bound by arithmetic, not by the launching of kernels.
    """
    if config.compile != "auto":
        return config.compile == "on"
    return not pixels and config.steps >= STEPS_WORTH_COMPILING and has_compiler(device)


def has_compiler(device: torch.device) -> bool:
    """What torch.compile needs: a C++ compiler on a CPU, and on CUDA Triton."""
    if device.type == "cuda":
        return bool(torch.utils._triton.has_triton())
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        UserError: another kind of device, or one that is not here.
    """
    kind = name.split(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: got {name!r}, wanted auto, cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("device: got 'cuda', but torch finds no CUDA device here; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def set_threads(count: int) -> None:
    """Threads of torch on the CPU; 0: all cores."""
    torch.set_num_threads(count or os.cpu_count() or 1)
