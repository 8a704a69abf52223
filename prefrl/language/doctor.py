"""What is wrong with a training run, which and why, as far as its numbers can tell."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from prefrl.language.models import completion_logits, next_token_logp, rows_at_once
from prefrl.language.policy import LanguagePolicy
from prefrl.language.terms import TextExperience
from prefrl.language.tokens import Completions, until_eos

SURE = 6.0  # standard errors; in log-likelihood SURE**2 / 2, the same for a normal distribution
TEMPERATURES = torch.linspace(math.log(0.1), math.log(4.0), 38).exp().tolist()
RATIO = {"fp32": 1e-4, "bf16": 3e-2}
EXPLODED = 100.0  # nats per sequence, where no target is given
ROWS = 256  # completions that are looked at more closely
MISSED = 12.0  # tokens expected and not seen once: by chance, e^-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    name: str
    what: str
    """What the numbers show."""
    why: str
    """The likeliest cause, and what to do."""

    def __str__(self) -> str:
        return f"doctor: {self.what}: {self.why}"

    def plain(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def examine(
    policy: LanguagePolicy,
    figures: dict[str, float],
    *,
    target: float | None,
) -> list[Finding]:
    """After an update: KL and ratio.

    Args:
        figures: of the update.
        target: KL in nats per sequence that beta is steered to, if it is.
    """
    found = [
        _negative_kl(figures),
        _exploding_kl(figures, target),
        _ratio(policy, figures),
    ]
    return [finding for finding in found if finding is not None]


def reward_on_padding(texts: Completions, eos: int) -> Finding | None:
    """Do completions go on after their end, where the score would be put?"""
    beyond = texts.mask & ~until_eos(texts.completion, eos)
    if not beyond.any():
        return None
    row, step = beyond.nonzero()[0].tolist()
    return Finding(
        name="reward_on_padding",
        what=(
            f"{int(beyond.any(1).sum().item())} completions go on after their end token, the first "
            f"of them number {row} at token {step}"
        ),
        why=(
            "the score would be put on what comes last there, which is padding: let the mask end "
            "with the first end token (`prefrl.language.tokens.until_eos`)"
        ),
    )


def sampling(policy: LanguagePolicy, experience: TextExperience) -> list[Finding]:
    """Were the completions drawn from the policy?

    If they were, the surprise -log p of a token is its entropy on average, whatever came
    before, so that the sum of the differences is 0 within its standard error. It needs no more
    than the completions.

    A policy that is all but sure may never have said what it all but never says, and most of its
    entropy is in that: the sum is then many of its own standard errors below 0, and proves
    nothing. So likelihoods decide. Another temperature raises that of tokens which the policy did
    draw by a factor of x with a probability of at most 1 / x, whatever their distribution.
    """
    z = surprise(experience.rollout.logp, experience.entropy, experience.rollout.mask)
    if abs(z) < SURE:
        return []
    side = "likelier" if z < 0 else "less likely"
    what = f"the completions are {side} under the policy than its own would be ({abs(z):.0f} se)"
    drawn = _Drawn.of(policy, experience)
    best = drawn.likeliest_temperature()
    cut = drawn.cut(best)
    if cut:
        why = f"{cut}, where all tokens should have their chance: set top_k 0 and top_p 1"
        return [Finding(name="truncated", what=what, why=why)]
    at = policy.sampling.temperature
    if drawn.likelihood(best) - drawn.likelihood(at) < SURE**2 / 2:
        return []
    if abs(drawn.surprise(best)) < SURE / 2 and not math.isclose(best, at, rel_tol=0.05):
        why = (
            f"they were drawn at temperature {best:.2f} and are trained at {at:g}: use one "
            "temperature for both"
        )
        return [Finding(name="temperature", what=what, why=why)]
    why = (
        "neither another temperature nor a cut explains it: a penalty on repetition, an older "
        "policy, or prompts that were padded or cut otherwise; draw from the present policy"
    )
    return [Finding(name="sampler", what=what, why=why)]


def surprise(logp: Tensor, entropy: Tensor, mask: Tensor) -> float:
    """Sum of -log p - H over its standard error: [B, T] all; a martingale, so about N(0, 1)."""
    excess = (-logp - entropy)[mask]
    spread = excess.square().sum().sqrt().item()
    # a policy that is sure of every token has no spread, and nothing to tell
    return excess.sum().item() / spread if spread > 1e-3 * math.sqrt(len(excess)) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """Tokens that were drawn, and the logits that the policy has for them."""

    logits: Tensor
    """[n, V] of all tokens of some completions."""
    token: Tensor
    """[n]"""
    never_said: tuple[int, ...]

    @classmethod
    def of(cls, policy: LanguagePolicy, experience: TextExperience) -> Self:
        """The first completions."""
        texts: Any = experience.rollout.inputs
        most = rows_at_once(policy.model, tokens=texts.mask.shape[1], most=ROWS)
        texts = texts.rows(torch.arange(min(most, len(texts)), device=policy.device))
        with torch.no_grad(), policy.arithmetic():
            logits = completion_logits(policy.model, texts).logits
        return cls(
            logits=logits[texts.mask],
            token=texts.completion[texts.mask],
            never_said=policy.sampling.never_said,
        )

    def logp(self, temperature: float) -> Tensor:
        """[n, V]"""
        return next_token_logp(self.logits, temperature=temperature, never_said=self.never_said)

    def likeliest_temperature(self) -> float:
        """Under which these tokens are likeliest."""
        return float(max(TEMPERATURES, key=self.likelihood))

    def likelihood(self, temperature: float) -> float:
        """Its logarithm, of all these tokens."""
        return self.logp(temperature).gather(1, self.token.unsqueeze(1)).sum().item()

    def surprise(self, temperature: float) -> float:
        """What is left of it there."""
        logp = self.logp(temperature)
        taken = logp.gather(1, self.token.unsqueeze(1)).squeeze(1)
        entropy = -(logp.exp() * logp).sum(1)
        return surprise(taken, entropy, torch.ones_like(taken, dtype=torch.bool))

    def cut(self, temperature: float) -> str | None:
        """Are unlikely tokens missing that should have come up many times?"""
        p, order = self.logp(temperature).exp().sort(1, descending=True)
        rank = (order == self.token.unsqueeze(1)).int().argmax(1)
        deepest = int(rank.max().item())
        before = p.cumsum(1) - p
        rows = torch.arange(len(rank), device=rank.device)
        least_likely = before[rows, rank].max().item()
        missed = max(p[:, deepest + 1 :].sum().item(), p[before > least_likely].sum().item())
        if missed < MISSED:
            return None
        return (
            f"no token beyond the {deepest + 1} likeliest, or beyond {least_likely:.0%} of the "
            "probability, was ever drawn (top_k, top_p)"
        )


def _negative_kl(figures: dict[str, float]) -> Finding | None:
    kl, error = figures["lm/kl"], figures["lm/kl_standard_error"]
    if not kl < -SURE * error or kl > -1e-3:
        return None
    return Finding(
        name="negative_kl",
        what=f"the KL to the reference is {kl:.3g} nats per sequence, and cannot be negative",
        why=(
            "the completions do not come from the policy as it is scored: they were drawn with "
            "top_k or top_p, at another temperature, or padded otherwise than they are read"
        ),
    )


def _exploding_kl(figures: dict[str, float], target: float | None) -> Finding | None:
    kl, limit = figures["lm/kl"], EXPLODED if target is None else 10 * target
    if not kl > limit:
        return None
    beta, spread = figures["lm/beta"], figures["lm/score_std"]
    cause = (
        "there is no KL penalty: set beta"
        if beta == 0
        else f"the scores spread by {spread:.3g}, which at beta {beta:.3g} pays for "
        f"{spread / beta:.0f} nats: raise beta, normalise the rewards, or lower ppo.lr"
    )
    return Finding(
        name="exploding_kl",
        what=f"the KL to the reference is {kl:.0f} nats per sequence, over {limit:.0f}",
        why=cause,
    )


def _ratio(policy: LanguagePolicy, figures: dict[str, float]) -> Finding | None:
    deviation = figures["ppo/first_ratio_deviation"]
    if not deviation > RATIO[policy.precision]:
        return None
    drops = [
        name
        for name, module in policy.named_modules()
        if isinstance(module, nn.Dropout) and module.training and module.p > 0
    ]
    cause = (
        f"dropout is on in {drops[0]} (and {len(drops)} places in all): switch it off"
        if drops
        else "the log-probabilities are of another policy, temperature or precision than those of "
        "the update: collect anew before each update"
    )
    return Finding(
        name="ratio",
        what=f"before anything was learned the ratio is off 1 by {deviation:.2g} on average",
        why=cause,
    )
