"""Small tokenizer, models and texts for the tests of language."""

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prefrl.language.config import LanguageConfig
from prefrl.language.models import new_model
from prefrl.language.policy import LanguagePolicy, Sampling
from prefrl.language.tokenizer import Tokenizer, train_tokenizer
from prefrl.language.tokens import Completions

KINDS = ("gpt2", "llama")


@functools.cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a b c d e f g h i j"], kind="words")


def model(kind: Any = "llama", seed: int = 0) -> nn.Module:
    return new_model(kind, tokenizer(), width=16, heads=2, positions=32, seed=seed)


def policy(kind: Any = "llama", **options: Any) -> LanguagePolicy:
    sampling = Sampling(temperature=0.7, never_said=tokenizer().never_said)
    return LanguagePolicy(model(kind), **{"sampling": sampling, "critic": "shared", **options})


def texts() -> Completions:
    """Prompts of 4 and 2 tokens, completions of 3 and 4, the second without an end."""
    said = tokenizer().completions(["a b c", "d"], ["e f", "g h i"])
    return replace(said, completion=said.completion.where(said.mask, tokenizer().pad))


def widened(said: Completions, *, left: int = 0, right: int = 0) -> Completions:
    """The same texts behind and before more padding, filled with junk."""

    def wide(x: Tensor, value: int) -> Tensor:
        return nn.functional.pad(x, (left, 0), value=value)

    return Completions(
        prompt=wide(said.prompt, 5),
        prompt_mask=wide(said.prompt_mask, 0),
        completion=nn.functional.pad(said.completion, (0, right), value=6),
        mask=nn.functional.pad(said.mask, (0, right), value=0),
    )


def config(**changes: Any) -> LanguageConfig:
    """Quick settings; those under `ppo` by their own names."""
    plain = LanguageConfig(updates=4, max_tokens=5)
    own = {k: v for k, v in changes.items() if hasattr(plain, k)}
    ppo = replace(plain.ppo, lr=1e-2, epochs=2, minibatches=2)
    ppo = replace(ppo, **{k: v for k, v in changes.items() if k not in own})
    return replace(plain, **own, ppo=ppo)


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
