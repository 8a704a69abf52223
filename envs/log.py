"""Append-only logs of what a vector environment did, kept so that clips can be drawn later."""

from __future__ import annotations

import numpy as np

BLOCK_STEPS = 1024


class StepLog:
    """Rows [B, *item] of consecutive steps; rows already written never change.

    A clip recipe refers to a log and copies its own column only when it is stored: recipes
    are cut for many candidate segments, and few of them are kept.
    """

    def __init__(self, num_envs: int, item: tuple[int, ...], dtype: type) -> None:
        self._shape = (BLOCK_STEPS, num_envs, *item)
        self._dtype = dtype
        self._blocks: list[np.ndarray] = []
        self.length = 0

    def append(self, row: np.ndarray) -> None:
        """Add one step: row [B, *item]."""
        index = self.length % BLOCK_STEPS
        if index == 0:
            self._blocks.append(np.empty(self._shape, self._dtype))
        self._blocks[-1][index] = row
        self.length += 1

    def column(self, env: int, start: int, stop: int) -> np.ndarray:
        """A copy [stop - start, *item] of the steps [start, stop) of one sub-environment."""
        assert 0 <= start <= stop <= self.length, (start, stop, self.length)
        out: np.ndarray = np.empty((stop - start, *self._shape[2:]), self._dtype)
        for first in range(start - start % BLOCK_STEPS, stop, BLOCK_STEPS):
            low, high = max(start, first), min(stop, first + BLOCK_STEPS)
            block = self._blocks[first // BLOCK_STEPS]
            out[low - start : high - start] = block[low - first : high - first, env]
        return out
