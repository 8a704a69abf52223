"""Advantages worked out by hand, and against the sum they abbreviate."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefrl.ppo import gae


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_gae_by_hand() -> None:
    # gamma = 0.5, lam = 0.5, so each step's trace decays by 0.25
    # delta_2 = 3 + 0.5 * 4 - 2 = 3         A_2 = 3
    # delta_1 = 2 + 0.5 * 2 - 1 = 2         A_1 = 2 + 0.25 * 3    = 2.75
    # delta_0 = 1 + 0.5 * 1 - 2 = -0.5      A_0 = -0.5 + 0.25 * 2.75 = 0.1875
    got = gae(row(1, 2, 3), row(2, 1, 2), row(1, 2, 4), row(0.5, 0.5, 0.5), row(1, 1, 1), lam=0.5)
    assert got.tolist() == [[0.1875, 2.75, 3.0]]


def test_gae_after_termination_trusts_neither_the_critic_nor_the_next_episode() -> None:
    # step 1 terminates: discount 0, whatever the critic says there (99)
    # delta_2 = 3 + 0.5 * 4 - 2 = 3         A_2 = 3
    # delta_1 = 2 + 0 * 99 - 1 = 1          A_1 = 1
    # delta_0 = 1 + 0.5 * 1 - 2 = -0.5      A_0 = -0.5 + 0.25 * 1 = -0.25
    got = gae(row(1, 2, 3), row(2, 1, 2), row(1, 99, 4), row(0.5, 0, 0.5), row(1, 0, 1), lam=0.5)
    assert got.tolist() == [[-0.25, 1.0, 3.0]]


def test_gae_stops_at_truncation_but_keeps_the_bootstrap() -> None:
    # a time limit cuts after step 1; the final observation is worth 6
    # delta_1 = 2 + 0.5 * 6 - 1 = 4         A_1 = 4, with nothing of A_2 in it
    # delta_0 = 1 + 0.5 * 1 - 2 = -0.5      A_0 = -0.5 + 0.25 * 4 = 0.5
    got = gae(row(1, 2, 3), row(2, 1, 2), row(1, 6, 4), row(0.5, 0.5, 0.5), row(1, 0, 1), lam=0.5)
    assert got.tolist() == [[0.5, 4.0, 3.0]]


def test_gae_ignores_even_nan_as_the_value_after_termination() -> None:
    # 3 + 0 * nan - 1 = 2, not nan
    assert gae(row(3), row(1), row(math.nan), row(0), row(0), lam=0.5).tolist() == [[2.0]]


def test_gae_with_lambda_zero_is_the_temporal_difference_error() -> None:
    # 1 + 0.5 * 1 - 2, 2 + 0.5 * 2 - 1, 3 + 0.5 * 4 - 2
    got = gae(row(1, 2, 3), row(2, 1, 2), row(1, 2, 4), row(0.5, 0.5, 0.5), row(1, 1, 1), lam=0)
    assert got.tolist() == [[-0.5, 2.0, 3.0]]


def test_gae_keeps_environments_apart() -> None:
    one = gae(row(1, 2, 3), row(2, 1, 2), row(1, 2, 4), row(0.5, 0.5, 0.5), row(1, 1, 1), lam=0.5)
    two = torch.cat([row(1, 2, 3), row(7, -7, 70)])
    rest = [torch.cat([x, x]) for x in (row(2, 1, 2), row(1, 2, 4), row(0.5, 0.5, 0.5))]
    got = gae(two, *rest, torch.ones(2, 3, dtype=torch.float64), lam=0.5)
    assert got[0].tolist() == one[0].tolist()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    B=st.integers(1, 3),
    T=st.integers(1, 9),
    lam=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
)
def test_gae_equals_its_quadratic_definition(seed: int, B: int, T: int, lam: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    reward, value, following = torch.randn(3, B, T, generator=generator, dtype=torch.float64)
    ended, cut = torch.rand(2, B, T, generator=generator) < 0.3
    discount = torch.where(ended, 0.0, 0.9).double()
    trace = torch.where(ended | cut, 0.0, 1.0).double()
    wanted = torch.zeros(B, T, dtype=torch.float64)
    for b in range(B):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                delta = reward[b, k] + discount[b, k] * following[b, k] - value[b, k]
                wanted[b, t] += weight * delta
                weight *= float(discount[b, k]) * lam * float(trace[b, k])
    got = gae(reward, value, following, discount, trace, lam=lam)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("padding", [0.0, 7.0, math.nan])
def test_gae_of_a_padded_row_equals_the_row_alone(padding: float) -> None:
    # the trace of the last real step is 0, so what stands behind it never comes in
    real = gae(row(1, 2), row(2, 1), row(1, 2), row(0.5, 0.5), row(1, 0), lam=0.5)
    reward, value = row(1, 2, padding), row(2, 1, padding)
    got = gae(reward, value, row(1, 2, padding), row(0.5, 0.5, padding), row(1, 0, 0), lam=0.5)
    assert got[:, :2].tolist() == real.tolist()
