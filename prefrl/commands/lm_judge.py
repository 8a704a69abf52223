"""`prefrl lm judge`: a language model compares completions by the principles of a constitution."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefrl.commands.lm_source import fingerprint, load_policy
from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from prefrl.language.judge import Judge, LanguageModelBackend, Pair
    from prefrl.language.records import Completion
    from prefrl.loop.train import Stop

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeArgs:
    """Have a causal language model compare completions in pairs: AI feedback.

    Soft labels for `prefrl lm reward` and `prefrl lm dpo`: of a file JSON lines with prompt,
    chosen, rejected and probability (--data there), of a run answers in its store (--store there).
    Ctrl-C keeps what there is; the same command goes on.
    """

    model: str = ""
    """The judge: a checkpoint by path or name, or a run. It answers "1" or "2"."""
    constitution: Path | None = None
    """TOML with tables [[principle]] of name, text and, where they do not count alike, weight."""
    mode: Literal["sample", "mix"] = "sample"
    """One principle a pair, drawn by weight; or the weighted mean over all, which asks more."""
    data: Path | None = None
    """What to compare: JSON lines or Parquet with prompt and completion, as `prefrl lm generate`
    writes; of each prompt the first with the second, the third with the fourth, and so on."""
    store: Path | None = None
    """Instead of a file: a run whose comparisons of texts are open. The answers lie in its store,
    under the name of the model's folder and 8 digits that stand for what it judges by."""
    answered: bool = False
    """Of a store also what others have answered: to see in `prefrl raters` how well they agree."""
    batch: int = 16
    """Pairs that are judged at once, and kept together: more are faster where there is a GPU."""
    seed: int = 0
    """Of the draws of principles."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    out: Path | None = None
    """The file of labels, of --data; nothing may be there."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed: got {self.seed}, wanted 0 or more")
        if self.batch < 1:
            raise UserError(f"batch: got {self.batch}, wanted 1 or more")
        if self.store is not None and (self.data or self.out):
            raise UserError("store: got it with --data or --out, wanted one or the others")
        if self.answered and self.store is None:
            raise UserError("answered: got it without --store, wanted a run whose answers they are")


def main(args: list[str], *, prog: str) -> None:
    """Check everything, then judge."""
    given = parse(JudgeArgs, args, prog=prog, default=JudgeArgs())
    wanted = ("model", "constitution", *(() if given.store else ("data", "out")))
    missing = [name for name in wanted if not getattr(given, name)]
    if given.store is None and {"data", "out"} <= set(missing):
        raise UserError("wanted --data FILE and --out FILE, or --store RUN with open comparisons")
    if missing:
        raise UserError(f"{missing[0]}: wanted --{missing[0]}; see `{prog} --help`")
    if given.store is not None:
        judge_store(given, given.store)
    else:
        assert given.data is not None
        assert given.out is not None
        judge_file(given, given.data, given.out)


def judge_store(given: JudgeArgs, run: Path) -> None:
    """All that is open in a run, and perhaps what is answered too."""
    from prefrl.feedback import FeedbackStore
    from prefrl.language.forms import judge_queries, pairs_of, unjudged
    from prefrl.loop.metrics import ProgressLine
    from prefrl.loop.train import Stop

    with ExitStack() as inside:
        store = inside.enter_context(FeedbackStore.open(run))
        asked, backend, _ = _judge(given)
        todo, outcomes = unjudged(store, asked.name, answered=given.answered), Counter[str]()
        backend.check_room(asked.questions(pairs_of(store, todo)))
        stop = inside.enter_context(Stop().on_signals())
        progress = ProgressLine(len(todo), step=0, unit="pairs")
        try:
            for start in range(0, len(todo), given.batch):
                if stop.asked:
                    break
                some = todo[start : start + given.batch]
                said = judge_queries(store, asked, some, answered=given.answered)
                outcomes.update(outcome or "left to others" for outcome in said)
                progress.update(start + len(some), {})
        finally:
            progress.close()
        if todo:
            found = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
            said_of = run, asked.name, len(todo), found or "stopped"
            log.info("%s: %s was asked %d comparisons: %s", *said_of)
        else:
            log.info("%s: no comparison that %s has to answer", run, asked.name)


def judge_file(given: JudgeArgs, data: Path, out: Path) -> None:
    """All pairs, begun or gone on with."""
    from prefrl.loop.train import Stop

    if out.exists():
        raise UserError(f"{out} exists: give another --out, nothing is overwritten")
    if not out.parent.is_dir():
        raise UserError(f"out: got {out}, wanted a file in a folder that is there")
    pairs = _pairs(data)
    asked, backend, model = _judge(given)
    backend.check_room(asked.questions(pairs))
    inputs = fingerprint([model, asked.constitution, given.mode, given.seed, given.batch, pairs])
    part = out.with_name(f"{out.name}.part")
    with Stop().on_signals() as stop:
        if _judged(asked, pairs, part, inputs, batch=given.batch, stop=stop):
            _publish(part, out)
            log.info("%s: %d labels", out, len(pairs))
        else:
            log.info("stopped: the same command goes on from %s", part)


def _judge(given: JudgeArgs) -> tuple[Judge, LanguageModelBackend, str]:
    """The judge, what it asks, and the fingerprint of its model.

    It is called after the model's folder and what it judges by, so that two judges are never
    taken for one.
    """
    from prefrl.feedback.records import check_name
    from prefrl.language.judge import Judge, LanguageModelBackend, read_constitution

    assert given.constitution is not None
    constitution = read_constitution(given.constitution)
    model, tokenizer = load_policy(given.model, device=given.device, offline=given.offline)
    weights = fingerprint(model)
    digest = fingerprint([weights, constitution, given.mode, given.seed])
    name = f"{Path(given.model).resolve().name}-{digest[:8]}"
    check_name("rater", name)
    backend = LanguageModelBackend(model, tokenizer)
    judge = Judge(
        backend=backend,
        constitution=constitution,
        mode=given.mode,
        seed=given.seed,
        name=name,
    )
    return judge, backend, weights


def _pairs(data: Path) -> list[Pair]:
    """Of each prompt's completions neighbours, in the order they stand in; equal ones left out."""
    from prefrl.language.data import read_completions

    by_prompt: dict[str, list[Completion]] = {}
    for prompt, completion in read_completions(data):
        by_prompt.setdefault(prompt, []).append(completion)
    pairs = [
        (prompt, first, second)
        for prompt, said in by_prompt.items()
        for first, second in zip(said[::2], said[1::2], strict=False)
    ]
    different = [pair for pair in pairs if pair[1] != pair[2]]
    if len(different) < len(pairs):
        log.warning("%d pairs of equal texts are left out", len(pairs) - len(different))
    if not different:
        raise UserError(
            f"{data}: got no prompt with two different completions, wanted at least one"
        )
    return different


def _judged(
    asked: Judge, pairs: Sequence[Pair], part: Path, inputs: str, *, batch: int, stop: Stop
) -> bool:
    """Append to `part` what is not there yet; False where a signal stopped it."""
    from prefrl.language.data import label_row
    from prefrl.loop.metrics import ProgressLine

    done = _begun(part, inputs, batch=batch)
    progress = ProgressLine(len(pairs), step=done, unit="pairs")
    try:
        with part.open("a") as file:
            for start in range(done, len(pairs), batch):
                if stop.asked:
                    return False
                some = pairs[start : start + batch]
                rows: list[dict[str, Any]] = [label_row(label) for label in asked.labels(some)]
                if asked.mode == "sample":
                    for row, pair in zip(rows, some, strict=True):
                        row["principle"] = asked.principle(*pair).name
                file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
                file.flush()
                progress.update(start + len(some), {})
    finally:
        progress.close()
    return True


def _begun(part: Path, inputs: str, *, batch: int) -> int:
    """How many rows are there already, below a line that says of which inputs.

    Whole batches: what a model says of a pair depends, in the last digits, on its batch.

    Raises:
        UserError: of others.
    """
    if not part.exists():
        part.write_text(json.dumps({"inputs": inputs}) + "\n")
    lines = part.read_bytes().split(b"\n")[:-1]  # a kill may have torn the last
    if not lines or json.loads(lines[0]) != {"inputs": inputs}:
        raise UserError(
            f"{part} was begun with another model, constitution, batch or data: bring those "
            "back to go on, or delete it"
        )
    rows = len(lines) - 1
    done = rows - rows % batch
    with part.open("r+b") as file:
        file.truncate(sum(len(line) + 1 for line in lines[: 1 + done]))
    return done


def _publish(part: Path, out: Path) -> None:
    """Without the first line; whole or absent."""
    temporary = out.with_name(f".{out.name}.new")
    temporary.write_bytes(part.read_bytes().partition(b"\n")[2])
    temporary.replace(out)
    part.unlink()
