"""What a language task is: prompts, demonstrations, a gold reward, a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prefrl.language.records import Demonstration
from prefrl.language.tokenizer import Tokenizer

Gold = Callable[[str, str, bool], float]
"""(prompt, completion, did it end by itself?) -> gold reward; only annotators and evaluation may
read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTask:
    """A task that needs no download."""

    name: str
    prompts: tuple[str, ...]
    """To train on."""
    held_out_prompts: tuple[str, ...]
    """To evaluate on."""
    demonstrations: Callable[[int, int], tuple[Demonstration, ...]]
    """(count, seed) -> so many to train on, or as many as there are."""
    held_out: Callable[[int], tuple[Demonstration, ...]]
    """(count) -> so many that nobody trains on."""
    gold: Gold
    tokenizer: Callable[[], Tokenizer]
    """Made or trained on this machine."""
    max_prompt: int
    """Tokens of the longest prompt, the one that begins a text included."""
    max_completion: int
    """Tokens, the end token included."""
