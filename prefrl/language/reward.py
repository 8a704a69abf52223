"""Reward models of text: the SFT model's trunk with one number, read at the end token.

Fitted on preferences, rankings and ratings alike (`prefrl.language.verdicts`). An ensemble has E
members, each its own trunk and head, fitted on its own bootstrap of the labels, as the ensembles
of games are (`prefrl.rewards.bank`); the learned reward of a completion is

    mean over members of the normalised score  -  pessimism * their standard deviation

where each member's score is first brought to mean 0 and standard deviation 1 on reference
completions: `beta` of the KL penalty means nothing before the spread of the reward is fixed.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prefrl.errors import UserError
from prefrl.language.encoded import Encoded, Limits, encode, fitting, flat
from prefrl.language.lora import adapted, merged
from prefrl.language.models import ScalarModel, check_room, make_room, refuse_pickles
from prefrl.language.optimise import Fit, OptimConfig, Sums, Units
from prefrl.language.records import Completion, TextLabel
from prefrl.language.tokenizer import Tokenizer, first_line, load_tokenizer
from prefrl.language.tokens import Completions
from prefrl.language.verdicts import RankingLoss, pair_accuracy, read_verdicts, verdict_loss
from prefrl.rewards import bootstrap_counts

ABOUT, WEIGHTS = "text_reward.json", "text_reward.safetensors"
CHUNK = 256  # completions a forward when scoring
UNLIMITED = Limits(max_prompt=sys.maxsize, max_completion=sys.maxsize)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRewardConfig:
    """The reward model and its likelihood."""

    members: int = 1
    """E: several disagree where they do not know, at E times the cost."""
    pessimism: float = 0.0
    """Standard deviations over members taken off their mean: the lower confidence bound for
    optimising against fixed data (Coste et al. 2023: 4 or 5 members will do)."""
    normalise: bool = True
    """Mean 0 and standard deviation 1 on reference completions; False: raw scores."""
    rankings: RankingLoss = "pairs"
    """Of K completions: the mean over all pairs (Ouyang et al. 2022), or Plackett-Luce."""
    error: float = 0.0
    """Share of answers assumed to be drawn at random, inside the likelihood."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise UserError(f"members: got {self.members}, wanted 1 or more")
        if self.pessimism and self.members < 2:
            raise UserError("pessimism needs members that can disagree: set members to 2 or more")
        if not 0 <= self.error < 1:
            raise UserError(f"error: got {self.error}, wanted 0 to below 1")


class TextRewardModel(nn.Module):
    """E scalar models and their normaliser; `score` is the learned reward."""

    mean: Tensor
    std: Tensor

    def __init__(self, members: Sequence[ScalarModel], config: TextRewardConfig) -> None:
        super().__init__()
        assert len(members) == config.members
        self.members = nn.ModuleList(members)
        self.config = config
        self.register_buffer("mean", torch.zeros(len(members)))
        self.register_buffer("std", torch.ones(len(members)))

    @classmethod
    def from_sft(cls, model: nn.Module, config: TextRewardConfig, *, seed: int) -> Self:
        """Copies of the SFT model's trunk, each under a head of its own, N(0, 1/sqrt(d + 1))."""
        generator = torch.Generator().manual_seed(seed)
        members = [
            ScalarModel(copy.deepcopy(model), generator=generator) for _ in range(config.members)
        ]
        return cls(members, config).to(next(model.parameters()).device)

    def adapt(self, config: OptimConfig) -> None:
        """Of each trunk train adapters alone, where the settings say so; heads always learn."""
        for e, member in enumerate(self.members):
            member.trunk = adapted(
                member.trunk,
                rank=config.lora_rank,
                alpha=config.lora_alpha,
                seed=config.seed + e,
                generates=False,
            )

    def merge(self) -> None:
        """What adapters do goes into the weights."""
        for member in self.members:
            member.trunk = merged(member.trunk)

    def raw(self, texts: Completions) -> Tensor:
        """[E, B] scores of every member at the last token, which is the end token."""
        return torch.stack([m.at_end(texts) for m in self.members])  # type: ignore[operator]

    @torch.no_grad()
    def score(self, texts: Completions) -> Tensor:
        """[B] learned reward of each completion."""
        index = torch.arange(len(texts), device=texts.mask.device)
        raw = torch.cat([self.raw(texts.rows(part)) for part in index.split(CHUNK)], dim=1)
        normalised = (raw - self.mean[:, None]) / self.std[:, None]
        mean = normalised.mean(0)
        if self.config.pessimism:
            mean = mean - self.config.pessimism * normalised.std(0, correction=0)
        return mean

    @property
    def most(self) -> int | None:
        """Tokens that it can read at all: a table of positions ends, rotary ones do not."""
        trunk: Any = self.members[0].trunk
        words = trunk.get_input_embeddings()
        tables = [m for m in trunk.modules() if isinstance(m, nn.Embedding) and m is not words]
        return trunk.config.max_position_embeddings if tables else None

    def check_room(self, tokenizer: Tokenizer, prompts: Sequence[str], *, cap: int) -> None:
        """Raises UserError where the longest prompt and `cap` tokens more cannot be read."""
        check_room(self.members[0].trunk, tokenizer, prompts, cap=cap, name="reward")

    @torch.no_grad()
    def normalise_on(self, texts: Completions) -> None:
        """Bring each member to mean 0 and deviation 1 on these reference completions."""
        if not self.config.normalise:
            return
        if len(texts) < 2:
            raise UserError(f"normalising: got {len(texts)} completions, wanted 2 or more")
        index = torch.arange(len(texts), device=texts.mask.device)
        raw = torch.cat([self.raw(texts.rows(part)) for part in index.split(CHUNK)], dim=1)
        self.mean, self.std = raw.mean(1), raw.std(1).clamp_min(1e-6)

    def save(self, path: Path, tokenizer: Tokenizer) -> None:
        """Write trunks as transformers does, heads and normaliser beside them, no pickle."""
        for e, member in enumerate(self.members):
            member.trunk.save_pretrained(path / f"member-{e}")  # type: ignore[union-attr, operator]
        heads = {f"head.{e}.{k}": v.contiguous() for e, m in enumerate(self.members)
                 for k, v in m.head.state_dict().items()}  # type: ignore[union-attr]  # fmt: skip
        save_file({**heads, "mean": self.mean, "std": self.std}, path / WEIGHTS)
        tokenizer.save(path)
        (path / ABOUT).write_text(json.dumps(asdict(self.config), indent=2))


def load_text_reward(where: str | Path, *, offline: bool = False) -> TextRewardModel:
    """What `save` wrote, or a classifier of transformers with one label, by path or by name.

    Its tokenizer lies beside it, for `prefrl.language.tokenizer.load_tokenizer`.

    Args:
        offline: of a name, fetch nothing.

    Raises:
        UserError: neither is there, or its weights are pickles, or they hold no score.
    """
    from transformers import AutoModel

    path = Path(where)
    if (path / ABOUT).is_file():
        config = TextRewardConfig(**json.loads((path / ABOUT).read_text()))
        trunks = [
            AutoModel.from_pretrained(path / f"member-{e}", dtype=torch.float32,
                                      use_safetensors=True, trust_remote_code=False,
                                      local_files_only=True)
            for e in range(config.members)
        ]  # fmt: skip
        made = _assembled(trunks, config)
        tensors = load_file(path / WEIGHTS)
        for e, member in enumerate(made.members):
            head = {k: tensors[f"head.{e}.{k}"] for k in ("weight", "bias")}
            member.head.load_state_dict(head)  # type: ignore[union-attr]
        made.mean, made.std = tensors["mean"], tensors["std"]
        return made
    if path.is_dir() and not (path / "config.json").is_file():
        raise UserError(f"no reward model in {path}: wanted {ABOUT}, or a classifier of one label")
    return _classifier(str(where), offline=offline)


def _classifier(where: str, *, offline: bool) -> TextRewardModel:
    from transformers import AutoModelForSequenceClassification

    refuse_pickles(Path(where))
    model: Any
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            where,
            dtype=torch.float32,  # else that of the file, often bfloat16
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=offline,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"no reward model at {where!r}: wanted a run of `prefrl lm reward`, or a classifier of "
            f"one label in a folder or of a name that can be fetched ({first_line(error)})"
        ) from error
    if model.config.num_labels != 1:
        raise UserError(f"{where}: got {model.config.num_labels} labels, wanted one, a score")
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise UserError(f"{where}: got a {type(model).__name__}, wanted one with a linear `score`")
    if "score.weight" in loading["missing_keys"]:  # transformers has drawn one
        raise UserError(
            f"{where}: got no score.weight, wanted a classifier that was trained to score"
        )
    make_room(model, load_tokenizer(where, offline=offline).size)
    made = _assembled([model.base_model], TextRewardConfig(normalise=False))
    with torch.no_grad():
        made.members[0].head.weight.copy_(model.score.weight)  # type: ignore[union-attr, operator]
    return made


def _assembled(trunks: Sequence[Any], config: TextRewardConfig) -> TextRewardModel:
    members = []
    for trunk in trunks:
        for module in trunk.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        members.append(ScalarModel(trunk, generator=torch.Generator()))
    return TextRewardModel(members, config).eval()


def score_texts(
    model: TextRewardModel, tokenizer: Tokenizer, texts: Sequence[tuple[str, Completion]]
) -> Tensor:
    """[B] learned reward of (prompt, completion) pairs, by the reward model's own tokenizer.

    So the policy may have another one:

        texts = [(p, Completion(text=c)) for p, c in zip(batch.prompts, batch.completions)]
        trainer.update(batch, score_texts(model, tokenizer, texts))

    Raises:
        UserError: a text has more tokens than the model can read, as a completion may that was
            written in another tokenizer's.
    """
    encoded = encode(texts, tokenizer, limits=UNLIMITED)
    both = zip(encoded.prompts, encoded.completions, strict=True)
    longest, most = max(len(prompt) + len(completion) for prompt, completion in both), model.most
    if most is not None and longest > most:
        raise UserError(
            f"reward: got {most} positions, wanted {longest}, the tokens of a prompt and its "
            "completion: shorten the prompts or lower the cap"
        )
    device = model.mean.device
    parts = torch.arange(len(texts)).split(CHUNK)
    return torch.cat([model.score(encoded.batch(flat(part)).to(device)) for part in parts])


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedLabels:
    """n labels and their completions, each completion once for every label it is in."""

    labels: Sequence[TextLabel]
    """[n]"""
    texts: Encoded
    """[C] one label after the other."""
    starts: Sequence[int]
    """[n] where each label's completions begin."""

    def __len__(self) -> int:
        return len(self.labels)

    def places(self, index: Sequence[int]) -> list[int]:
        """The completions of the labels `index`."""
        return [self.starts[i] + k for i in index for k in range(len(self.labels[i].completions))]

    def part(self, index: Sequence[int]) -> EncodedLabels:
        """The labels `index` alone."""
        chosen = [self.labels[i] for i in index]
        texts = self.texts.part(self.places(index))
        return EncodedLabels(labels=chosen, texts=texts, starts=_starts(chosen))


def encode_labels(
    labels: Sequence[TextLabel], tokenizer: Tokenizer, *, limits: Limits
) -> EncodedLabels:
    """Labels as ids; too long ones are refused or dropped, as `limits` say."""
    if not labels:
        raise UserError("no labels: wanted at least one")
    texts = [[(label.prompt, c) for c in label.completions] for label in labels]
    kept = fitting(texts, tokenizer, limits=limits)
    chosen = [labels[i] for i in kept]
    encoded = encode([t for i in kept for t in texts[i]], tokenizer, limits=limits)
    return EncodedLabels(labels=chosen, texts=encoded, starts=_starts(chosen))


def _starts(labels: Sequence[TextLabel]) -> list[int]:
    starts, at = [], 0
    for label in labels:
        starts.append(at)
        at += len(label.completions)
    return starts


class RewardObjective:
    """Negative log-likelihood of labels under one member: every label weighs 1.

    All pairs of a ranking are in one batch, and each completion is read once.
    """

    def __init__(self, model: ScalarModel, data: EncodedLabels, config: TextRewardConfig) -> None:
        self.model: ScalarModel = model
        self.data, self.config = data, config

    def __len__(self) -> int:
        return len(self.data)

    def shared(self, index: Tensor) -> Units:
        """Units are labels."""
        return Units(units=len(index))

    def sums(self, index: Tensor, shared: Units) -> Sums:
        """Loss, and the share of pairs in the right order, summed over labels."""
        chosen = flat(index)
        device = self.model.head.weight.device
        texts = self.data.texts.batch(self.data.places(chosen)).to(device)
        verdicts = read_verdicts([self.data.labels[i] for i in chosen]).to(device)
        scores = self.model.at_end(texts)
        loss = verdict_loss(
            scores, verdicts, rankings=self.config.rankings, error=self.config.error
        )
        return Sums(
            loss=loss.sum(), figures={"accuracy": pair_accuracy(scores.detach(), verdicts).sum()}
        )


def fit_reward(
    model: TextRewardModel, data: EncodedLabels, config: OptimConfig
) -> list[dict[str, float]]:
    """Fit every member to the end; the last figures of each."""
    figures = [_to_end(fit) for fit in member_fits(model, data, config)]
    model.merge()
    return figures


def member_fits(model: TextRewardModel, data: EncodedLabels, config: OptimConfig) -> list[Fit]:
    """One fit for each member; they differ in their head, their labels and the order of those.

    Of several members each sees a bootstrap of the labels; one alone sees every label once.
    With LoRA the members have adapters from here on: `model.merge()` once they are fitted.

    Raises:
        UserError: so few labels that a member would see none of them.
    """
    model.adapt(config)
    E = model.config.members
    seen = _bootstraps(data.labels, E) if E > 1 else [list(range(len(data)))]
    return [
        Fit(
            RewardObjective(member, data.part(index), model.config),  # type: ignore[arg-type]
            replace(config, seed=config.seed * E + e),
        )
        for e, (member, index) in enumerate(zip(model.members, seen, strict=True))
    ]


def _bootstraps(labels: Sequence[TextLabel], members: int) -> list[list[int]]:
    """[E] the labels that each member sees, those twice that it drew twice.

    All answers about the same completions are drawn, or left out, together.
    """
    about = [json.dumps([x.prompt, *sorted(c.text for c in x.completions)]) for x in labels]
    counts = np.stack([bootstrap_counts(query, members) for query in about], axis=1)
    if not counts.any(1).all():
        raise UserError(
            f"members: got {members} and {len(labels)} labels, of which one member would see "
            "none; wanted more labels, or 1 member"
        )
    return [np.repeat(np.arange(len(labels)), drawn).tolist() for drawn in counts]


def _to_end(fit: Fit) -> dict[str, float]:
    figures: dict[str, float] = {}
    while not fit.done:
        figures = fit.advance()
    return figures
