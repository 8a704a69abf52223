"""A closed little language for tests of what is fitted on texts."""

from __future__ import annotations

import functools

from prefrl.language.encoded import Limits
from prefrl.language.models import new_model
from prefrl.language.records import TextLabel, pair
from prefrl.language.tokenizer import Tokenizer, train_tokenizer

LIMITS = Limits(max_prompt=8, max_completion=8)


@functools.cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(["film book is good bad very not"], kind="words")


def model(kind: str = "llama", seed: int = 0):
    return new_model(kind, tokenizer(), width=16, layers=1, heads=2, positions=32, seed=seed)  # type: ignore[arg-type]


def pairs(count: int = 8) -> list[TextLabel]:
    """Good over bad, with prompts and completions of several lengths."""
    return [
        pair(
            " ".join(["film is", "book film is", "is"][i % 3].split()),
            " ".join(["very"] * (i % 3) + ["good"]),
            " ".join(["not"] * (i % 2) + ["bad"]),
        )
        for i in range(count)
    ]
