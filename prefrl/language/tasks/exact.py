"""*Exact*: a language so small that every completion can be written down.

S symbols and EOS, at most T tokens: with the usual 10 and 5, 111,111 completions of one prompt.
So the KL-regularised optimum, the KL itself and the whole frontier of reward against KL are
sums, and an algorithm can be shown to reach them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefrl.language.models import completion_logits, new_model, next_token_logp
from prefrl.language.policy import Sampling
from prefrl.language.tokenizer import Tokenizer, train_tokenizer
from prefrl.language.tokens import Completions, Prompts

PROMPT = ""  # BOS alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The language, all its completions and what each is worth."""

    tokenizer: Tokenizer
    symbols: tuple[int, ...]
    """[S] ids."""
    completions: Completions
    """[N, T] all of them: those that end early, by length, then those that are cut off."""
    reward: Tensor
    """[N] float64; mean 0 and deviation 1 over uniform completions."""

    @property
    def length(self) -> int:
        """T, tokens of a completion at most."""
        return self.completions.completion.shape[1]

    def prompts(self, count: int) -> Prompts:
        """The one prompt, `count` times."""
        return self.completions.prompts.rows(torch.zeros(count, dtype=torch.int64))

    def index(self, texts: Completions) -> Tensor:
        """[B] which completion each is: its place in `completions`."""
        S, T = len(self.symbols), self.length
        place = torch.full((self.tokenizer.size,), -1)
        place[list(self.symbols)] = torch.arange(S)
        digits = place[texts.completion]
        said = texts.mask & (texts.completion != self.tokenizer.eos)
        number = torch.zeros(len(texts), dtype=torch.int64)
        for t in range(digits.shape[1]):
            number = torch.where(said[:, t], number * S + digits[:, t], number)
        shorter = torch.tensor([(S**d - 1) // (S - 1) for d in range(T + 1)])
        return number + shorter[said.sum(1)]

    def score(self, texts: Completions) -> Tensor:
        """[B] the reward of each."""
        return self.reward[self.index(texts)].float()


def exact_task(*, symbols: int = 10, length: int = 5, seed: int) -> Exact:
    """The task with a reward drawn by `seed`: a weight for each symbol and each pair in a row."""
    words = [chr(ord("a") + i) for i in range(symbols)]
    tokenizer = train_tokenizer([" ".join(words)], kind="words")
    ids = tuple(tokenizer.encode(" ".join(words)))
    completions = _all(ids, length, tokenizer)
    return Exact(
        tokenizer=tokenizer,
        symbols=ids,
        completions=completions,
        reward=_reward(completions, tokenizer, seed=seed),
    )


def reference_model(
    task: Exact, *, kind: Literal["llama", "gpt2"] = "llama", width: int = 64, seed: int
) -> nn.Module:
    """A small model with an opinion: random weights, the last layer's five times as large."""
    model = new_model(
        kind, task.tokenizer, width=width, layers=2, positions=task.length + 1, seed=seed
    )
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        head.weight *= 5
    return model


def sequence_logp(model: nn.Module, task: Exact, sampling: Sampling) -> Tensor:
    """[N] log-probability of each completion, in float64.

    One forward pass over the S^(T-1) longest prefixes gives every next-token distribution.
    """
    S, T = len(task.symbols), task.length
    first = (S ** (T - 1) - 1) // (S - 1)  # completions of fewer than T - 1 symbols
    prefixes = task.completions.rows(torch.arange(first, first + S ** (T - 1)))
    with torch.no_grad():
        logits = completion_logits(model, _whole(prefixes)).logits
    logp = next_token_logp(
        logits, temperature=sampling.temperature, never_said=sampling.never_said
    ).double()
    symbols, end = logp[..., list(task.symbols)], logp[..., task.tokenizer.eos]
    before = torch.zeros(1, dtype=torch.float64)
    parts = []
    for t in range(T):
        every = S ** (T - 1 - t)  # prefixes that begin with the same t symbols stand together
        parts.append(before + end[::every, t])
        before = (before.unsqueeze(1) + symbols[::every, t]).flatten()
    return torch.cat([*parts, before])


def optimum(reference: Tensor, reward: Tensor, *, beta: float) -> Tensor:
    """[N] log-probabilities of the policy that maximises E[reward] - beta KL.

    It is reference * exp(reward / beta) / Z, and its value beta log Z.
    """
    tilted = reference + reward / beta
    return tilted - tilted.logsumexp(0)


def best_of(reference: Tensor, reward: Tensor, *, n: int) -> Tensor:
    """[N] log-probabilities of the best of n draws; ties go by the reference.

    With F the reference's distribution function of the reward, F(<=)^n - F(<)^n for each value.
    """
    values, inverse = reward.unique(return_inverse=True)
    mass = torch.zeros(len(values), dtype=reference.dtype).index_add(0, inverse, reference.exp())
    upto = mass.cumsum(0).clamp(max=1.0)
    law = upto**n - (upto - mass).clamp(min=0.0) ** n
    return reference + (law / mass).log()[inverse]


def kl(p: Tensor, q: Tensor) -> float:
    """KL(p || q) in nats of log-probabilities [N]."""
    return torch.where(p > -math.inf, p.exp() * (p - q), 0.0).sum().item()


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the sum of |p - q|, of log-probabilities [N]: the largest difference of any event."""
    return 0.5 * (p.exp() - q.exp()).abs().sum().item()


def expected(p: Tensor, x: Tensor) -> float:
    """E[x] under log-probabilities p: [N] both."""
    return (p.exp() * x).sum().item()


def frontier(reference: Tensor, reward: Tensor, *, betas: Tensor) -> tuple[Tensor, Tensor]:
    """KL [n] and expected reward [n] of the optimum at each beta: no policy does better."""
    best = [optimum(reference, reward, beta=float(beta)) for beta in betas]
    divergences = torch.tensor([kl(p, reference) for p in best])
    return divergences, torch.tensor([expected(p, reward) for p in best])


def _all(symbols: tuple[int, ...], length: int, tokenizer: Tokenizer) -> Completions:
    S, N = len(symbols), sum(len(symbols) ** t for t in range(length + 1))
    ids = torch.full((N, length), tokenizer.pad)
    mask = torch.zeros(N, length, dtype=torch.bool)
    start = 0
    for t in range(length + 1):
        rows = slice(start, start + S**t)
        powers = torch.tensor([S**k for k in reversed(range(t))], dtype=torch.int64)
        digits = torch.arange(S**t).unsqueeze(1) // powers % S
        ids[rows, :t] = torch.tensor(symbols)[digits]
        ids[rows, t : t + 1] = tokenizer.eos  # where it fits
        mask[rows, : t + 1] = True
        start += S**t
    prompt = torch.tensor([tokenizer.encode_prompt(PROMPT)]).expand(N, -1)
    return Completions(
        prompt=prompt, prompt_mask=torch.ones_like(prompt) == 1, completion=ids, mask=mask
    )


def _reward(texts: Completions, tokenizer: Tokenizer, *, seed: int) -> Tensor:
    """[N] float64."""
    generator = torch.Generator().manual_seed(seed)
    V = tokenizer.size
    each = torch.randn(V, generator=generator, dtype=torch.float64)
    pairs = torch.randn(V, V, generator=generator, dtype=torch.float64)
    said = texts.mask & (texts.completion != tokenizer.eos)
    ids = texts.completion
    reward = torch.where(said, each[ids], 0.0).sum(1)
    reward += torch.where(said[:, 1:], pairs[ids[:, :-1], ids[:, 1:]], 0.0).sum(1)
    return (reward - reward.mean()) / reward.std()


def _whole(texts: Completions) -> Completions:
    """The prefixes as if nothing were padding: what is said at their end does not matter."""
    return Completions(
        prompt=texts.prompt,
        prompt_mask=texts.prompt_mask,
        completion=texts.completion,
        mask=torch.ones_like(texts.mask),
    )
