"""The gradient of the PPO objective on one minibatch, clipped, in one of two ways.

Both leave it in `.grad` of `parameters`, for any torch optimiser to step on, and agree up to
rounding. `Gradient` runs PyTorch as usual and evaluates large minibatches in chunks.
`CompiledGradient` has the whole of it compiled: a policy of a few small layers spends its time
on launching some two hundred kernels of a few microseconds each, and compiled they are a dozen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from prefrl.ppo.loss import FIGURES, PPOConfig, ppo_loss
from prefrl.ppo.processes import ALONE, Processes, whole
from prefrl.ppo.rollout import Batch, Evaluation, Inputs, Policy, masked_mean

log = logging.getLogger(__name__)


class GradientOf(Protocol):
    """How PPO asks for a gradient."""

    parameters: list[Tensor]
    """What the optimiser steps on."""
    names: tuple[str, ...]
    """What a call returns: those of the loss, "grad_norm" (before clipping), and more."""

    def __call__(self, batch: Batch, index: Tensor, *, entropy_coef: Tensor) -> Tensor:
        """Set `.grad` from the rows `index` [m] of `batch`; [f] a figure for each name.

        `entropy_coef` is the weight of the entropy bonus by now, a scalar.
        """
        ...


class Auxiliary(Protocol):
    """One more loss on the same policy: language modelling, behaviour cloning, ..."""

    name: str
    weight: float
    """Factor in front of the loss."""

    def __call__(self) -> Tensor:
        """Scalar, with gradients; draws its own data. In one of several processes: its part of
        the sum."""
        ...


class Gradient:
    """As PyTorch runs it.

    Args:
        policy: what to differentiate.
        config: settings of the loss.
        chunk: evaluate at most this many rows at a time and accumulate gradients, which
            changes no result beyond rounding. None: a whole minibatch at once.
        auxiliary: further losses, added once for each minibatch.
        processes: who computes it together.
    """

    def __init__(
        self,
        policy: Policy,
        config: PPOConfig,
        *,
        chunk: int | None = None,
        auxiliary: Sequence[Auxiliary] = (),
        processes: Processes = ALONE,
    ) -> None:
        self.policy, self.config, self.chunk = policy, config, chunk
        self.auxiliary, self.processes = auxiliary, processes
        parameters: Any = policy.parameters()
        self.parameters: list[Tensor] = [p for p in parameters if p.requires_grad]
        extra = [name for aux in auxiliary for name in (aux.name, f"{aux.name}_grad_norm")]
        self.names = (*FIGURES, "grad_norm", *extra)

    def __call__(self, batch: Batch, index: Tensor, *, entropy_coef: Tensor) -> Tensor:
        self._clear()
        extra = [figure for aux in self.auxiliary for figure in self._add(aux)]
        figures = self._add_ppo(_minibatch(batch, index, self.config), entropy_coef)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        return torch.cat([figures, torch.stack([whole(norm), *extra])])

    def _add_ppo(self, minibatch: Batch, entropy_coef: Tensor) -> Tensor:
        """Add the gradient of the PPO objective to what is there; [8] its figures."""
        before = self._taken() if self.auxiliary else None
        steps = minibatch.mask.sum()
        figures = torch.zeros(len(FIGURES), device=minibatch.mask.device)
        for chunk in self._chunks(minibatch):
            loss = ppo_loss(
                self.policy.evaluate(chunk.inputs),
                chunk,
                steps=steps,
                entropy_coef=entropy_coef,
                config=self.config,
            )
            (self.processes.loss_factor * loss.total).backward()
            figures += loss.figures()
        self._together(figures)
        if before is not None:
            self._give(before)
        return figures

    def _add(self, auxiliary: Auxiliary) -> list[Tensor]:
        """Add the gradient of a further loss; the loss, and the norm of its gradient."""
        before = self._taken()
        loss = auxiliary()
        (self.processes.loss_factor * auxiliary.weight * loss).backward()
        value = loss.detach().clone()
        self._together(value)
        norm = whole(
            nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        )
        self._give(before)
        return [value, norm]

    def _together(self, figures: Tensor) -> None:
        """The sums over all processes, of the gradients too."""
        if self.processes.sharded:
            self.processes.add_up([figures])
            return
        if self.processes.count > 1:
            for p in self.parameters:  # a share without rows has none
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.processes.add_up([*gradients, figures])

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _taken(self) -> list[Tensor | None]:
        """The gradients so far, which start again from nothing."""
        taken = [p.grad for p in self.parameters]
        self._clear()
        return taken

    def _give(self, gradients: list[Tensor | None]) -> None:
        """Add `gradients` to those that are there."""
        for p, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is not None:
                p.grad = gradient if p.grad is None else p.grad + gradient

    def _chunks(self, minibatch: Batch) -> Iterator[Batch]:
        """The share of this process, a few rows at a time."""
        if self.processes.count == 1 and (self.chunk is None or len(minibatch) <= self.chunk):
            yield minibatch
            return
        mine = self._share(minibatch)
        rows = torch.arange(len(mine), device=mine.mask.device)
        for part in rows.split(self.chunk or max(len(rows), 1)):
            if len(part):
                yield mine.rows(part)

    def _share(self, minibatch: Batch) -> Batch:
        """Where the policy is sharded, as many rows in every process: what fills up is masked."""
        rows = torch.arange(len(minibatch), device=minibatch.mask.device)
        if not self.processes.sharded:
            return minibatch.rows(self.processes.share(rows))
        share, count = self.processes.even_share(rows)
        mine = minibatch.rows(share)
        counts = torch.arange(len(share), device=rows.device) < count
        return replace(mine, mask=mine.mask & counts[:, None])


class CompiledGradient:
    """As one compiled function of one vector, of which the policy's parameters become views.

    The first call compiles, which takes 10 to 30 seconds; on a CPU it needs a C++ compiler.
    Without one the same function runs uncompiled, with a warning.
    """

    def __init__(self, policy: nn.Module, config: PPOConfig) -> None:
        self.config = config
        self.names: tuple[str, ...] = (*FIGURES, "grad_norm")
        self._evaluate = _Evaluate(policy)
        named = dict(self._evaluate.named_parameters())
        self._shapes = {name: p.shape for name, p in named.items()}
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in named.values()]))
        for name, piece in self._pieces(self.vector.detach()).items():
            named[name].data = piece
        self.parameters: list[Tensor] = [self.vector]
        self._function = torch.compile(self._differentiate)
        self._compiled = False

    def __call__(self, batch: Batch, index: Tensor, *, entropy_coef: Tensor) -> Tensor:
        if not self._compiled:
            self._compile(batch, index, entropy_coef)
        gradient, figures = self._function(self.vector.detach(), batch, index, entropy_coef)
        self.vector.grad = gradient
        return figures

    def _compile(self, batch: Batch, index: Tensor, entropy_coef: Tensor) -> None:
        log.info("compiling the policy update: 10 to 30 seconds, once")
        try:
            self._function(self.vector.detach(), batch, index, entropy_coef)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            log.warning("the policy update runs uncompiled, several times slower: %s", error)
            self._function = self._differentiate
        self._compiled = True

    def _differentiate(
        self, vector: Tensor, batch: Batch, index: Tensor, entropy_coef: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[P] the clipped gradient at `vector` [P], [9] the loss, its parts, and the norm."""
        minibatch = _minibatch(batch, index, self.config)

        def objective(at: Tensor) -> tuple[Tensor, Tensor]:
            now = functional_call(self._evaluate, self._pieces(at), (minibatch.inputs,))
            loss = ppo_loss(
                now,
                minibatch,
                steps=minibatch.mask.sum(),
                entropy_coef=entropy_coef,
                config=self.config,
            )
            return loss.total, loss.figures()

        gradient, (_, figures) = grad_and_value(objective, has_aux=True)(vector)
        norm = gradient.norm()
        shrink = self.config.max_grad_norm / (norm + 1e-6)  # as clip_grad_norm_
        return gradient * shrink.clamp(max=1.0), torch.cat([figures, norm.view(1)])

    def _pieces(self, vector: Tensor) -> dict[str, Tensor]:
        """[P] -> each parameter, as a view."""
        parts = vector.split([shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape)
            for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)
        }


class _Evaluate(nn.Module):
    """`policy.evaluate` where `functional_call` looks for `forward`."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy: Any = policy

    def forward(self, inputs: Inputs) -> Evaluation:
        evaluation: Evaluation = self.policy.evaluate(inputs)
        return evaluation


def normalise_advantage(batch: Batch, *, centre: bool = True) -> Batch:
    """Mean 0 and deviation 1 over the unmasked steps; without `centre` root mean square 1 alone."""
    mean = masked_mean(batch.advantage, batch.mask) * centre
    variance = masked_mean((batch.advantage - mean).square(), batch.mask)
    return replace(batch, advantage=(batch.advantage - mean) / (variance.sqrt() + 1e-8))


def _minibatch(batch: Batch, index: Tensor, config: PPOConfig) -> Batch:
    minibatch = batch.rows(index)
    return normalise_advantage(minibatch) if config.normalise == "minibatch" else minibatch
