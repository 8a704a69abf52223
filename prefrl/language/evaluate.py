"""What a policy is worth: gold and learned reward, wins, KL, length, held-out loss.

Every figure has an interval, and length stands beside every win rate, for raters and learned
rewards like long answers and most of a gain may be length (Singhal et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prefrl.errors import UserError
from prefrl.language.collect import generate
from prefrl.language.encoded import Encoded
from prefrl.language.estimates import Estimate, mean_of, win_rate, win_rate_at_matched_length
from prefrl.language.models import logprobs, rows_at_once
from prefrl.language.policy import Sampling
from prefrl.language.records import Completion
from prefrl.language.sft import language_loss
from prefrl.language.tasks.task import Gold
from prefrl.language.tokenizer import Tokenizer
from prefrl.language.tokens import Completions, joined

CHUNK = 512  # prompts at a time

Preferrer = Callable[[str, Completion, Completion], float]
"""(prompt, first, second) -> probability that the second is preferred; a `Judge` is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What a policy said to B prompts."""

    prompts: tuple[str, ...]
    """[B]"""
    completions: tuple[Completion, ...]
    """[B]"""
    texts: Completions
    """The same as ids."""

    def __len__(self) -> int:
        return len(self.prompts)

    def gold(self, gold: Gold) -> np.ndarray:
        """[B] gold rewards."""
        return np.array([gold(prompt, c.text, c.ended) for prompt, c in self.pairs])

    @property
    def pairs(self) -> list[tuple[str, Completion]]:
        """[B] (prompt, completion)."""
        return list(zip(self.prompts, self.completions, strict=True))

    @property
    def lengths(self) -> np.ndarray:
        """[B] tokens, the end included."""
        found: np.ndarray = self.texts.lengths.cpu().numpy()
        return found

    @property
    def words(self) -> np.ndarray:
        """[B] words, 1 where there is none: of any tokenizer."""
        return np.array([max(len(c.text.split()), 1) for c in self.completions])


def sample(
    model: nn.Module,
    prompts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    sampling: Sampling,
    max_completion: int,
    generator: torch.Generator,
) -> Samples:
    """One completion for each prompt; give a prompt n times for n of them.

    `CHUNK` at a time, for the keys and values of all of them may be more than there is memory.
    """
    if not prompts:
        raise UserError("no prompts: wanted at least one")
    device = next(model.parameters()).device
    asked = tokenizer.prompts(prompts).to(device)
    with torch.no_grad():
        parts = [
            generate(
                model,
                asked.rows(index),
                sampling=sampling,
                tokenizer=tokenizer,
                max_tokens=max_completion,
                generator=generator,
            )
            for index in torch.arange(len(prompts), device=device).split(CHUNK)
        ]
    return samples_of(prompts, joined(parts, pad=tokenizer.pad), tokenizer)


def samples_of(prompts: Sequence[str], texts: Completions, tokenizer: Tokenizer) -> Samples:
    """Generated ids with what they say."""
    said = tokenizer.decode(texts.completion, texts.mask)
    ended = texts.ended(tokenizer.eos).tolist()
    completions = tuple(
        Completion(text=text, ended=end) for text, end in zip(said, ended, strict=True)
    )
    return Samples(prompts=tuple(prompts), completions=completions, texts=texts)


@torch.no_grad()
def sequence_kl(
    model: nn.Module, reference: nn.Module, texts: Completions, *, sampling: Sampling
) -> np.ndarray:
    """[B] log pi(y) - log ref(y) in nats: its mean over samples of pi estimates KL(pi || ref)."""
    about = {"temperature": sampling.temperature or 1.0, "never_said": sampling.never_said}
    gaps = []
    some = rows_at_once(model, tokens=texts.mask.shape[1], most=CHUNK)
    for part in torch.arange(len(texts), device=texts.mask.device).split(some):
        rows = texts.rows(part)
        now, before = logprobs(model, rows, **about), logprobs(reference, rows, **about)  # type: ignore[arg-type]
        gaps.append((now - before).sum(1))
    found: np.ndarray = torch.cat(gaps).double().cpu().numpy()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A policy on some prompts; None: there was nothing to measure it with."""

    length: Estimate
    """Tokens a completion, the end included."""
    ended: Estimate
    """Share of completions that ended by themselves."""
    kl: Estimate | None
    """Nats a sequence, to the reference policy."""
    gold: Estimate | None
    learned: Estimate | None
    """Learned reward."""
    wins: Estimate | None
    """Share of prompts on which its completion beats the other side's."""
    wins_at_matched_length: Estimate | None
    held_out_loss: float | None
    """Nats a token on texts that nobody trained on."""

    def figures(self) -> dict[str, float | list[float] | None]:
        """For JSON: a figure, then its interval, None where one sample gives none."""
        out: dict[str, float | list[float] | None] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, Estimate):
                interval = [value.low, value.high] if math.isfinite(value.low) else None
                out |= {name: value.value, f"{name}_interval": interval}
            elif value is not None:
                out[name] = value
        return out


def evaluate(
    samples: Samples,
    *,
    model: nn.Module,
    sampling: Sampling,
    reference: nn.Module | None = None,
    gold: Gold | None = None,
    learned: Callable[[Samples], Tensor] | None = None,
    against: Samples | None = None,
    same_tokens: bool = True,
    judge: Preferrer | None = None,
    held_out: Encoded | None = None,
) -> Evaluation:
    """Everything that can be said of `samples`, which `model` drew with `sampling`.

    Args:
        reference: the KL is to this policy.
        learned: [B] the learned reward of samples.
        against: completions of the same prompts by the other side, for win rates.
        same_tokens: have both sides one vocabulary? Else lengths are matched in words.
        judge: who decides matches; None: the gold reward does, the higher one wins.
        held_out: texts for the loss.
    """
    wins = None if against is None else matches(samples, against, gold=gold, judge=judge)
    matched = None
    if wins is not None and against is not None:
        sides = (samples, against)
        ours, theirs = (s.lengths if same_tokens else s.words for s in sides)
        matched = win_rate_at_matched_length(wins, ours, theirs)
    kl = None
    if reference is not None:
        kl = mean_of(sequence_kl(model, reference, samples.texts, sampling=sampling))
    ended = np.array([float(c.ended) for c in samples.completions])
    return Evaluation(
        length=mean_of(samples.lengths),
        ended=win_rate(ended),
        kl=kl,
        gold=None if gold is None else mean_of(samples.gold(gold)),
        learned=None if learned is None else mean_of(learned(samples).cpu().numpy()),
        wins=None if wins is None else win_rate(wins),
        wins_at_matched_length=matched,
        held_out_loss=None if held_out is None else language_loss(model, held_out),
    )


def matches(
    samples: Samples, against: Samples, *, gold: Gold | None, judge: Preferrer | None
) -> np.ndarray:
    """[B] 1 where `samples` wins, 0 where `against` does, 1/2 for a tie."""
    if samples.prompts != against.prompts:
        raise UserError("win rate: wanted completions of the same prompts on both sides")
    if judge is not None:
        trio = zip(samples.prompts, against.completions, samples.completions, strict=True)
        p = np.array([judge(prompt, theirs, ours) for prompt, theirs, ours in trio])
        return np.where(p == 0.5, 0.5, p > 0.5)
    if gold is None:
        raise UserError("win rate: wanted a gold reward or a judge to decide the matches")
    ours, theirs = samples.gold(gold), against.gold(gold)
    return np.where(ours == theirs, 0.5, ours > theirs).astype(float)
