"""One loop for everything that is fitted on stored texts: SFT, reward models, direct methods.

What a step does depends on its number alone: the examples of an epoch are shuffled by (seed,
epoch), the step size by the share of the steps that are done. So a fit that was stopped goes on
bit for bit from its weights, its optimiser and one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from prefrl.errors import UserError, refuse_idle
from prefrl.language.models import Precision, autocast

LORA_ALPHA = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How a fit steps."""

    lr: float
    """Adam's step size at its highest."""
    batch: int = 64
    """Examples of a step."""
    epochs: float = 1.0
    """Passes over the examples; preferences are usually seen once, and overfit soon."""
    micro_batch: int = 0
    """Examples of a forward and backward; smaller ones need less memory and change no result
    beyond rounding. 0: the whole batch."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the step size falls."""
    lr_end: float = 0.0
    """Step size at the end, as a fraction of `lr`."""
    warmup: float = 0.0
    """Share of the steps over which it rises from 0."""
    weight_decay: float = 0.0
    """Of AdamW."""
    adam_eps: float = 1e-8
    """Adam's epsilon."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    lora_rank: int = 0
    """Rank of LoRA adapters, of which alone the model then learns; 0: all weights learn."""
    lora_alpha: int = LORA_ALPHA
    """Scale of the adapters, divided by their rank."""
    precision: Precision = "fp32"
    """Arithmetic of the forward passes; weights stay float32."""
    seed: int = 0
    """Of the order of the examples, and of what is drawn before the first step."""

    def __post_init__(self) -> None:
        for name in ("lr", "batch", "epochs", "adam_eps", "max_grad_norm", "lora_alpha"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted more than 0")
        for name in ("lr", "epochs", "adam_eps", "weight_decay"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name}: got {getattr(self, name)}, wanted a finite number")
        for name in ("lr_end", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 to 1")
        for name in ("micro_batch", "weight_decay", "lora_rank", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        if not self.lora_rank:
            refuse_idle("lora_alpha", self.lora_alpha, LORA_ALPHA, beside="lora_rank 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Of one chunk of a batch."""

    loss: Tensor
    """Scalar, summed over its units (tokens, labels), with gradients."""
    figures: Mapping[str, Tensor]
    """Scalars summed over the same units, detached."""


class Objective(Protocol):
    """What a fit lowers."""

    @property
    def model(self) -> nn.Module:
        """What it is fitted by."""
        ...

    def __len__(self) -> int:
        """Examples."""
        ...

    def shared(self, index: Tensor) -> Any:
        """What the chunks of the batch `index` share, as an object with its `units`: how many
        tokens or labels its loss is the mean of."""
        ...

    def sums(self, index: Tensor, shared: Any) -> Sums:
        """Loss and figures of a chunk of that batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What most objectives share: the number of their units."""

    units: float


class Fit:
    """A fit under way.

    fit = Fit(objective, config)
    while not fit.done:
        figures = fit.advance()
    """

    def __init__(self, objective: Objective, config: OptimConfig) -> None:
        if not len(objective):
            raise UserError("no example to fit on: wanted at least one")
        self.objective, self.config, self.step = objective, config, 0
        self.parameters = [p for p in objective.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=config.lr, eps=config.adam_eps, weight_decay=config.weight_decay
        )

    @property
    def steps(self) -> int:
        """Of the whole fit; the last batch of an epoch may be smaller."""
        return max(round(self.config.epochs * self._steps_per_epoch), 1)

    @property
    def done(self) -> bool:
        """Have all steps been taken?"""
        return self.step >= self.steps

    def advance(self) -> dict[str, float]:
        """Take one step; means over the batch of the loss and the objective's figures."""
        lr = self._anneal()
        index = self.examples(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        how = self.config
        sums = accumulate(self.objective, index, chunk=how.micro_batch, precision=how.precision)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        if not math.isfinite(sums["loss"]):
            raise UserError(
                f"step {self.step}: the loss is {sums['loss']}; wanted a finite number: lower lr "
                f"(now {lr:.2g}), and look for extreme examples"
            )
        self.optimiser.step()
        self.step += 1
        return {**sums, "gradient_norm": float(norm), "lr": lr}

    def examples(self, step: int) -> Tensor:
        """The indices of the examples of a step."""
        epoch, place = divmod(step, self._steps_per_epoch)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.objective), generator=generator)
        return order[place * self.config.batch : (place + 1) * self.config.batch]

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(len(self.objective) / self.config.batch)

    def _anneal(self) -> float:
        lr = self.config.lr * annealed(self.step / self.steps, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        return lr


def annealed(progress: float, config: OptimConfig) -> float:
    """Step size as a fraction of the highest: up over the warm-up, then down."""
    if progress < config.warmup:
        return max(progress / config.warmup, 1e-3)  # a first step of 0 would be lost
    left = 1 - (progress - config.warmup) / (1 - config.warmup) if config.warmup < 1 else 1.0
    if config.schedule == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return config.lr_end + (1 - config.lr_end) * left


def accumulate(
    objective: Objective, index: Tensor, *, chunk: int, precision: Precision = "fp32"
) -> dict[str, float]:
    """Add the gradient of the mean loss over `index`, in chunks of so many examples.

    Each chunk's sum is divided by the units of the whole batch: however it is cut, the result is
    one and the same (a mean of the chunks' means is not, where they differ in length).
    """
    device = next(objective.model.parameters()).device
    with autocast(precision, device):
        shared = objective.shared(index)
    total: dict[str, Tensor] = {}
    for part in index.split(chunk or len(index)):
        with autocast(precision, device):
            sums = objective.sums(part, shared)
        (sums.loss / shared.units).backward()
        _add(total, {"loss": sums.loss.detach(), **sums.figures})
    return {name: float(value) / shared.units for name, value in total.items()}


@torch.no_grad()
def measure(
    objective: Objective, *, chunk: int = 64, precision: Precision = "fp32"
) -> dict[str, float]:
    """Means of loss and figures over all examples, without a step: the held-out loss."""
    everything = torch.arange(len(objective))
    total: dict[str, Tensor] = {}
    with autocast(precision, next(objective.model.parameters()).device):
        shared = objective.shared(everything)
        for index in everything.split(chunk):
            sums = objective.sums(index, shared)
            _add(total, {"loss": sums.loss, **sums.figures})
    return {name: float(value) / shared.units for name, value in total.items()}


def fit_to_end(
    objective: Objective,
    config: OptimConfig,
    *,
    on_step: Callable[[Fit, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """All steps, one after the other; the last one's figures."""
    fit, figures = Fit(objective, config), {}
    while not fit.done:
        figures = fit.advance()
        if on_step is not None:
            on_step(fit, figures)
    return figures


def _add(total: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value
