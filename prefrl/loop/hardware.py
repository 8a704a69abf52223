"""What a run computes on, and whether compiling pays there."""

from __future__ import annotations

import os
import re
import shutil

import torch

from prefrl.config import TrainConfig
from prefrl.errors import UserError

STEPS_WORTH_COMPILING = 200_000  # at 200 us a minibatch of eight steps, four epochs and more

MOST_THREADS = 4096  # as of the emulators


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
        from torch.utils._triton import has_triton  # which torch does not import by itself

        return bool(has_triton())
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        UserError: another kind of device, or one that is not here.
    """
    if not re.fullmatch(r"auto|cpu|cuda|cuda:(0|[1-9][0-9]*)", name):
        raise UserError(f"device: got {name!r}, wanted auto, cpu, cuda or cuda:N")
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if here else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not here:
        raise UserError(
            f"device: got {name!r}, but torch finds no CUDA device here; use --device cpu"
        )
    if int(name.partition(":")[2] or 0) >= here:
        raise UserError(f"device: got {name!r}, wanted cuda:0 to cuda:{here - 1}")
    return torch.device(name)


def set_threads(count: int) -> None:
    """Threads of torch on the CPU; 0: all cores."""
    if not 0 <= count <= MOST_THREADS:
        raise UserError(f"threads: got {count}, wanted 0 to {MOST_THREADS}")
    torch.set_num_threads(count or _cores())


def _cores() -> int:
    """Those that this process may use: `taskset` and batch systems give some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
