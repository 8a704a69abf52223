"""The gradient of the PPO objective on one minibatch, clipped, in one of two ways.

Both leave it in `.grad` of `parameters`, for any torch optimiser to step on, and agree up to
rounding. `Gradient` runs PyTorch as usual and evaluates large minibatches in chunks.
`CompiledGradient` has the whole of it compiled: a policy of a few small layers spends its time
on launching some two hundred kernels of a few microseconds each, and compiled they are a dozen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from prefrl.ppo.loss import FIGURES, PPOConfig, ppo_loss
from prefrl.ppo.rollout import Batch, Evaluation, Inputs, Policy, masked_mean

log = logging.getLogger(__name__)


class GradientOf(Protocol):
    """How PPO asks for a gradient."""

    parameters: list[Tensor]
    """What the optimiser steps on."""

    def __call__(self, batch: Batch, index: Tensor) -> Tensor:
        """Set `.grad` from the rows `index` [m] of `batch`; [6] the loss and its parts."""
        ...


class Gradient:
    """As PyTorch runs it.

    Args:
        policy: what to differentiate.
        config: settings of the loss.
        chunk: evaluate at most this many rows at a time and accumulate gradients, which
            changes no result beyond rounding. None: a whole minibatch at once.
    """

    def __init__(self, policy: Policy, config: PPOConfig, *, chunk: int | None = None) -> None:
        self.policy, self.config, self.chunk = policy, config, chunk
        self.parameters: list[Tensor] = list(policy.parameters())  # type: ignore[call-overload]

    def __call__(self, batch: Batch, index: Tensor) -> Tensor:
        minibatch = _minibatch(batch, index, self.config)
        steps = minibatch.mask.sum()
        figures = torch.zeros(len(FIGURES), device=minibatch.mask.device)
        for parameter in self.parameters:
            parameter.grad = None
        for chunk in self._chunks(minibatch):
            loss = ppo_loss(
                self.policy.evaluate(chunk.inputs), chunk, steps=steps, config=self.config
            )
            loss.total.backward()
            figures += loss.figures()
        nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        return figures

    def _chunks(self, minibatch: Batch) -> Iterator[Batch]:
        if self.chunk is None or len(minibatch) <= self.chunk:
            yield minibatch
            return
        index = torch.arange(len(minibatch), device=minibatch.mask.device)
        for part in index.split(self.chunk):
            yield minibatch.rows(part)


class CompiledGradient:
    """As one compiled function of one vector, of which the policy's parameters become views.

    The first call compiles, which takes 10 to 30 seconds; on a CPU it needs a C++ compiler.
    Without one the same function runs uncompiled, with a warning.
    """

    def __init__(self, policy: nn.Module, config: PPOConfig) -> None:
        self.config = config
        self._evaluate = _Evaluate(policy)
        named = dict(self._evaluate.named_parameters())
        self._shapes = {name: p.shape for name, p in named.items()}
        self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in named.values()]))
        for name, piece in self._pieces(self.vector.detach()).items():
            named[name].data = piece
        self.parameters: list[Tensor] = [self.vector]
        self._function = torch.compile(self._differentiate)
        self._compiled = False

    def __call__(self, batch: Batch, index: Tensor) -> Tensor:
        if not self._compiled:
            self._compile(batch, index)
        gradient, figures = self._function(self.vector.detach(), batch, index)
        self.vector.grad = gradient
        return figures

    def _compile(self, batch: Batch, index: Tensor) -> None:
        log.info("compiling the policy update: 10 to 30 seconds, once")
        try:
            self._function(self.vector.detach(), batch, index)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            log.warning("the policy update runs uncompiled, several times slower: %s", error)
            self._function = self._differentiate
        self._compiled = True

    def _differentiate(self, vector: Tensor, batch: Batch, index: Tensor) -> tuple[Tensor, Tensor]:
        """[P] the clipped gradient at `vector` [P], [6] the loss and its parts."""
        minibatch = _minibatch(batch, index, self.config)

        def objective(at: Tensor) -> tuple[Tensor, Tensor]:
            now = functional_call(self._evaluate, self._pieces(at), (minibatch.inputs,))
            loss = ppo_loss(now, minibatch, steps=minibatch.mask.sum(), config=self.config)
            return loss.total, loss.figures()

        gradient, (_, figures) = grad_and_value(objective, has_aux=True)(vector)
        shrink = self.config.max_grad_norm / (gradient.norm() + 1e-6)  # as clip_grad_norm_
        return gradient * shrink.clamp(max=1.0), figures

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


def normalise_advantage(batch: Batch) -> Batch:
    """Mean 0 and standard deviation 1 over the unmasked steps."""
    mean = masked_mean(batch.advantage, batch.mask)
    variance = masked_mean((batch.advantage - mean).square(), batch.mask)
    return replace(batch, advantage=(batch.advantage - mean) / (variance.sqrt() + 1e-8))


def _minibatch(batch: Batch, index: Tensor, config: PPOConfig) -> Batch:
    minibatch = batch.rows(index)
    return normalise_advantage(minibatch) if config.normalise == "minibatch" else minibatch
