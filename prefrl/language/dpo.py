"""Direct methods: fit the policy on the labels themselves, without a reward model or sampling.

With u(y) = log pi(y|x) - log ref(y|x), summed over tokens, and h = u(chosen) - u(rejected):

    dpo     -log sigmoid(beta h)                            Rafailov et al. 2023, arXiv:2305.18290
    cdpo    (1 - e) dpo(h) + e dpo(-h)                      Mitchell 2023: a bounded gap
    robust  ((1 - e) dpo(h) - e dpo(-h)) / (1 - 2 e)        Chowdhury et al. 2024: unbiased
    ipo     (h - 1 / (2 beta))^2                            Azar et al. 2023, arXiv:2310.12036
    kto     from single completions found good or bad       Ethayarajh et al. 2024, arXiv:2402.01306

beta u is the learned reward that such a policy implies: a preference of p for the second enters as
what it says of beta u, hence soft labels, rankings (all pairs, or Plackett-Luce) and noise need no
code of their own. Over pairs that cover everything, dpo's optimum is the KL-regularised one,
ref e^(r / beta) / Z; on deterministic answers it has none, and only stopping early holds it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefrl.errors import UserError, refuse_idle
from prefrl.feedback import Rating
from prefrl.language.encoded import Encoded, flat
from prefrl.language.models import logprobs, rows_at_once
from prefrl.language.optimise import Sums, Units
from prefrl.language.reward import EncodedLabels
from prefrl.language.verdicts import (
    RankingLoss,
    Verdicts,
    pair_accuracy,
    read_verdicts,
    verdict_loss,
)

CHUNK = 256  # completions a forward of the reference
USED_BY = {"noise": ("cdpo", "robust"), "good_weight": ("kto",), "bad_weight": ("kto",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectConfig:
    """Which direct method, and its settings."""

    loss: Literal["dpo", "cdpo", "robust", "ipo", "kto"] = "dpo"
    """What is minimised."""
    beta: float = 0.1
    """Weight of the KL to the reference in the objective it stands for: larger stays closer."""
    noise: float = 0.1
    """e, the share of answers taken to be flipped (cdpo and robust only)."""
    rankings: RankingLoss = "pairs"
    """Of K completions: the mean over all pairs, or Plackett-Luce (dpo only)."""
    good_weight: float = 1.0
    """Weight of completions found good (kto only)."""
    bad_weight: float = 1.0
    """Weight of completions found bad (kto only)."""

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(f"beta: got {self.beta}, wanted more than 0")
        if not 0 <= self.noise < 0.5:
            raise UserError(f"noise: got {self.noise}, wanted 0 to below .5")
        for name in ("good_weight", "bad_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        defaults = {f.name: f.default for f in fields(self)}
        for name, users in USED_BY.items():
            if self.loss not in users:
                beside = f"{self.loss}, not {' or '.join(users)}"
                refuse_idle(name, getattr(self, name), defaults[name], beside=beside)
        if self.rankings != "pairs" and self.loss != "dpo":
            raise UserError(f"rankings: {self.loss} is defined on pairs; wanted rankings = pairs")


def direct_loss(log_ratio: Tensor, verdicts: Verdicts, config: DirectConfig) -> Tensor:
    """[C] u of every completion -> [n] loss of every label; "kto" has `kto_loss`."""
    scores = config.beta * log_ratio
    if config.loss == "ipo":
        return _ipo(log_ratio, verdicts, config.beta)
    as_said = verdict_loss(scores, verdicts, rankings=config.rankings)
    if config.loss == "dpo":
        return as_said
    turned = replace(verdicts, target=1 - verdicts.target)
    opposite = verdict_loss(scores, turned, rankings="pairs")
    e = config.noise
    if config.loss == "cdpo":
        return (1 - e) * as_said + e * opposite
    return ((1 - e) * as_said - e * opposite) / (1 - 2 * e)


def _ipo(log_ratio: Tensor, verdicts: Verdicts, beta: float) -> Tensor:
    """Squared distance of h to its target; a preference of p for the second wants
    (p - 1/2) / beta, which is what the mean over draws from p is minimised at."""
    h = log_ratio[verdicts.pairs[:, 1]] - log_ratio[verdicts.pairs[:, 0]]
    target, weight = verdicts.target.to(h.dtype), verdicts.weight.to(h.dtype)
    each = weight * (h - (target - 0.5) / beta).square()
    return log_ratio.new_zeros(verdicts.labels).index_add(0, verdicts.of, each)


def kto_loss(log_ratio: Tensor, good: Tensor, baseline: Tensor, config: DirectConfig) -> Tensor:
    """Value lost by each completion.

    Args:
        log_ratio: [n] u of each completion.
        good: [n] bool
        baseline: scalar z0 = max(0, KL(pi || ref)), without gradient: what gain is measured from.
    """
    gain = config.beta * torch.where(good, log_ratio - baseline, baseline - log_ratio)
    weight = torch.where(good, config.good_weight, config.bad_weight)
    return weight * (1 - torch.sigmoid(gain))


@torch.no_grad()
def sequence_logp(model: nn.Module, texts: Encoded) -> Tensor:
    """[C] log-probability of every completion, summed over its tokens."""
    device = next(model.parameters()).device
    longest = max(len(completion) for completion in texts.completions)
    parts = torch.arange(len(texts)).split(rows_at_once(model, tokens=longest, most=CHUNK))
    sums = [logprobs(model, texts.batch(flat(part)).to(device)).sum(1) for part in parts]
    return torch.cat(sums)


class DirectObjective:
    """DPO and its kin on labels.

    Args:
        model: the policy, a causal language model; it starts as a copy of the reference.
        reference: [C] log-probability of every completion under the reference, computed once.
    """

    def __init__(
        self, model: nn.Module, data: EncodedLabels, reference: Tensor, config: DirectConfig
    ) -> None:
        if config.loss == "kto":
            raise UserError("kto learns from single completions: wanted labels good or bad")
        if any(isinstance(label.verdict, Rating) for label in data.labels):
            raise UserError(
                "direct methods compare completions: got ratings of single ones; fit a reward "
                "model on them, or leave them out"
            )
        self.model, self.data, self.reference, self.config = model, data, reference, config

    def __len__(self) -> int:
        return len(self.data)

    def shared(self, index: Tensor) -> Units:
        """Units are labels."""
        return Units(units=len(index))

    def sums(self, index: Tensor, shared: Units) -> Sums:
        """Loss; accuracy and margin of the implied reward; and log-probabilities of both sides.

        The chosen one's may fall while the loss falls, as long as the rejected one's falls more.
        """
        chosen = flat(index)
        places = self.data.places(chosen)
        device = self.reference.device
        texts = self.data.texts.batch(places).to(device)
        verdicts = read_verdicts([self.data.labels[i] for i in chosen]).to(device)
        logp = logprobs(self.model, texts).sum(1)
        log_ratio = logp - self.reference[torch.tensor(places, device=device)]
        loss = direct_loss(log_ratio, verdicts, self.config)
        return Sums(loss=loss.sum(), figures=_figures(logp, log_ratio, verdicts, self.config.beta))


def _figures(logp: Tensor, log_ratio: Tensor, verdicts: Verdicts, beta: float) -> dict[str, Tensor]:
    """Sums over labels."""
    logp, log_ratio = logp.detach(), log_ratio.detach()
    first, second = verdicts.pairs.T
    sign = (2 * verdicts.target - 1) * verdicts.weight
    swapped = (verdicts.target > 0.5).unsqueeze(-1)
    better, worse = torch.where(swapped, verdicts.pairs.flip(-1), verdicts.pairs).T
    return {
        "accuracy": pair_accuracy(log_ratio, verdicts).sum(),
        "margin": beta * (sign * (log_ratio[second] - log_ratio[first])).sum(),
        "chosen_logp": (verdicts.weight * logp[better]).sum(),
        "rejected_logp": (verdicts.weight * logp[worse]).sum(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class KtoShared:
    """Of one batch."""

    units: float
    baseline: Tensor
    """Scalar z0."""
    good: int
    """How many of them are."""


class KtoObjective:
    """KTO on completions found good or bad.

    z0 is estimated on the batch from completions of other prompts, which the policy has not
    learned for these: each completion is read once more after the next prompt that is another.

    Args:
        reference_model: None: the model without its adapters.
    """

    def __init__(
        self,
        model: nn.Module,
        reference_model: nn.Module | None,
        texts: Encoded,
        good: Tensor,
        config: DirectConfig,
    ) -> None:
        if len(texts) < 2:
            raise UserError(f"kto: got {len(texts)} completions, wanted 2 or more")
        self.model, self.reference_model = model, reference_model
        self.texts, self.good, self.config = texts, good, config
        self.reference = self._before(texts)

    def __len__(self) -> int:
        return len(self.texts)

    def shared(self, index: Tensor) -> KtoShared:
        """Units are completions."""
        chosen = flat(index)
        mismatched = Encoded(
            prompts=self._others([self.texts.prompts[i] for i in chosen]),
            completions=[self.texts.completions[i] for i in chosen],
            pad=self.texts.pad,
        )
        now = sequence_logp(self.model, mismatched)
        before = self._before(mismatched)
        return KtoShared(
            units=len(chosen),
            baseline=(now - before).mean().clamp_min(0),
            good=int(self.good[index].sum()),
        )

    def _before(self, texts: Encoded) -> Tensor:
        """[C] log-probabilities under the reference."""
        if self.reference_model is not None:
            return sequence_logp(self.reference_model, texts)
        model: Any = self.model
        with model.disable_adapter():
            return sequence_logp(model, texts)

    def _others(self, prompts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """For each the next one of the batch that differs, or of all the data, if there is any."""
        n, found = len(prompts), []
        for i, prompt in enumerate(prompts):
            following = (prompts[(i + k) % n] for k in range(1, n))
            candidates = itertools.chain(following, self.texts.prompts)
            found.append(next((other for other in candidates if other != prompt), prompt))
        return found

    def sums(self, index: Tensor, shared: KtoShared) -> Sums:
        """Loss, and mean implied rewards of good and of bad ones, where there are any."""
        device = self.reference.device
        texts = self.texts.batch(flat(index)).to(device)
        log_ratio = logprobs(self.model, texts).sum(1) - self.reference[index.to(device)]
        good = self.good[index].to(device)
        loss = kto_loss(log_ratio, good, shared.baseline, self.config)
        implied = self.config.beta * log_ratio.detach()
        figures = {"baseline": shared.baseline * len(index)}
        for name, of, count in (
            ("good_reward", good, shared.good),
            ("bad_reward", ~good, int(shared.units) - shared.good),
        ):
            if count:  # a mean over these, where all is divided by `units`
                figures[name] = torch.where(of, implied, 0.0).sum() * shared.units / count
        return Sums(loss=loss.sum(), figures=figures)
