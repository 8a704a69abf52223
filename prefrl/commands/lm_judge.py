"""`prefrl lm judge`: a language model compares completions by the principles of a constitution."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefrl.commands.lm_source import fingerprint, load_policy
from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from prefrl.language.judge import Judge
    from prefrl.language.records import Completion

log = logging.getLogger(__name__)

Pair = tuple[str, "Completion", "Completion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeArgs:
    """Have a causal language model compare completions in pairs: AI feedback.

    Writes JSON lines with prompt, chosen, rejected and probability, soft labels for `prefrl lm
    reward --data` and `prefrl lm dpo --data`. Ctrl-C keeps what there is; the same command goes on.
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
    seed: int = 0
    """Of the draws of principles."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    out: Path | None = None
    """The file of labels; nothing may be there."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed: got {self.seed}, wanted 0 or more")


def main(args: list[str], *, prog: str) -> None:
    """Check everything, then judge."""
    given = parse(JudgeArgs, args, prog=prog, default=JudgeArgs())
    missing = [
        name for name in ("model", "constitution", "data", "out") if not getattr(given, name)
    ]
    if missing:
        raise UserError(f"{missing[0]}: wanted --{missing[0]}; see `{prog} --help`")
    judge(given)


def judge(given: JudgeArgs) -> None:
    """All pairs, begun or gone on with."""
    assert given.constitution is not None
    assert given.data is not None
    assert given.out is not None
    if given.out.exists():
        raise UserError(f"{given.out} exists: give another --out, nothing is overwritten")
    if not given.out.parent.is_dir():
        raise UserError(f"out: got {given.out}, wanted a file in a folder that is there")
    from prefrl.language.judge import Judge, LanguageModelBackend, read_constitution

    constitution = read_constitution(given.constitution)
    pairs = _pairs(given.data)
    model, tokenizer = load_policy(given.model, device=given.device, offline=given.offline)
    backend = LanguageModelBackend(model, tokenizer)
    asked = Judge(
        backend=backend, constitution=constitution, mode=given.mode, seed=given.seed,
        name=Path(given.model).name,
    )  # fmt: skip
    inputs = fingerprint([fingerprint(model), constitution, given.mode, given.seed, pairs])
    part = given.out.with_name(f"{given.out.name}.part")
    if _judged(asked, pairs, part, inputs):
        _publish(part, given.out)
        log.info("%s: %d labels", given.out, len(pairs))
    else:
        log.info("stopped: the same command goes on from %s", part)


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


def _judged(asked: Judge, pairs: Sequence[Pair], part: Path, inputs: str) -> bool:
    """Append to `part` what is not there yet; False where a signal stopped it."""
    from prefrl.language.data import label_row
    from prefrl.loop.metrics import ProgressLine
    from prefrl.loop.train import Stop

    done = _begun(part, inputs)
    progress = ProgressLine(len(pairs), step=done, unit="pairs")
    try:
        with part.open("a") as file, Stop().on_signals() as stop:
            for number, pair in enumerate(pairs[done:], done + 1):
                if stop.asked:
                    return False
                row: dict[str, Any] = label_row(asked.label(*pair))
                if asked.mode == "sample":
                    row["principle"] = asked.principle(*pair).name
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                progress.update(number, {})
    finally:
        progress.close()
    return True


def _begun(part: Path, inputs: str) -> int:
    """How many rows are there already, below a line that says of which inputs.

    Raises:
        UserError: of others.
    """
    if not part.exists():
        part.write_text(json.dumps({"inputs": inputs}) + "\n")
    lines = part.read_bytes().split(b"\n")
    whole = lines[:-1]  # a kill may have torn the last
    part.write_bytes(b"".join(line + b"\n" for line in whole))
    if not whole or json.loads(whole[0]) != {"inputs": inputs}:
        raise UserError(
            f"{part} was begun with another model, constitution or data: bring those back to go "
            "on, or delete it"
        )
    return len(whole) - 1


def _publish(part: Path, out: Path) -> None:
    """Without the first line; whole or absent."""
    temporary = out.with_name(f".{out.name}.new")
    temporary.write_bytes(part.read_bytes().partition(b"\n")[2])
    temporary.replace(out)
    part.unlink()
