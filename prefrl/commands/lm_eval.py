"""`prefrl lm eval`: rewards, win rate, KL, length, held-out loss, with intervals."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.commands.lm_best_of_n import new_directory
from prefrl.commands.lm_source import limits_for, load_policy, model_in, task_or_data
from prefrl.commands.lm_stage import default_directory
from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from prefrl.language.encoded import Encoded
    from prefrl.language.evaluate import Evaluation, Samples
    from prefrl.language.records import Completion
    from prefrl.language.reward import TextRewardModel
    from prefrl.language.tasks import TextTask
    from prefrl.language.tokenizer import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LmEvalArgs:
    """Evaluate a policy. Writes evaluation.json and samples.jsonl."""

    model: str = ""
    """The policy: a run of `prefrl lm sft|ppo|online|dpo`, or a checkpoint by path or name."""
    against: str = ""
    """Another policy, usually the SFT model: the KL is to it, and wins are against it."""
    reward: str = ""
    """The run of `prefrl lm reward`, or a classifier of one label by path or name: its learned
    reward is reported, and decides wins where there is no gold reward."""
    task: str = ""
    """A task, whose gold reward decides wins: reviews, docstrings."""
    data: Path | None = None
    """Prompts: JSON lines or Parquet with a column prompt."""
    held_out_data: Path | None = None
    """Texts whose loss is reported: JSON lines or Parquet with prompt and completion; a task holds
    out its own."""
    samples: int = 1000
    """Completions; prompts come in turn."""
    temperature: float = 1.0
    """Of sampling; near 0 for what the policy likes best."""
    max_completion: int = 512
    """Tokens; a task has its own."""
    seed: int = 0
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    out: Path | None = None
    """An empty or new directory. Default: runs/STAGE-NAME-TIME."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_completion"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        if not self.temperature > 0:
            raise UserError(f"temperature: got {self.temperature}, wanted more than 0")
        if self.task and self.held_out_data is not None:
            raise UserError("held_out_data: got a file, but a task holds out its own")


def main(args: list[str], *, prog: str) -> None:
    """Check everything, sample both sides, report."""
    given = parse(LmEvalArgs, args, prog=prog, default=LmEvalArgs())
    if not given.model:
        raise UserError(f"no model: wanted `{prog} --model RUN`")
    from prefrl.language.data import chat_template, read_prompts
    from prefrl.language.models import check_room

    task = task_or_data(given.task, given.data)
    where: Any = {"device": given.device, "offline": given.offline}
    policy, tokenizer = load_policy(given.model, **where)
    other = load_policy(given.against, **where) if given.against else None
    reward = _reward(given)
    if task is None:
        assert given.data is not None
        prompts = read_prompts(given.data, template=chat_template(tokenizer))
    else:
        prompts = list(task.held_out_prompts)
    prompts = prompts[: given.samples]
    cap = given.max_completion if task is None else task.max_completion
    check_room(policy, tokenizer, prompts, cap=cap, name="model")
    if other is not None:
        check_room(*other, prompts, cap=cap, name="against")
    if reward is not None:
        reward.check_room(prompts, cap=cap)
    held_out = _held_out(given, task, policy, tokenizer)
    out = given.out or default_directory("eval", given.task or str(given.data))
    new_directory(out)
    found, said = _evaluated(given, task, policy, tokenizer, other, reward, prompts, cap, held_out)
    _write(out, found, said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A reward model that reads with a tokenizer of its own."""

    model: TextRewardModel
    tokenizer: Tokenizer

    def __call__(self, pairs: Sequence[tuple[str, Completion]]) -> Tensor:
        """(prompt, completion) pairs -> [B]"""
        from prefrl.language.reward import score_texts

        return score_texts(self.model, self.tokenizer, pairs)

    def check_room(self, prompts: Sequence[str], *, cap: int) -> None:
        """Raises UserError where the model has not the positions."""
        self.model.check_room(self.tokenizer, prompts, cap=cap)


def _reward(given: LmEvalArgs) -> Scorer | None:
    if not given.reward:
        return None
    from prefrl.language.reward import load_text_reward
    from prefrl.language.tokenizer import load_tokenizer
    from prefrl.loop.hardware import choose_device

    where = model_in(given.reward)
    tokenizer = load_tokenizer(where, offline=given.offline)
    model = load_text_reward(where, offline=given.offline).to(choose_device(given.device))
    return Scorer(model=model, tokenizer=tokenizer)


def _held_out(
    given: LmEvalArgs, task: TextTask | None, policy: Any, tokenizer: Tokenizer
) -> Encoded | None:
    """Texts that nothing was fitted on, as far as the task, or whoever gives the file, knows."""
    from prefrl.language.data import chat_template, read_demonstrations
    from prefrl.language.encoded import Limits, encode_demonstrations

    if task is not None:
        limits = limits_for(Limits(), task)
        return encode_demonstrations(task.held_out(500), tokenizer, limits=limits)
    if given.held_out_data is None:
        return None
    template = chat_template(tokenizer)
    demonstrations = read_demonstrations(given.held_out_data, template=template)
    room = getattr(policy.config, "max_position_embeddings", 1024)
    limits = Limits(max_prompt=room // 2, max_completion=room // 2, too_long="drop")
    return encode_demonstrations(demonstrations, tokenizer, limits=limits)


def _evaluated(
    given: LmEvalArgs, task: TextTask | None, policy: Any, tokenizer: Any,
    other: tuple[Any, Any] | None, reward: Scorer | None, prompts: list[str], cap: int,
    held_out: Encoded | None,
) -> tuple[Evaluation, Samples]:  # fmt: skip
    from prefrl.language.evaluate import evaluate
    from prefrl.language.policy import Sampling

    def said(model: Any, tokenizer: Any, seed: int) -> tuple[Samples, Sampling]:
        sampling = Sampling(temperature=given.temperature, never_said=tokenizer.never_said)
        about = {"tokenizer": tokenizer, "sampling": sampling, "max_completion": cap}
        return _samples(model, prompts, given.samples, seed=seed, **about), sampling

    ours, sampling = said(policy, tokenizer, given.seed)
    theirs = reference = None
    same_tokens = True
    if other is not None:
        if task is not None or reward is not None:
            theirs, _ = said(*other, given.seed + 1)
        same_tokens = other[1].backend.get_vocab() == tokenizer.backend.get_vocab()
        if same_tokens:
            reference = other[0]
        else:
            log.warning("no KL: %s has another tokenizer than %s", given.against, given.model)
    found = evaluate(
        ours,
        model=policy,
        sampling=sampling,
        reference=reference,
        gold=None if task is None else task.gold,
        learned=None if reward is None else lambda said: reward(said.pairs),
        against=theirs,
        same_tokens=same_tokens,
        judge=_by_reward(reward) if task is None and reward is not None else None,
        held_out=held_out,
    )
    return found, ours


def _samples(model: Any, prompts: list[str], count: int, *, seed: int, **about: Any) -> Samples:
    """`count` completions, the prompts in turn."""
    import torch

    from prefrl.language.evaluate import sample

    chosen = [prompts[i % len(prompts)] for i in range(count)]
    return sample(model, chosen, generator=torch.Generator().manual_seed(seed), **about)


def _by_reward(reward: Scorer) -> Any:
    """The learned reward as the judge of matches."""
    from prefrl.language.tasks.annotator import sigmoid

    def judge(prompt: str, first: Completion, second: Completion) -> float:
        a, b = reward([(prompt, first), (prompt, second)]).tolist()
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
    print(out)
