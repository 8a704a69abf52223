"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    discount: Tensor,
    trace: Tensor,
    *,
    lam: float,
) -> Tensor:
    """Advantages A_t = delta_t + discount_t lam trace_t A_{t+1} (eq. 16).

    Args:
        reward: [B, T]
        value: [B, T] V(s_t).
        next_value: [B, T] V of the state that really followed s_t: anything after
            termination (discount is 0 there), the value of the final observation after a
            time limit. So time limits need no case.
        discount: [B, T] gamma, or 0 after termination.
        trace: [B, T] 1 where step t + 1 continues step t, else 0.
        lam: trade-off: 0 is low variance and trusts the critic, 1 is unbiased and noisy.

    Returns:
        [B, T] advantages.
    """
    # torch.where, because nan * 0 is nan, and padding may hold anything
    delta = reward + torch.where(discount == 0, 0.0, discount * next_value) - value
    decay = discount * lam * trace
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        running = delta[:, t] + torch.where(decay[:, t] == 0, 0.0, decay[:, t] * running)
        advantage[:, t] = running
    return advantage
