"""Rows, steps, and a shape that does not fit."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from prefrl.ppo import Batch, Rollout


@dataclass(frozen=True)
class Numbers:
    """Inputs that are one tensor [B, T]."""

    x: Tensor

    def rows(self, index: Tensor) -> "Numbers":
        return Numbers(self.x[index])

    def by_step(self) -> "Numbers":
        return Numbers(self.x.reshape(-1, 1))


def batch() -> Batch:
    """Three rows of two steps; every field is the input plus its own hundred."""
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    return Batch(
        inputs=Numbers(x),
        mask=x != 3,
        logp=x + 100,
        value=x + 200,
        advantage=x + 300,
        returns=x + 400,
    )


def aligned(b: Batch) -> bool:
    """Does every field belong to its input still?"""
    assert isinstance(b.inputs, Numbers)
    x = b.inputs.x
    fields = (b.logp - 100, b.value - 200, b.advantage - 300, b.returns - 400)
    return all(torch.equal(f, x) for f in fields) and torch.equal(b.mask, x != 3)


def test_rows_pick_whole_sequences_of_every_field() -> None:
    got = batch().rows(torch.tensor([2, 0]))
    assert isinstance(got.inputs, Numbers)
    assert got.inputs.x.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert aligned(got)
    assert len(got) == 2


def test_by_step_makes_every_step_a_row() -> None:
    got = batch().by_step()
    assert isinstance(got.inputs, Numbers)
    assert got.inputs.x.tolist() == [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]
    assert aligned(got)
    assert len(got) == 6


def test_a_rollout_of_uneven_shapes_is_refused() -> None:
    x = torch.zeros(2, 3)
    rollout = Rollout(
        inputs=Numbers(x),
        mask=x == 0,
        logp=x,
        value=x,
        reward=x,
        next_value=x,
        discount=x,
        trace=x,
    )
    with pytest.raises(AssertionError, match=r"Rollout.trace: got \(2, 2\), wanted \(2, 3\)"):
        replace(rollout, trace=x[:, :2])
