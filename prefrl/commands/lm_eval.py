"""`prefrl lm eval`: rewards, win rate, KL, length, held-out loss, with intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.commands.lm_best_of_n import new_directory
from prefrl.commands.lm_stage import load_policy, model_in, task_or_data
from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from prefrl.language.evaluate import Evaluation, Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class LmEvalArgs:
    """Evaluate a policy. Writes evaluation.json and samples.jsonl."""

    model: str = ""
    """The policy: a run of `prefrl lm sft|ppo|dpo`, or a checkpoint by path or name."""
    against: str = ""
    """Another policy, usually the SFT model: the KL is to it, and wins are against it."""
    reward: str = ""
    """The run of `prefrl lm reward`: its learned reward is reported, and decides wins where there
    is no gold reward."""
    task: str = ""
    """A task, whose gold reward decides wins: reviews, docstrings."""
    data: Path | None = None
    """Prompts: JSON lines or Parquet with a column prompt."""
    samples: int = 1000
    """Completions; prompts come in turn."""
    temperature: float = 1.0
    """Of sampling; near 0 for what the policy likes best."""
    max_completion: int = 512
    """Tokens; a task has its own."""
    seed: int = 0
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    out: Path | None = None
    """An empty or new directory."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_completion"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        if not self.temperature > 0:
            raise UserError(f"temperature: got {self.temperature}, wanted more than 0")


def main(args: list[str], *, prog: str) -> None:
    """Check everything, sample both sides, report."""
    given = parse(LmEvalArgs, args, prog=prog, default=LmEvalArgs())
    if not given.model:
        raise UserError(f"no model: wanted `{prog} --model RUN`")
    from prefrl.commands.lm_stage import default_directory
    from prefrl.language.data import chat_template, read_prompts
    from prefrl.language.encoded import Limits, encode_demonstrations
    from prefrl.language.evaluate import evaluate, sample
    from prefrl.language.policy import Sampling
    from prefrl.language.reward import load_text_reward

    task = task_or_data(given.task, given.data)
    policy, tokenizer = load_policy(given.model, offline=given.offline)
    other = load_policy(given.against, offline=given.offline)[0] if given.against else None
    learned = load_text_reward(Path(model_in(given.reward))) if given.reward else None
    if task is None:
        assert given.data is not None
        known = read_prompts(given.data, template=chat_template(tokenizer))
    else:
        known = list(task.held_out_prompts)
    cap = given.max_completion if task is None else task.max_completion
    out = given.out or default_directory("eval", given.task or str(given.data))
    new_directory(out)
    sampling = Sampling(temperature=given.temperature, never_said=tokenizer.never_said)

    def said_by(model: Any, seed: int) -> Samples:
        import torch

        return sample(
            model,
            [known[i % len(known)] for i in range(given.samples)],
            tokenizer=tokenizer,
            sampling=sampling,
            max_completion=cap,
            generator=torch.Generator().manual_seed(seed),
        )

    ours = said_by(policy, given.seed)
    theirs = None if other is None else said_by(other, given.seed + 1)
    held_out = None
    if task is not None:
        limits = Limits(max_prompt=task.max_prompt, max_completion=task.max_completion)
        held_out = encode_demonstrations(task.demonstrations(500, 10**6), tokenizer, limits=limits)
    judged = theirs is not None and (task is not None or learned is not None)
    found = evaluate(
        ours,
        model=policy,
        sampling=sampling,
        reference=other,
        gold=None if task is None else task.gold,
        learned=None if learned is None else learned.score,
        against=theirs if judged else None,
        judge=None if task is not None or learned is None else _by_reward(learned, tokenizer),
        held_out=held_out,
    )
    _write(out, found, ours)


def _by_reward(learned: Any, tokenizer: Any) -> Any:
    """The learned reward as the judge of matches."""
    from prefrl.language.encoded import Limits, encode
    from prefrl.language.tasks.annotator import sigmoid

    def judge(prompt: str, first: Any, second: Any) -> float:
        both = encode([(prompt, first), (prompt, second)], tokenizer, limits=Limits())
        a, b = learned.score(both.batch([0, 1])).tolist()
        return sigmoid(b - a)

    return judge


def _write(out: Path, found: Evaluation, said: Samples) -> None:
    (out / "evaluation.json").write_text(json.dumps(found.figures(), indent=1) + "\n")
    with (out / "samples.jsonl").open("w") as file:
        for prompt, completion in zip(said.prompts, said.completions, strict=True):
            row = {"prompt": prompt, "completion": completion.text, "ended": completion.ended}
            file.write(json.dumps(row) + "\n")
    for name in found.__dataclass_fields__:
        value = getattr(found, name)
        if value is not None:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            print(f"{name.replace('_', ' '):<24} {shown}")
