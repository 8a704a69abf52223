"""Several processes with the same policy that compute one gradient together.

Each holds the whole rollout, differentiates its share of every minibatch, and adds up with the
others; the denominators are those of the whole, so that the sum is what one process would get.
Where the policy is sharded (FSDP) each also holds a part of every weight only, and adding up
happens on the way backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, distribute_tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Who computes; by default this process alone."""

    rank: int = 0
    """Which of them this one is."""
    count: int = 1
    sharded: bool = False
    """Each holds a part of every weight: all must go forward and backward equally often."""

    def share(self, index: Tensor) -> Tensor:
        """[m] -> the rows of this process, every `count`-th; all of them together once."""
        return index[self.rank :: self.count]

    def even_share(self, index: Tensor) -> tuple[Tensor, int]:
        """As `share`, filled up so that every process has as many rows; how many of them count."""
        share = self.share(index)
        missing = -(-len(index) // self.count) - len(share)  # 0 or 1
        return torch.cat([share, index[:missing]]), len(share)

    @property
    def loss_factor(self) -> int:
        """Of a loss before it goes backward: sharded gradients come back as means, not sums."""
        return self.count if self.sharded else 1

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.count > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def gather(self, x: Tensor) -> Tensor:
        """[n, ...] of the same shape in each -> [count * n, ...], by rank."""
        if self.count == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.count)]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def largest(self, number: int, device: torch.device) -> int:
        """The largest of a number that each process has its own of."""
        if self.count == 1:
            return number
        box = torch.tensor(number, device=device)
        distributed.all_reduce(box, distributed.ReduceOp.MAX)
        return int(box.item())

    def wait(self) -> None:
        """For the others."""
        if self.count > 1:
            distributed.barrier()


ALONE = Processes()


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a part, put together; then all must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The inverse of `whole`: what this process holds of `tensor`, as it does of `like`."""
    if not isinstance(like, DTensor):
        return tensor
    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
