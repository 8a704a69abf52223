"""What is wrong with a training run, which and why, as far as its numbers can tell."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from prefrl.language.policy import LanguagePolicy
from prefrl.language.terms import TextExperience

SURE = 6.0  # standard errors
TEMPERATURES = torch.linspace(math.log(0.1), math.log(4.0), 38).exp().tolist()
RATIO = {"fp32": 1e-4, "bf16": 3e-2}
EXPLODED = 100.0  # nats per sequence, where no target is given
ROWS = 64  # completions on which temperatures are tried


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
    experience: TextExperience,
    figures: dict[str, float],
    *,
    target: float | None,
) -> list[Finding]:
    """After an update: KL, ratio and place of the reward.

    Args:
        experience: with the reward terms added.
        figures: of the update.
        target: KL in nats per sequence that beta is steered to, if it is.
    """
    found = [
        _negative_kl(figures),
        _exploding_kl(figures, target),
        _ratio(policy, figures),
        reward_on_padding(experience),
    ]
    return [finding for finding in found if finding is not None]


def sampling(policy: LanguagePolicy, experience: TextExperience) -> list[Finding]:
    """Were the completions drawn from the policy?

    If they were, the surprise -log p of a token is its entropy on average, whatever came
    before, so that the sum of the differences is 0 within its standard error. It needs no more
    than the completions.
    """
    z = surprise(experience.rollout.logp, experience.entropy, experience.rollout.mask)
    if abs(z) < SURE:
        return []
    side = "likelier" if z < 0 else "less likely"
    what = f"the completions are {side} under the policy than its own would be ({abs(z):.0f} se)"
    best, left = likeliest_temperature(policy, experience)
    at = policy.sampling.temperature
    if abs(left) < SURE / 2 and not math.isclose(best, at, rel_tol=0.05):
        why = (
            f"they were drawn at temperature {best:.2f} and are trained at {at:g}: use one "
            "temperature for both"
        )
        return [Finding(name="temperature", what=what, why=why)]
    why = (
        "no temperature explains it: truncated sampling (top_k, top_p), a penalty on repetition, "
        "an older policy, or prompts that were padded or cut otherwise; draw from the whole "
        "distribution of the present policy"
    )
    return [Finding(name="sampler", what=what, why=why)]


def surprise(logp: Tensor, entropy: Tensor, mask: Tensor) -> float:
    """Sum of -log p - H over its standard error: [B, T] all; a martingale, so about N(0, 1)."""
    excess = (-logp - entropy)[mask]
    spread = excess.square().sum().sqrt().item()
    # a policy that is sure of every token has no spread, and nothing to tell
    return excess.sum().item() / spread if spread > 1e-3 * math.sqrt(len(excess)) else 0.0


def likeliest_temperature(
    policy: LanguagePolicy, experience: TextExperience
) -> tuple[float, float]:
    """The temperature under which the completions are likeliest, and the surprise left there."""
    rows = torch.arange(min(ROWS, len(experience.completions)), device=policy.device)
    texts = experience.rollout.inputs.rows(rows)
    tried = []
    for temperature in TEMPERATURES:
        with torch.no_grad():
            now = policy.evaluate(texts, temperature=temperature)  # type: ignore[arg-type]
        mask = experience.rollout.mask[rows]
        tried.append((now.logp[mask].sum().item(), temperature, now, mask))
    _, best, now, mask = max(tried, key=lambda row: row[0])
    return best, surprise(now.logp, now.entropy, mask)


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


def reward_on_padding(experience: TextExperience) -> Finding | None:
    """Is there reward where nothing was said?"""
    rollout = experience.rollout
    on_padding = (~rollout.mask) & (rollout.reward != 0)
    if not on_padding.any():
        return None
    row, step = on_padding.nonzero()[0].tolist()
    last = int(rollout.mask[row].sum().item()) - 1
    return Finding(
        name="reward_on_padding",
        what=(
            f"{int(on_padding.sum().item())} padding tokens have a reward, the first in completion "
            f"{row} at token {step}, where its last one is {last}"
        ),
        why="no loss sees padding, so it is lost: put the score on the last real token, EOS",
    )
