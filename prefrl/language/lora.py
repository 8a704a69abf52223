"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), by peft: only they are trained.

They begin without effect, so that the model without them is the reference.
"""

from __future__ import annotations

import copy
from typing import Any

import torch


def adapted(model: Any, *, rank: int, alpha: int, seed: int, generates: bool = True) -> Any:
    """The model with adapters on all its linear layers, in place; of rank 0, without.

    Args:
        alpha: scale of the adapters, divided by their rank.
        seed: of the adapters' weights.
        generates: a causal language model; False: its trunk, which gives hidden states.
    """
    if not rank:
        return model
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM" if generates else "FEATURE_EXTRACTION",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, settings)


def has_adapters(model: Any) -> bool:
    """Was it made by `adapted`?"""
    return hasattr(model, "disable_adapter")


def merged(model: Any) -> Any:
    """A copy with what the adapters do in its own weights; without adapters the model itself."""
    return copy.deepcopy(model).merge_and_unload() if has_adapters(model) else model
