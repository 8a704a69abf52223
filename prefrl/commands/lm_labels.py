"""Where a stage has its labels from: a file, a store, or raters of what the model writes here.

completions of the model -> the run's store -> raters -> labels
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefrl.commands.lm_raters import AnnotatorConfig, Questions, ask_about, open_store
from prefrl.commands.lm_source import Inputs, check_inputs, limits_for
from prefrl.errors import UserError, refuse_idle

if TYPE_CHECKING:
    from torch import nn

    from prefrl.feedback import FeedbackStore
    from prefrl.language.encoded import Limits
    from prefrl.language.optimise import OptimConfig
    from prefrl.language.records import TextLabel
    from prefrl.language.tasks import TextTask
    from prefrl.language.tokenizer import Tokenizer
    from prefrl.loop.rundir import RunDir

LABELS_THERE = "data or a store, whose labels are there"


class Sources(Protocol):
    """What of a stage's settings says where labels come from."""

    @property
    def task(self) -> str: ...
    @property
    def prompts(self) -> Path | None: ...
    @property
    def data(self) -> Path | None: ...
    @property
    def store(self) -> Path | None: ...
    @property
    def annotator(self) -> AnnotatorConfig: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def optim(self) -> OptimConfig: ...


SOURCES = ("task", "prompts", "data", "store")


def source_of(config: Sources) -> str:
    """Its name or path, for a run directory's name."""
    return str(next((given for name in SOURCES if (given := getattr(config, name))), ""))


def task_of_labels(config: Sources) -> TextTask | None:
    """The task named; None where labels come from a file or a store, or prompts are one's own.

    Raises:
        UserError: no source, or several; or an annotator who has nothing to do, or cannot do it.
    """
    from prefrl.language.tasks import find_text_task

    if sum(bool(getattr(config, name)) for name in SOURCES) != 1:
        raise UserError(
            "wanted one source of labels: --task NAME, --prompts FILE, --data FILE or --store RUN"
        )
    task = find_text_task(config.task) if config.task else None
    if task is not None or config.prompts is not None:
        config.annotator.check_task(task)
    else:
        refuse_idle("annotator", config.annotator, AnnotatorConfig(), beside=LABELS_THERE)
    return task


def labels_for(
    config: Sources,
    task: TextTask | None,
    policy: nn.Module,
    tokenizer: Tokenizer,
    *,
    out: Path,
    inputs: Inputs,
    began: int | None,
) -> tuple[list[TextLabel], int | None]:
    """From raters, a file or a store, and of a store the `seq` up to which it was read.

    Args:
        config: of the stage.
        out: where raters are asked, the run directory, which is created; its store keeps the
            answers.
        inputs: what is known by now of what the run begins with.
        began: the `seq` up to which a fit that goes on had read.

    Raises:
        UserError: there are none, or people have not answered yet.
    """
    from prefrl.feedback import FeedbackStore
    from prefrl.language.data import chat_template, read_labels
    from prefrl.loop.rundir import RunDir, RunLock

    if config.data is not None:
        return read_labels(config.data, template=chat_template(tokenizer)), None
    if config.store is not None:
        with FeedbackStore.open(config.store) as store:
            found, seq = _answers(store, began)
        if not found:
            raise UserError(f"{config.store}: no answers about texts yet; rate some first")
        return found, seq
    if task is not None:
        about = Questions.of_task(task)
    else:
        assert config.prompts is not None
        about = Questions.read(config.prompts, tokenizer, config.limits)
    run, how, seed = RunDir.prepare(out, config), config.annotator, config.optim.seed
    with RunLock(run), open_store(run, about.name, seed=seed) as store:
        check_inputs(run, inputs)  # else answers would be about another model's texts
        if began is None:
            asked: Any = (store, how, about, policy, tokenizer)
            ask_about(*asked, count=how.labels, step=0, seed=(seed, 0))
        return _all_answers(store, run, how.labels, began)


def limits_of(config: Sources, task: TextTask | None) -> Limits:
    """Of the texts: a task's own, also where a store holds its texts; else as given."""
    from prefrl.feedback import FeedbackStore
    from prefrl.language.encoded import Limits
    from prefrl.language.tasks import TASKS

    if config.store is not None and config.limits == Limits():
        with FeedbackStore.open(config.store) as store:
            task = TASKS[store.task]() if store.task in TASKS else None
    return limits_for(config.limits, task, written=config.prompts is not None)


def _answers(store: FeedbackStore, began: int | None) -> tuple[list[TextLabel], int]:
    from prefrl.language.forms import labels_from

    seq = store.changes(0).seq if began is None else began
    return labels_from(store, as_of=seq), seq


def _all_answers(
    store: FeedbackStore, run: RunDir, wanted: int, began: int | None
) -> tuple[list[TextLabel], int]:
    """Once they are all there; each command looks how far people are."""
    left, asked = store.open_queries(), store.asked_here()
    found, seq = _answers(store, began)
    if left and not asked and began is None:
        raise UserError(
            f"{len(found)} of {wanted} answers are there, and the others have been passed over by "
            "who saw them, or are out in a pack: merge that (`prefrl merge`), let somebody else "
            f"answer (`prefrl rate {run.path}`), or fit on what there is with --store {run.path} "
            "and another --out"
        )
    if left and began is None:
        raise UserError(
            f"{len(found)} of {wanted} answers are there: `prefrl rate {run.path}` asks for "
            "the others; then give the same command with the same --out again"
        )
    if not found:
        raise UserError(
            f"{run.path}: all {wanted} are answered, and no answer prefers anything: texts "
            "were left as they were, or could not be compared"
        )
    return found, seq
