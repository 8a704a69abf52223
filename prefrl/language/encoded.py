"""Texts as token ids, checked once and padded batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.records import Completion, Demonstration
from prefrl.language.tokenizer import Tokenizer
from prefrl.language.tokens import Completions, completions_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long texts may be."""

    max_prompt: int = 512
    """Tokens of a prompt."""
    max_completion: int = 512
    """Tokens of a completion, the end token included."""
    too_long: Literal["error", "drop"] = "error"
    """What to do with an example beyond them; dropped ones are counted in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """C completions with their prompts, as ids."""

    prompts: Sequence[Sequence[int]]
    """[C]"""
    completions: Sequence[Sequence[int]]
    """[C] EOS last, except where a completion was cut off."""
    pad: int

    def __len__(self) -> int:
        return len(self.completions)

    def batch(self, index: Iterable[int]) -> Completions:
        """Those of `index`, padded to the longest among them."""
        chosen = list(index)
        return completions_of(
            [self.prompts[i] for i in chosen],
            [self.completions[i] for i in chosen],
            pad=self.pad,
        )

    def part(self, index: Sequence[int]) -> Encoded:
        """Those of `index` alone."""
        return Encoded(
            prompts=[self.prompts[i] for i in index],
            completions=[self.completions[i] for i in index],
            pad=self.pad,
        )

    def tokens(self, index: Iterable[int]) -> int:
        """Of their completions."""
        return sum(len(self.completions[i]) for i in index)


def encode(
    texts: Sequence[tuple[str, Completion]], tokenizer: Tokenizer, *, limits: Limits
) -> Encoded:
    """(prompt, completion) pairs as ids.

    Raises:
        UserError: longer than `limits` allow, whatever they say of what is too long: a label
            cannot lose one of its completions. `fitting` sorts out whole examples before.
    """
    prompts = [tokenizer.encode_prompt(prompt) for prompt, _ in texts]
    completions = [_ids(completion, tokenizer) for _, completion in texts]
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        trouble = _too_long(len(prompt), len(completion), limits)
        if trouble:
            raise UserError(f"text {i}, {texts[i][0][:40]!r}: {trouble}")
    return Encoded(prompts=prompts, completions=completions, pad=tokenizer.pad)


def encode_demonstrations(
    demonstrations: Sequence[Demonstration], tokenizer: Tokenizer, *, limits: Limits
) -> Encoded:
    """Demonstrations as ids; too long ones are refused or dropped as `limits` say."""
    texts = [[(d.prompt, Completion(text=d.completion, ended=d.ended))] for d in demonstrations]
    kept = fitting(texts, tokenizer, limits=limits)
    return encode([texts[i][0] for i in kept], tokenizer, limits=limits)


def fitting(
    examples: Sequence[Sequence[tuple[str, Completion]]], tokenizer: Tokenizer, *, limits: Limits
) -> list[int]:
    """Which examples are within the limits in all of their texts.

    Raises:
        UserError: one is not, and `too_long` is "error"; or all would be dropped.
    """
    kept = []
    for i, texts in enumerate(examples):
        sizes = [(len(tokenizer.encode_prompt(p)), len(_ids(c, tokenizer))) for p, c in texts]
        trouble = next((t for size in sizes if (t := _too_long(*size, limits))), None)
        if trouble is None:
            kept.append(i)
        elif limits.too_long == "error":
            raise UserError(f"example {i}, {texts[0][0][:40]!r}: {trouble}")
    if len(kept) < len(examples):
        log.warning("%d of %d examples are too long: left out", len(examples) - len(kept),
                    len(examples))  # fmt: skip
    if not kept:
        raise UserError("every example is too long: raise max_prompt or max_completion")
    return kept


def _ids(completion: Completion, tokenizer: Tokenizer) -> list[int]:
    if completion.ended:
        return tokenizer.encode_completion(completion.text)
    return tokenizer.encode(completion.text) or [tokenizer.eos]


def _too_long(prompt: int, completion: int, limits: Limits) -> str | None:
    if prompt > limits.max_prompt:
        what, got, wanted, name = "prompt", prompt, limits.max_prompt, "max_prompt"
    elif completion > limits.max_completion:
        what, got, wanted, name = (
            "completion with its end", completion, limits.max_completion, "max_completion",
        )  # fmt: skip
    else:
        return None
    return (
        f"the {what} has {got} tokens, wanted at most {wanted}: raise {name} if the model has the "
        "positions, shorten it, or leave such examples out with too_long = drop"
    )


def flat(index: Tensor) -> list[int]:
    """[n] int64 -> plain numbers."""
    return [int(i) for i in index]
