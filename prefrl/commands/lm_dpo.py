"""`prefrl lm dpo`: fit the policy on the labels themselves (DPO, IPO, cDPO, robust DPO, KTO)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.commands.lm_labels import labels_for, limits_of, source_of, task_of_labels
from prefrl.commands.lm_raters import AnnotatorConfig
from prefrl.commands.lm_source import Inputs, check_positions, fingerprint, load_policy
from prefrl.commands.lm_stage import (
    adapters_on,
    began_with,
    check_fit,
    default_directory,
    finished_there,
    held_out_figures,
    held_out_split,
    read_settings,
    run_stage,
    subject,
)
from prefrl.errors import UserError
from prefrl.language.dpo import DirectConfig
from prefrl.language.encoded import Limits
from prefrl.language.optimise import OptimConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from prefrl.language.optimise import Objective
    from prefrl.language.records import TextLabel, Thumb
    from prefrl.language.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoStageConfig:
    """Settings of a direct method."""

    model: str = ""
    """The SFT model, which is also the reference: a run of `prefrl lm sft`, or a checkpoint."""
    task: str = ""
    """A task whose completions are written and annotated here: reviews, docstrings."""
    prompts: Path | None = None
    """Prompts of your own, whose completions are written here: JSON lines or Parquet with a column
    prompt. People judge, or a model by `prefrl lm judge --store RUN` (annotator.rater human)."""
    data: Path | None = None
    """JSON lines or Parquet with prompt, chosen, rejected, or rankings; for KTO also prompt,
    completion, label."""
    store: Path | None = None
    """Labels that raters gave: a run directory with labels.db."""
    held_out: float = 0.1
    """Share of the labels that is not fitted on."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    checkpoint_every: int = 200
    """Steps."""
    annotator: AnnotatorConfig = field(default_factory=AnnotatorConfig)
    """Of a task, or of prompts."""
    direct: DirectConfig = field(default_factory=DirectConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=3e-4, batch=64, epochs=4))
    limits: Limits = field(default_factory=Limits)
    """Of prompts, data and stores; a task has its own."""

    def __post_init__(self) -> None:
        check_fit(self)
        if self.annotator.completions == 1 and not self.annotator.edit:
            raise UserError(
                "annotator.completions: got 1, a rating, to which a direct method cannot be "
                "fitted; wanted 2 or more, or --annotator.edit"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoArgs(DpoStageConfig):
    """Fit a policy on preferences directly."""

    out: Path | None = None
    """Run directory; the same command with the same one goes on. Default: runs/STAGE-NAME-TIME."""


def main(args: list[str], *, prog: str) -> None:
    """Read and check everything, then fit."""
    config, out = read_settings(DpoStageConfig, DpoArgs, args, prog=prog)
    dpo(config, out or default_directory(config.direct.loss, source_of(config)))


def dpo(config: DpoStageConfig, out: Path) -> None:
    """One run, begun or resumed."""
    from prefrl.language.lora import merged
    from prefrl.language.models import autocast, save_model
    from prefrl.language.optimise import Fit

    if finished_there(out, config):
        return
    task = task_of_labels(config)
    limits = limits_of(config, task)
    policy, tokenizer = load_policy(config.model, device=config.device, offline=config.offline)
    check_positions(policy, limits)
    inputs = {"model": fingerprint(policy)}
    kto = config.direct.loss == "kto"
    began = began_with(out, config)
    read: Any = _thumbs if kto else labels_for
    examples, seq = read(config, task, policy, tokenizer, out=out, inputs=inputs, began=began)
    policy = adapters_on(policy, config.optim)
    make: Any = _kto if kto else _paired
    about, objective = make(policy, examples, tokenizer, config, limits)
    train, held_out = held_out_split(about, config.held_out, seed=config.optim.seed)
    with autocast(config.optim.precision, next(policy.parameters()).device):  # as the policy later
        fitted = objective(train)
        asides = [objective(held_out)] if len(held_out) > kto else []

    how = f"{config.direct.loss.upper()} · beta {config.direct.beta}"
    run_stage(
        config,
        out,
        fits=[Fit(fitted, config.optim)],
        held_out=lambda: held_out_figures(asides, config.optim),
        finish=lambda path: save_model(merged(policy), tokenizer, path),
        panels=KTO_PANELS if kto else PANELS,
        title=f"{how} · {len(train)} labels",
        inputs={**inputs, "examples": fingerprint(examples), "seq": seq},
    )


PANELS = {
    "Loss": {"fit/loss": "fitted on", "fit/held_out_loss": "held out"},
    "Pairs in the right order": {
        "fit/accuracy": "fitted on",
        "fit/held_out_accuracy": "held out",
    },
    "Log-probability of a completion": {
        "fit/chosen_logp": "chosen",
        "fit/rejected_logp": "rejected",
    },
}
KTO_PANELS = {
    "Loss": {"fit/loss": "fitted on", "fit/held_out_loss": "held out"},
    "Implied reward": {"fit/good_reward": "good", "fit/bad_reward": "bad"},
}


def _thumbs(
    config: DpoStageConfig, task: Any, policy: nn.Module, tokenizer: Tokenizer, *, out: Path,
    inputs: Inputs, began: int | None,
) -> tuple[list[list[Thumb]], int | None]:  # fmt: skip
    """Row by row, or label by label; and of a store the `seq` up to which it was read."""
    from prefrl.feedback import Rating
    from prefrl.language.data import chat_template, read_thumb_rows

    if config.data is not None:
        found, seq = read_thumb_rows(config.data, template=chat_template(tokenizer)), None
    else:
        labels, seq = labels_for(
            config, task, policy, tokenizer, out=out, inputs=inputs, began=began
        )
        if any(isinstance(label.verdict, Rating) for label in labels):
            raise UserError(
                "kto: got ratings, which do not say what is good and what bad; wanted preferences, "
                "rankings, or a file with prompt, completion and label"
            )
        found = [thumbs_of(label) for label in labels]
    if not any(found):
        raise UserError("kto: got no decided preference, wanted at least one")
    return found, seq


def thumbs_of(label: TextLabel) -> list[Thumb]:
    """Both sides of every decided preference: the better one good, the other bad."""
    from prefrl.language.records import Preference, Thumb, split_ranking

    found = []
    for part in split_ranking(label):
        if isinstance(part.verdict, Preference) and part.verdict.second != 0.5:
            second = part.verdict.second > 0.5
            found += [
                Thumb(prompt=part.prompt, completion=completion, good=good)
                for completion, good in zip(part.completions, (not second, second), strict=True)
            ]
    return found


Parts = tuple[list[tuple[str, ...]], Callable[[list[int]], "Objective"]]
"""What each example within the limits is about; and of some of them what a fit lowers."""


def _paired(
    policy: nn.Module, labels: Sequence[TextLabel], tokenizer: Tokenizer,
    config: DpoStageConfig, limits: Limits,
) -> Parts:  # fmt: skip
    from prefrl.language.dpo import DirectObjective, sequence_logp
    from prefrl.language.reward import encode_labels

    data = encode_labels(labels, tokenizer, limits=limits)

    def objective(index: list[int]) -> Objective:
        part = data.part(index)
        reference = sequence_logp(policy, part.texts)  # before the first step
        return DirectObjective(policy, part, reference, config.direct)

    return [subject(label) for label in data.labels], objective


def _kto(
    policy: nn.Module, rows: Sequence[Sequence[Thumb]], tokenizer: Tokenizer,
    config: DpoStageConfig, limits: Limits,
) -> Parts:  # fmt: skip
    import copy

    import torch

    from prefrl.language.dpo import KtoObjective
    from prefrl.language.encoded import encode, fitting
    from prefrl.language.lora import has_adapters

    texts = [[(thumb.prompt, thumb.completion) for thumb in row] for row in rows]
    kept = fitting(texts, tokenizer, limits=limits)
    thumbs = [thumb for i in kept for thumb in rows[i]]
    encoded = encode([text for i in kept for text in texts[i]], tokenizer, limits=limits)
    reference = None if has_adapters(policy) else copy.deepcopy(policy)

    def objective(index: list[int]) -> Objective:
        good = torch.tensor([thumbs[i].good for i in index])
        return KtoObjective(policy, reference, encoded.part(index), good, config.direct)

    return [subject(thumb) for thumb in thumbs], objective
