"""Prompts and completions as token ids.

    prompt      [[ PAD PAD  7  8 ]]    padded on the left, so that all completions begin together
    completion  [[  9   4 EOS PAD ]]   padded on the right
    mask        [[  1   1   1   0 ]]   True up to and including EOS: what was really said

What is padding follows from the masks alone, never from the ids: a policy may say PAD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prefrl.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What completions begin from."""

    ids: Tensor
    """[B, P] int64, padded on the left."""
    mask: Tensor
    """[B, P] bool, False for padding."""

    def __post_init__(self) -> None:
        _check(self.ids, self.mask, "Prompts")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, index: Tensor) -> Prompts:
        """The prompts `index` [n]."""
        return Prompts(ids=self.ids[index], mask=self.mask[index])

    def repeat(self, times: int) -> Prompts:
        """Each prompt `times` in a row: [B * times, P]."""
        return Prompts(
            ids=self.ids.repeat_interleave(times, 0), mask=self.mask.repeat_interleave(times, 0)
        )

    def to(self, device: torch.device) -> Prompts:
        """The same on `device`."""
        return Prompts(ids=self.ids.to(device), mask=self.mask.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Completions:
    """Prompts with what followed them: the inputs of a language policy or a reward model."""

    prompt: Tensor
    """[B, P] int64, padded on the left."""
    prompt_mask: Tensor
    """[B, P] bool."""
    completion: Tensor
    """[B, T] int64, padded on the right."""
    mask: Tensor
    """[B, T] bool, True up to and including EOS."""

    def __post_init__(self) -> None:
        _check(self.prompt, self.prompt_mask, "Completions.prompt")
        _check(self.completion, self.mask, "Completions.completion")
        assert len(self.prompt) == len(self.completion)

    def __len__(self) -> int:
        return len(self.completion)

    @property
    def ids(self) -> Tensor:
        """[B, P + T] prompt and completion."""
        return torch.cat([self.prompt, self.completion], 1)

    @property
    def attention(self) -> Tensor:
        """[B, P + T] bool, False for padding on either side."""
        return torch.cat([self.prompt_mask, self.mask], 1)

    @property
    def lengths(self) -> Tensor:
        """[B] tokens of each completion, EOS included."""
        return self.mask.sum(1)

    @property
    def prompts(self) -> Prompts:
        """Without what followed."""
        return Prompts(ids=self.prompt, mask=self.prompt_mask)

    def ended(self, eos: int) -> Tensor:
        """[B] bool: was EOS said, or was the completion cut off?"""
        return (self.mask & (self.completion == eos)).any(1)

    def rows(self, index: Tensor) -> Completions:
        """The completions `index` [n]."""
        return Completions(
            prompt=self.prompt[index],
            prompt_mask=self.prompt_mask[index],
            completion=self.completion[index],
            mask=self.mask[index],
        )

    def by_step(self) -> Completions:
        """Refused: a token means nothing without those before it."""
        raise UserError("a language policy has memory: wanted PPO with rows='sequences'")

    def to(self, device: torch.device) -> Completions:
        """The same on `device`."""
        return Completions(
            prompt=self.prompt.to(device),
            prompt_mask=self.prompt_mask.to(device),
            completion=self.completion.to(device),
            mask=self.mask.to(device),
        )


def prompts_of(sequences: Sequence[Sequence[int]], *, pad: int) -> Prompts:
    """Token ids of prompts -> [B, P].

    >>> prompts_of([[5], [6, 7]], pad=0).ids.tolist()
    [[0, 5], [6, 7]]

    Raises:
        UserError: a prompt without tokens, of which no model can predict the next.
    """
    _refuse_empty(sequences, "prompt")
    ids, mask = _padded(sequences, pad=pad, left=True)
    return Prompts(ids=ids, mask=mask)


def completions_of(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, pad: int
) -> Completions:
    """Token ids of prompts and of what followed each, EOS included where it was said.

    >>> texts = completions_of([[5], [6, 7]], [[8, 1], [1]], pad=0)
    >>> texts.ids.tolist(), texts.mask.tolist()
    ([[0, 5, 8, 1], [6, 7, 1, 0]], [[True, True], [True, False]])

    Raises:
        UserError: a prompt or a completion without tokens.
    """
    _refuse_empty(completions, "completion")
    before = prompts_of(prompts, pad=pad)
    ids, mask = _padded(completions, pad=pad, left=False)
    return Completions(prompt=before.ids, prompt_mask=before.mask, completion=ids, mask=mask)


def joined(parts: Sequence[Completions], *, pad: int) -> Completions:
    """Parts of one prompt width as one, padded to the longest completion."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.completion.shape[1] for part in parts)

    def wide(x: Tensor, value: int | bool) -> Tensor:
        return F.pad(x, (0, width - x.shape[1]), value=value)

    return Completions(
        prompt=torch.cat([part.prompt for part in parts]),
        prompt_mask=torch.cat([part.prompt_mask for part in parts]),
        completion=torch.cat([wide(part.completion, pad) for part in parts]),
        mask=torch.cat([wide(part.mask, False) for part in parts]),
    )


def check_padding(texts: Prompts | Completions) -> None:
    """Is padding where the models take it to be?

    Raises:
        UserError: prompts are padded on the right, as tokenizers do by themselves, completions on
            the left, or there are gaps.
    """
    prompts = texts.prompts if isinstance(texts, Completions) else texts
    _check_side(prompts.mask.flip(1), "prompt", "left")
    if isinstance(texts, Completions):
        _check_side(texts.mask, "completion", "right")


def until_eos(completion: Tensor, eos: int) -> Tensor:
    """[B, T] ids -> [B, T] bool, True up to and including the first EOS.

    >>> until_eos(torch.tensor([[5, 1, 5], [5, 5, 5]]), eos=1).tolist()
    [[True, True, False], [True, True, True]]
    """
    is_eos = (completion == eos).long()
    return is_eos.cumsum(1) - is_eos == 0


def at_end(x: Tensor, mask: Tensor) -> Tensor:
    """[B, T] -> [B] the value at the last unmasked step of each row.

    >>> at_end(torch.tensor([[1, 2, 3]]), torch.tensor([[True, True, False]])).tolist()
    [2]
    """
    last = mask.sum(1, keepdim=True) - 1
    return x.gather(1, last).squeeze(1)


def place_at_end(x: Tensor, mask: Tensor) -> Tensor:
    """[B] -> [B, T] zero but for the last unmasked step of each row.

    >>> place_at_end(torch.tensor([9.0]), torch.tensor([[True, True, False]])).tolist()
    [[0.0, 9.0, 0.0]]
    """
    last = mask.sum(1, keepdim=True) - 1
    return x.new_zeros(mask.shape).scatter(1, last, x.unsqueeze(1))


def _padded(rows: Sequence[Sequence[int]], *, pad: int, left: bool) -> tuple[Tensor, Tensor]:
    """[B, width] ids and mask."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, where] = torch.tensor(list(row))
        mask[i, where] = True
    return ids, mask


def _check_side(mask: Tensor, what: str, side: str) -> None:
    """[B, width], True first and then False, in the order from the end without padding."""
    good = mask[:, 0] & (mask[:, 1:] <= mask[:, :-1]).all(1)
    if not good.all():
        row = int((~good).nonzero()[0].item())
        raise UserError(
            f"{what} {row}: got padding elsewhere than on the {side}, or nothing else; wanted "
            f"{what}s padded on the {side} (prefrl.language.tokens)"
        )


def _refuse_empty(rows: Sequence[Sequence[int]], what: str) -> None:
    if not rows:
        raise UserError(f"{what}s: got none, wanted at least one")
    for i, row in enumerate(rows):
        if not len(row):
            raise UserError(f"{what} {i}: got no tokens, wanted at least one")


def _check(ids: Tensor, mask: Tensor, name: str) -> None:
    assert ids.ndim == 2, f"{name}: got {ids.ndim} axes, wanted 2"
    assert ids.shape == mask.shape, f"{name}: {ids.shape} and {mask.shape}"
    assert mask.dtype == torch.bool, f"{name}: got a mask of {mask.dtype}, wanted bool"
