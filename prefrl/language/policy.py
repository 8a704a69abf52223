"""A language model as a policy that PPO trains, and the frozen reference beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefrl.language.lora import has_adapters
from prefrl.language.models import (
    Precision,
    ScalarModel,
    autocast,
    completion_logits,
    next_token_logp,
    scalar_head,
)
from prefrl.language.processes import shard
from prefrl.language.tokens import Completions
from prefrl.ppo import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """From which distribution tokens are drawn; the log-probabilities are of the same one."""

    temperature: float
    """Logits are divided by it: lower is greedier."""
    never_said: tuple[int, ...] = ()
    """Ids with no probability: padding, the beginning."""


class LanguagePolicy(nn.Module):
    """What the trainer needs; PPO uses `evaluate` only.

    Args:
        model: a causal language model, with LoRA adapters or without.
        sampling: how it speaks.
        critic: a `ScalarModel` with a trunk of its own; "shared", a zero head on the policy's
            own trunk; or None, where advantages need no critic.
        entropy_gradient: is the entropy part of the loss? It costs a pass over V else for naught.
        precision: arithmetic of the forward pass.
    """

    def __init__(
        self,
        model: Any,
        *,
        sampling: Sampling,
        critic: ScalarModel | Literal["shared"] | None,
        entropy_gradient: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.model = model
        self.sampling = sampling
        self.critic = critic if isinstance(critic, ScalarModel) else None
        self.value_head: nn.Linear | None = None
        if critic == "shared":
            width = model.config.hidden_size
            self.value_head = scalar_head(width, generator=torch.Generator(), head="zero")
        self.entropy_gradient = entropy_gradient
        self.precision = precision

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def arithmetic(self) -> AbstractContextManager:
        """Around every forward pass, of training and of sampling alike."""
        return autocast(self.precision, self.device)

    def shard(self) -> None:
        """From here on this process holds a part of every weight."""
        for module in (self.model, self.critic, self.value_head):
            if module is not None:
                shard(module)

    def evaluate(self, inputs: Completions) -> Evaluation:
        """[n, T] log-probability, entropy, value."""
        logits, value = self._read(inputs)
        logp = next_token_logp(
            logits,
            temperature=self.sampling.temperature,
            never_said=self.sampling.never_said,
        )
        taken = logp.gather(-1, inputs.completion.unsqueeze(-1)).squeeze(-1)
        with nullcontext() if self.entropy_gradient else torch.no_grad():
            entropy = -(logp.exp() * logp).sum(-1)
        return Evaluation(logp=taken, entropy=entropy, value=value)

    def _read(self, texts: Completions) -> tuple[Tensor, Tensor]:
        """Logits [n, T, V] and values [n, T]."""
        with self.arithmetic():
            shared = self.value_head is not None
            output = completion_logits(self.model, texts, output_hidden_states=shared)
            if self.value_head is not None:
                hidden = output.hidden_states[-1][:, texts.prompt.shape[1] - 1 : -1]
                value = self.value_head(hidden).squeeze(-1).float()
            elif self.critic is not None:
                value = self.critic.before_each_token(texts)
            else:
                value = torch.zeros(texts.completion.shape, device=texts.completion.device)
        return output.logits, value


class Reference:
    """The policy as it was, for the KL term: a frozen copy, or the adapters switched off."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self._policy = policy
        self._adapters = has_adapters(policy.model)
        self._model = policy.model if self._adapters else frozen_copy(policy.model)

    def shard(self) -> None:
        """As `LanguagePolicy.shard`."""
        shard(self._model)

    def evaluate(self, texts: Completions) -> Tensor:
        """[n, T] its log-probabilities, at the temperature at which the policy speaks."""
        sampling = self._policy.sampling
        off = self._model.disable_adapter() if self._adapters else nullcontext()
        with torch.no_grad(), off, self._policy.arithmetic():
            logits = completion_logits(self._model, texts).logits
        logp = next_token_logp(
            logits, temperature=sampling.temperature, never_said=sampling.never_said
        )
        return logp.gather(-1, texts.completion.unsqueeze(-1)).squeeze(-1)


def frozen_copy(model: nn.Module) -> Any:
    """The same weights, which nothing will change."""
    frozen = copy.deepcopy(model)
    return frozen.requires_grad_(False)


def in_chunks(of: Callable[[Completions], Any], texts: Completions, *, size: int | None) -> Any:
    """`of` a few rows at a time, joined again; its result is a tensor or a record of tensors."""
    if size is None or len(texts) <= size:
        return of(texts)
    rows = torch.arange(len(texts), device=texts.completion.device)
    parts = [of(texts.rows(part)) for part in rows.split(size)]
    return _joined(parts)


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    )
