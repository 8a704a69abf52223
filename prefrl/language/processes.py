"""Several processes by `torchrun`, one device each, joined by accelerate."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from prefrl.errors import UserError
from prefrl.language.tokens import Completions
from prefrl.ppo import ALONE, Processes


def join(wanted: torch.device) -> tuple[Processes, torch.device]:
    """This process's place among those that `torchrun` started, and its device.

    Alone where there are no others; then accelerate is not needed.

    Args:
        wanted: the device; with several processes its kind alone counts, and each has its own.

    Raises:
        UserError: one device for several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, wanted
    if wanted.index is not None:
        raise UserError(
            f"device: got {str(wanted)!r} for several processes, wanted auto, cuda or cpu: each "
            "takes a device of its own"
        )
    from accelerate import PartialState

    state = PartialState(cpu=wanted.type == "cpu")
    return Processes(rank=state.process_index, count=state.num_processes), state.device


def shard(module: nn.Module) -> None:
    """Leave each process a part of every weight (FSDP, Zhao et al. 2023, arXiv:2304.11277).

    A layer is put together while it computes, forward and backward, and its gradient comes back
    in parts too, as the mean over processes. All processes must therefore use the module equally
    often. Of transformers' models each block is such a layer, of others the whole. Weights move
    to the devices of the processes layer by layer, so that none has to hold all of them.
    """
    from accelerate import PartialState
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(PartialState().device.type, (torch.distributed.get_world_size(),))
    blocks = {
        name for m in module.modules() for name in getattr(m, "_no_split_modules", None) or ()
    }
    layers = [m for m in module.modules() if type(m).__name__ in blocks]
    for layer in (*layers, module):
        # the outermost one too: else reading without a gradient would leave it whole
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def gather_completions(texts: Completions, processes: Processes, *, pad: int) -> Completions:
    """What all processes have said, by rank, as wide as the widest."""
    P = processes.largest(texts.prompt.shape[1], texts.mask.device)
    T = processes.largest(texts.completion.shape[1], texts.mask.device)
    left, right = (P - texts.prompt.shape[1], 0), (0, T - texts.completion.shape[1])
    return Completions(
        prompt=processes.gather(nn.functional.pad(texts.prompt, left, value=pad)),
        prompt_mask=_gather_mask(nn.functional.pad(texts.prompt_mask, left), processes),
        completion=processes.gather(nn.functional.pad(texts.completion, right, value=pad)),
        mask=_gather_mask(nn.functional.pad(texts.mask, right), processes),
    )


def _gather_mask(mask: Tensor, processes: Processes) -> Tensor:
    return processes.gather(mask.to(torch.uint8)).bool()
