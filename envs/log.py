"""Append-only logs of what a vector environment did, kept so that clips can be drawn later."""

from __future__ import annotations

import numpy as np

BLOCK_STEPS = 1024


class StepLog:
    """Rows [B, *item] of consecutive steps; rows already written never change.

    A clip recipe refers to a part of a log and copies its own column only when it is stored:
    recipes are cut for many candidate segments, and few of them are kept.

    Args:
        blocks: of `BLOCK_STEPS`, so many of the newest are kept, and older ones as long as a part
            refers to them; None: all.
    """

    def __init__(
        self, num_envs: int, item: tuple[int, ...], dtype: type, *, blocks: int | None = None
    ) -> None:
        self._shape = (BLOCK_STEPS, num_envs, *item)
        self._dtype = dtype
        self._kept = blocks
        self._blocks: dict[int, np.ndarray] = {}
        self.length = 0

    @property
    def first(self) -> int:
        """The oldest step that is kept."""
        return min(self._blocks, default=0) * BLOCK_STEPS

    def append(self, row: np.ndarray) -> None:
        """Add one step: row [B, *item]."""
        block, index = divmod(self.length, BLOCK_STEPS)
        if index == 0:
            self._blocks[block] = np.empty(self._shape, self._dtype)
            if self._kept is not None:
                self._blocks.pop(block - self._kept, None)
        self._blocks[block][index] = row
        self.length += 1

    def part(self, start: int, stop: int) -> StepLog:
        """The steps [start, stop) alone, under the numbers they have here."""
        assert self.first <= start <= stop <= self.length, (start, stop, self.first, self.length)
        part = StepLog(self._shape[1], self._shape[2:], self._dtype)
        within = range(start // BLOCK_STEPS, -(-stop // BLOCK_STEPS))
        part._blocks, part.length = {i: self._blocks[i] for i in within}, stop
        return part

    def column(self, env: int, start: int, stop: int) -> np.ndarray:
        """A copy [stop - start, *item] of the steps [start, stop) of one sub-environment."""
        assert self.first <= start <= stop <= self.length, (start, stop, self.first, self.length)
        out: np.ndarray = np.empty((stop - start, *self._shape[2:]), self._dtype)
        for first in range(start - start % BLOCK_STEPS, stop, BLOCK_STEPS):
            low, high = max(start, first), min(stop, first + BLOCK_STEPS)
            block = self._blocks[first // BLOCK_STEPS]
            out[low - start : high - start] = block[low - first : high - first, env]
        return out
