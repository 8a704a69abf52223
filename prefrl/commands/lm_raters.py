"""Completions that the model writes are put to raters: who they are, and about what they are asked.

Whoever answers, people or an annotator, does so in the run's store, where `prefrl raters`, `prefrl
export` and other stages (`--store RUN`) find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from prefrl.errors import UserError, refuse_idle

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from prefrl.feedback import FeedbackStore, Reply
    from prefrl.language.encoded import Limits
    from prefrl.language.records import TextLabel
    from prefrl.language.tasks import Gold, TextTask
    from prefrl.language.tokenizer import Tokenizer
    from prefrl.loop.rundir import RunDir

CHOSEN = "Choose the text that you like better."
RATED = "Say how good the text is."
EDITED = "Correct the text, until you like it better."
SYNTHETIC = ("temperature", "flips", "length_bias")  # settings of that annotator alone
BOOTSTRAPPED = 10  # labels, of which a member sees none once in 20,000 times


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorConfig:
    """Who answers about completions that the model writes, to prompts of a task or of one's own."""

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

    def check_task(self, task: TextTask | None) -> None:
        """Raises UserError where the rater knows not what is good; None: of prompts from a file."""
        if task is None and self.rater != "human":
            raise UserError(
                f"annotator.rater: got {self.rater}, who judges by what a task knows; wanted human "
                "for prompts of your own: people answer at `prefrl rate RUN`, or a language model "
                "does by `prefrl lm judge --store RUN`"
            )
        about = (task and task.name, self.completions)
        if self.rater == "rubric" and about != ("docstrings", 2):
            raise UserError(
                f"annotator.rater: got rubric for {about[1]} completions of {about[0]}, wanted "
                "pairs of docstrings, whose rules it knows"
            )

    @property
    def instructions(self) -> str:
        """What people read."""
        return EDITED if self.edit else RATED if self.completions == 1 else CHOSEN


def check_members(members: int, labels: int) -> None:
    """Raises UserError where one of several, each of which sees a part of them, may see none."""
    if members > 1 and labels < BOOTSTRAPPED:
        raise UserError(
            f"annotator.labels: got {labels}, wanted {BOOTSTRAPPED} or more for {members} members, "
            "each of which sees a part of them"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What raters are asked about: completions of these prompts."""

    name: str
    """Of the task, or of the file without its ending."""
    prompts: Sequence[str]
    max_completion: int
    """Tokens, the end token included."""
    gold: Gold | None
    """Of a task."""

    @classmethod
    def of_task(cls, task: TextTask) -> Self:
        """Its prompts."""
        return cls(
            name=task.name,
            prompts=task.prompts,
            max_completion=task.max_completion,
            gold=task.gold,
        )

    @classmethod
    def read(cls, file: Path, tokenizer: Tokenizer, limits: Limits) -> Self:
        """Prompts of one's own.

        Raises:
            UserError: one is too long, and not to be left out; or there is none.
        """
        from prefrl.language.data import chat_template, read_prompts
        from prefrl.language.encoded import fitting
        from prefrl.language.records import Completion

        prompts = read_prompts(file, template=chat_template(tokenizer))
        empty = Completion(text="")
        kept = fitting([[(prompt, empty)] for prompt in prompts], tokenizer, limits=limits)
        return cls(
            name=file.stem,
            prompts=[prompts[i] for i in kept],
            max_completion=limits.max_completion,
            gold=None,
        )


def open_store(run: RunDir, name: str, *, seed: int) -> FeedbackStore:
    """The run's own, created where there is none yet; `name`: of what is asked about."""
    from prefrl.feedback import FeedbackStore

    if (run.path / "labels.db").is_file():
        return FeedbackStore.open(run.path)
    return FeedbackStore.create(run.path, task=name, seed=seed)


def ask_about(
    store: FeedbackStore,
    how: AnnotatorConfig,
    about: Questions,
    policy: nn.Module,
    tokenizer: Tokenizer,
    *,
    count: int,
    step: int,
    seed: tuple[int, int],
) -> None:
    """Put what the policy says to raters, once; all but people answer at once.

    Prompts, completions and answers depend on policy and seed alone.

    Args:
        count: of the queries.
        step: updates of the policy, under which the queries are found again.
    """
    import numpy as np

    from prefrl.language.forms import ask, asked_at

    if not asked_at(store, step):
        if not store.instructions().version:
            store.set_instructions(how.instructions)
        chosen = np.random.default_rng(seed).choice(len(about.prompts), size=count)
        prompts = [about.prompts[int(i)] for i in chosen]
        drawn = int(np.random.SeedSequence(seed).generate_state(1)[0])
        cap = about.max_completion
        said = written(prompts, how.completions, policy, tokenizer, cap=cap, seed=drawn)
        ask(store, said, step=step, gold=about.gold, edit=how.edit)
    if how.rater != "human":
        assert about.gold is not None, "checked"
        _answer(store, how, about.gold, step=step, seed=seed)


def _answer(
    store: FeedbackStore, how: AnnotatorConfig, gold: Gold, *, step: int, seed: tuple[int, int]
) -> None:
    """What a synthetic rater says, in the order of the queries' ids, whatever came before."""
    import numpy as np

    from prefrl.feedback import Answer, answer_id
    from prefrl.language.forms import asked_at

    asked = asked_at(store, step)
    groups = [(prompt, completions) for _, prompt, completions in asked]
    labels = annotate(how, gold, groups, np.random.default_rng([*seed, 1]), seed=seed[0])
    store.submit_many(
        [
            Answer(
                id=answer_id(query.id, label.rater),
                query=query.id,
                rater=label.rater,
                reply=_reply(label),
            )
            for (query, _, _), label in zip(asked, labels, strict=True)
        ]
    )


def _reply(label: TextLabel) -> Reply:
    """As the store keeps it; a probability where the rater gives one."""
    from prefrl.feedback import Comparison
    from prefrl.language.records import Preference

    verdict = label.verdict
    if not isinstance(verdict, Preference):
        return verdict
    if verdict.second in (0.0, 1.0):
        return Comparison(choice="second" if verdict.second else "first")
    return Comparison.of(verdict.second)


Groups = Sequence[tuple[str, tuple[Any, ...]]]
"""Prompts with their completions."""


def annotate(
    config: AnnotatorConfig, gold: Gold, groups: Groups, rng: np.random.Generator, *, seed: int
) -> list[TextLabel]:
    """Have completions compared or ranked by a synthetic rater."""
    from prefrl.language.judge import Judge, Principle, rule_backend
    from prefrl.language.tasks import Annotator
    from prefrl.language.tasks.docstrings import RUBRIC

    if config.rater == "rubric":
        rules = {n: lambda p, c, rule=rule: 4.0 * rule(p, c.text) for n, rule in RUBRIC.items()}
        judge = Judge(
            backend=rule_backend(rules),
            constitution=tuple(Principle(name=n, text=str(f.__doc__)) for n, f in RUBRIC.items()),
            seed=seed,
        )
        return judge.labels([(prompt, *texts) for prompt, texts in groups])
    annotator = Annotator(
        gold=gold,
        temperature=config.temperature,
        flips=config.flips,
        length_bias=config.length_bias,
    )
    if config.completions == 2:
        return [annotator.compare(prompt, texts[0], texts[1], rng) for prompt, texts in groups]
    return [annotator.rank(prompt, texts, rng) for prompt, texts in groups]


def written(
    prompts: Sequence[str], K: int, policy: nn.Module, tokenizer: Tokenizer,
    *, cap: int, seed: int,
) -> Groups:  # fmt: skip
    """K completions of each prompt, of `cap` tokens at most."""
    import torch

    from prefrl.language.evaluate import sample
    from prefrl.language.policy import Sampling

    said = sample(
        policy,
        [prompt for prompt in prompts for _ in range(K)],
        tokenizer=tokenizer,
        sampling=Sampling(temperature=1.0, never_said=tokenizer.never_said),
        max_completion=cap,
        generator=torch.Generator().manual_seed(seed),
    ).completions
    return [(prompt, said[i * K : (i + 1) * K]) for i, prompt in enumerate(prompts)]


def reference_texts(
    config: Any, policy: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str],
    *, cap: int,
) -> Any:  # fmt: skip
    """Completions of the SFT model, of `cap` tokens at most, the prompts in turn.

    `config` says how many, and the seed.
    """
    import torch

    from prefrl.language.evaluate import sample
    from prefrl.language.policy import Sampling

    return sample(
        policy,
        [prompts[i % len(prompts)] for i in range(config.reference_samples)],
        tokenizer=tokenizer,
        sampling=Sampling(temperature=1.0, never_said=tokenizer.never_said),
        max_completion=cap,
        generator=torch.Generator().manual_seed(config.optim.seed + 1),
    ).texts
