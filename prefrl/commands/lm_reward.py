"""`prefrl lm reward`: a reward model from preferences, rankings and ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefrl.commands.lm_source import check_positions, limits_for, load_policy
from prefrl.commands.lm_stage import (
    began_with,
    default_directory,
    held_out_split,
    read_settings,
    run_stage,
    subject,
)
from prefrl.errors import UserError, refuse_idle
from prefrl.language.encoded import Limits
from prefrl.language.optimise import OptimConfig
from prefrl.language.reward import TextRewardConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prefrl.feedback import FeedbackStore
    from prefrl.language.records import TextLabel
    from prefrl.language.tasks import TextTask
    from prefrl.language.tokenizer import Tokenizer
    from prefrl.loop.rundir import RunDir

PANELS = {
    "Negative log-likelihood, nats a label": {
        "fit/loss": "fitted on",
        "fit/held_out_loss": "held out",
    },
    "Pairs in the right order": {"fit/accuracy": "fitted on", "fit/held_out_accuracy": "held out"},
}

CHOSEN = "Choose the text that you like better."
RATED = "Say how good the text is."
EDITED = "Correct the text, until you like it better."
LABELS_THERE = "data or a store, whose labels are there"
SYNTHETIC = ("temperature", "flips", "length_bias")  # settings of that annotator alone


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorConfig:
    """Who answers about a task's completions, which the model writes."""

    rater: Literal["annotator", "rubric", "human"] = "annotator"
    """A synthetic annotator that reads the gold reward; a judge with the rules of docstrings as
    its constitution; or people at `prefrl rate`: the same command goes on once they are done."""
    labels: int = 2000
    """Answers."""
    completions: int = 2
    """K of each answer: 2 is a comparison, 3 to 6 a ranking; 1, of people alone, a rating from 1
    to 9, or an edit."""
    edit: bool = False
    """People correct the one completion; what they make of it is preferred to it."""
    temperature: float = 1.0
    """A gap in gold of so much is answered 73 : 27."""
    flips: float = 0.0
    """Share of the answers that are turned round."""
    length_bias: float = 0.0
    """What a word is worth to the annotator, in nats."""

    def __post_init__(self) -> None:
        if self.labels < 1:
            raise UserError(f"annotator.labels: got {self.labels}, wanted 1 or more")
        least = 1 if self.rater == "human" else 2
        if not least <= self.completions <= 6:
            raise UserError(
                f"annotator.completions: got {self.completions}, wanted 2, or 3 to 6 for rankings; "
                "1, a rating or an edit, with --annotator.rater human"
            )
        if self.edit and self.completions != 1:
            raise UserError(
                f"annotator.edit: got {self.completions} completions, wanted one to correct: "
                "--annotator.completions 1 --annotator.rater human"
            )
        defaults = {one.name: one.default for one in fields(self)}
        for name in SYNTHETIC if self.rater != "annotator" else ():
            beside = f"the rater {self.rater}, not annotator"
            refuse_idle(f"annotator.{name}", getattr(self, name), defaults[name], beside=beside)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardStageConfig:
    """Settings of a reward model of text."""

    model: str = ""
    """The SFT model: a run of `prefrl lm sft`, or a checkpoint by path or name."""
    task: str = ""
    """A task whose completions are written and annotated here: reviews, docstrings."""
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
    """Of a task."""
    reward: TextRewardConfig = field(default_factory=TextRewardConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3, batch=64, epochs=4))
    limits: Limits = field(default_factory=Limits)
    """Of data and stores; a task has its own."""

    def __post_init__(self) -> None:
        if self.reference_samples < 2:
            raise UserError(f"reference_samples: got {self.reference_samples}, wanted 2 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardArgs(RewardStageConfig):
    """Fit a reward model on labels about completions."""

    out: Path | None = None
    """Run directory; the same command with the same one goes on. Default: runs/STAGE-NAME-TIME."""


def main(args: list[str], *, prog: str) -> None:
    """Read and check everything, then fit."""
    config, out = read_settings(RewardStageConfig, RewardArgs, args, prog=prog)
    source = config.task or str(config.data or config.store)
    reward(config, out or default_directory("reward", source))


def reward(config: RewardStageConfig, out: Path) -> None:
    """One run, begun or resumed."""
    import numpy as np

    from prefrl.language.optimise import measure
    from prefrl.language.reward import (
        RewardObjective,
        TextRewardModel,
        encode_labels,
        member_fits,
    )
    from prefrl.loop.rundir import RunDir

    task = task_of_labels(config.task, config.data, config.store)
    limits = limits_for(config.limits, task)
    if task is None:
        refuse_idle("annotator", config.annotator, AnnotatorConfig(), beside=LABELS_THERE)
    if not config.reward.normalise:
        default = RewardStageConfig().reference_samples
        beside = "reward.normalise off"
        refuse_idle("reference_samples", config.reference_samples, default, beside=beside)
    policy, tokenizer = load_policy(config.model, device=config.device, offline=config.offline)
    check_positions(policy, limits)
    people = task is not None and config.annotator.rater == "human"
    began = began_with(out, config)
    run = RunDir.prepare(out, config) if people else None
    given, seq = labels_for(config, task, policy, tokenizer, run=run, began=began)
    data = encode_labels(given, tokenizer, limits=limits)
    about = [subject(label) for label in data.labels]
    train, held_out = held_out_split(about, config.held_out, seed=config.optim.seed)
    made = TextRewardModel.from_sft(policy, config.reward, seed=config.optim.seed)
    fits = member_fits(made, data.part(train), config.optim)
    aside = data.part(held_out)

    def measured() -> dict[str, float]:
        if not held_out:
            return {}
        each = [measure(RewardObjective(m, aside, config.reward)) for m in made.members]  # type: ignore[arg-type]
        return {f"fit/held_out_{k}": sum(e[k] for e in each) / len(each) for k in each[0]}

    def finish(path: Path) -> None:
        prompts = sorted({label.prompt for label in data.labels})
        np.random.default_rng(config.optim.seed).shuffle(prompts)
        made.normalise_on(reference_texts(config, policy, tokenizer, prompts, limits))
        made.save(path, tokenizer)

    run_stage(
        config,
        out,
        fits=fits,
        held_out=measured,
        finish=finish,
        panels=PANELS,
        title=f"Reward model · {len(train)} labels",
        examples=given,
        seq=seq,
    )


def labels_for(
    config: Any,
    task: TextTask | None,
    policy: nn.Module,
    tokenizer: Tokenizer,
    *,
    run: RunDir | None,
    began: int | None,
) -> tuple[list[TextLabel], int | None]:
    """From a task, a file or a store, and of a store the `seq` up to which it was read.

    Those of a task depend on the model and the seed alone.

    Args:
        run: where people are asked.
        began: the `seq` up to which a fit that goes on had read.
    """
    import numpy as np

    from prefrl.feedback import FeedbackStore
    from prefrl.language.data import chat_template, read_labels

    if config.data is not None:
        return read_labels(config.data, template=chat_template(tokenizer)), None
    if task is None:
        with FeedbackStore.open(config.store) as store:
            found, seq = _answers(store, began)
        if not found:
            raise UserError(f"{config.store}: no answers about texts yet; rate some first")
        return found, seq
    how, seed = config.annotator, config.optim.seed
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(task.prompts), size=how.labels)
    prompts = [task.prompts[int(i)] for i in chosen]
    groups = written(prompts, how.completions, task, policy, tokenizer, seed=seed)
    if how.rater == "human":
        assert run is not None
        return _by_people(run, task, groups, seed=seed, edit=how.edit, began=began)
    return annotate(how, task, groups, rng, seed=seed), None


def _answers(store: FeedbackStore, began: int | None) -> tuple[list[TextLabel], int]:
    from prefrl.language.forms import labels_from

    seq = store.changes(0).seq if began is None else began
    return labels_from(store, as_of=seq), seq


Groups = Sequence[tuple[str, tuple[Any, ...]]]
"""Prompts with their completions."""


def annotate(
    config: AnnotatorConfig, task: TextTask, groups: Groups, rng: np.random.Generator, *, seed: int
) -> list[TextLabel]:
    """Have completions compared or ranked."""
    from prefrl.language.judge import Judge, Principle, rule_backend
    from prefrl.language.tasks import Annotator
    from prefrl.language.tasks.docstrings import RUBRIC

    K = config.completions
    if config.rater == "rubric":
        if task.name != "docstrings" or K != 2:
            raise UserError("annotator.rater: the rubric judges pairs of docstrings")
        rules = {n: lambda p, c, rule=rule: 4.0 * rule(p, c.text) for n, rule in RUBRIC.items()}
        judge = Judge(
            backend=rule_backend(rules),
            constitution=tuple(Principle(name=n, text=str(f.__doc__)) for n, f in RUBRIC.items()),
            seed=seed,
        )
        return [judge.label(prompt, *texts) for prompt, texts in groups]
    annotator = Annotator(
        gold=task.gold,
        temperature=config.temperature,
        flips=config.flips,
        length_bias=config.length_bias,
    )
    if K == 2:
        return [annotator.compare(prompt, texts[0], texts[1], rng) for prompt, texts in groups]
    return [annotator.rank(prompt, texts, rng) for prompt, texts in groups]


def written(
    prompts: Sequence[str], K: int, task: TextTask, policy: nn.Module, tokenizer: Tokenizer,
    *, seed: int,
) -> Groups:  # fmt: skip
    """K completions of each prompt."""
    import torch

    from prefrl.language.evaluate import sample
    from prefrl.language.policy import Sampling

    generator = torch.Generator().manual_seed(seed)
    sampling = Sampling(temperature=1.0, never_said=tokenizer.never_said)
    said = sample(
        policy,
        [prompt for prompt in prompts for _ in range(K)],
        tokenizer=tokenizer,
        sampling=sampling,
        max_completion=task.max_completion,
        generator=generator,
    ).completions
    return [(prompt, said[i * K : (i + 1) * K]) for i, prompt in enumerate(prompts)]


def _by_people(
    run: RunDir, task: TextTask, groups: Groups, *, seed: int, edit: bool, began: int | None
) -> tuple[list[TextLabel], int]:
    """Ask once, then wait for the answers: each command looks how far they are."""
    from prefrl.feedback import FeedbackStore
    from prefrl.language.forms import ask

    if (run.path / "labels.db").is_file():
        store = FeedbackStore.open(run.path)
    else:
        store = FeedbackStore.create(run.path, task=task.name, seed=seed)
    with store:
        if not store.counts()["queries"]:
            ask(store, groups, step=0, gold=task.gold, edit=edit)
            store.set_instructions(EDITED if edit else RATED if len(groups[0][1]) == 1 else CHOSEN)
        left, asked = store.open_queries(), store.asked_here()
        found, seq = _answers(store, began)
    if left and not asked and began is None:
        raise UserError(
            f"{len(found)} of {len(groups)} answers are there, and the others have been passed "
            f"over by who saw them: somebody else may answer them (`prefrl rate {run.path}`), or "
            f"fit on what there is with --store {run.path} and another --out"
        )
    if left and began is None:
        raise UserError(
            f"{len(found)} of {len(groups)} answers are there: `prefrl rate {run.path}` asks for "
            "the others; then give the same command with the same --out again"
        )
    if not found:
        raise UserError(
            f"{run.path}: all {len(groups)} are answered, and no answer prefers anything: texts "
            "were left as they were, or could not be compared"
        )
    return found, seq


def task_of_labels(task: str, data: Path | None, store: Path | None) -> TextTask | None:
    """The task named; None where labels come from a file or a store.

    Raises:
        UserError: none of the three, or several.
    """
    from prefrl.language.tasks import find_text_task

    if bool(task) + (data is not None) + (store is not None) != 1:
        raise UserError("wanted one source of labels: --task NAME, --data FILE or --store RUN")
    return find_text_task(task) if task else None


def reference_texts(
    config: Any, policy: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str],
    limits: Limits,
) -> Any:  # fmt: skip
    """Completions of the SFT model, the prompts in turn; `config` says how many, and the seed."""
    import torch

    from prefrl.language.evaluate import sample
    from prefrl.language.policy import Sampling

    return sample(
        policy,
        [prompts[i % len(prompts)] for i in range(config.reference_samples)],
        tokenizer=tokenizer,
        sampling=Sampling(temperature=1.0, never_said=tokenizer.never_said),
        max_completion=limits.max_completion,
        generator=torch.Generator().manual_seed(config.optim.seed + 1),
    ).texts
