"""Several processes with the same policy that compute one gradient together.

Each holds the whole rollout, differentiates its share of every minibatch, and adds up with the
others; the denominators are those of the whole, so that the sum is what one process would get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Who computes; by default this process alone."""

    rank: int = 0
    """Which of them this one is."""
    count: int = 1

    def share(self, index: Tensor) -> Tensor:
        """[m] -> the rows of this process, every `count`-th; all of them together once."""
        return index[self.rank :: self.count]

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
