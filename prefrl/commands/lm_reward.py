"""`prefrl lm reward`: a reward model from preferences, rankings and ratings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prefrl.commands.lm_labels import labels_for, limits_of, source_of, task_of_labels
from prefrl.commands.lm_raters import AnnotatorConfig, check_members, reference_texts
from prefrl.commands.lm_source import check_positions, fingerprint, load_policy
from prefrl.commands.lm_stage import (
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
from prefrl.errors import UserError, refuse_idle
from prefrl.language.encoded import Limits
from prefrl.language.optimise import OptimConfig
from prefrl.language.reward import TextRewardConfig

PANELS = {
    "Negative log-likelihood, nats a label": {
        "fit/loss": "fitted on",
        "fit/held_out_loss": "held out",
    },
    "Pairs in the right order": {"fit/accuracy": "fitted on", "fit/held_out_accuracy": "held out"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardStageConfig:
    """Settings of a reward model of text."""

    model: str = ""
    """The SFT model: a run of `prefrl lm sft`, or a checkpoint by path or name."""
    task: str = ""
    """A task whose completions are written and annotated here: reviews, docstrings."""
    prompts: Path | None = None
    """Prompts of your own, whose completions are written here: JSON lines or Parquet with a column
    prompt. People judge, or a model by `prefrl lm judge --store RUN` (annotator.rater human)."""
    data: Path | None = None
    """Labels: JSON lines or Parquet with prompt, chosen, rejected, or rankings, or ratings."""
    store: Path | None = None
    """Labels that raters gave: a run directory with labels.db."""
    held_out: float = 0.1
    """Share of the labels that is not fitted on."""
    reference_samples: int = 512
    """Completions of the SFT model on which scores get mean 0 and deviation 1."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    checkpoint_every: int = 200
    """Steps."""
    annotator: AnnotatorConfig = field(default_factory=AnnotatorConfig)
    """Of a task, or of prompts."""
    reward: TextRewardConfig = field(default_factory=TextRewardConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3, batch=64, epochs=4))
    limits: Limits = field(default_factory=Limits)
    """Of prompts, data and stores; a task has its own."""

    def __post_init__(self) -> None:
        check_fit(self)
        if self.reference_samples < 2:
            raise UserError(f"reference_samples: got {self.reference_samples}, wanted 2 or more")
        check_members(self.reward.members, self.annotator.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardArgs(RewardStageConfig):
    """Fit a reward model on labels about completions."""

    out: Path | None = None
    """Run directory; the same command with the same one goes on. Default: runs/STAGE-NAME-TIME."""


def main(args: list[str], *, prog: str) -> None:
    """Read and check everything, then fit."""
    config, out = read_settings(RewardStageConfig, RewardArgs, args, prog=prog)
    reward(config, out or default_directory("reward", source_of(config)))


def reward(config: RewardStageConfig, out: Path) -> None:
    """One run, begun or resumed."""
    import numpy as np

    from prefrl.language.reward import (
        RewardObjective,
        TextRewardModel,
        encode_labels,
        member_fits,
    )

    if finished_there(out, config):
        return
    task = task_of_labels(config)
    limits = limits_of(config, task)
    if not config.reward.normalise:
        default = RewardStageConfig().reference_samples
        beside = "reward.normalise off"
        refuse_idle("reference_samples", config.reference_samples, default, beside=beside)
    policy, tokenizer = load_policy(config.model, device=config.device, offline=config.offline)
    check_positions(policy, limits)
    inputs = {"model": fingerprint(policy)}
    began = began_with(out, config)
    given, seq = labels_for(config, task, policy, tokenizer, out=out, inputs=inputs, began=began)
    data = encode_labels(given, tokenizer, limits=limits)
    about = [subject(label) for label in data.labels]
    train, held_out = held_out_split(about, config.held_out, seed=config.optim.seed)
    made = TextRewardModel.from_sft(policy, config.reward, seed=config.optim.seed)
    fits = member_fits(made, data.part(train), config.optim)
    aside = data.part(held_out)
    asides = [RewardObjective(m, aside, config.reward) for m in made.members]  # type: ignore[arg-type]

    def finish(path: Path) -> None:
        made.merge()
        prompts = sorted({label.prompt for label in data.labels})
        np.random.default_rng(config.optim.seed).shuffle(prompts)
        cap = limits.max_completion
        made.normalise_on(reference_texts(config, policy, tokenizer, prompts, cap=cap))
        made.save(path, tokenizer)

    run_stage(
        config,
        out,
        fits=fits,
        held_out=lambda: held_out_figures(asides, config.optim),
        finish=finish,
        panels=PANELS,
        title=f"Reward model · {len(train)} labels",
        inputs={**inputs, "examples": fingerprint(given), "seq": seq},
    )
