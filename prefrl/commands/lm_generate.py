"""`prefrl lm generate`: complete prompts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from prefrl.commands.lm_source import load_policy
from prefrl.commands.parse import parse
from prefrl.errors import UserError

BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateArgs:
    """Complete prompts; prints JSON lines with prompt, completion, and whether it ended."""

    model: str = ""
    """The policy: a run of `prefrl lm sft|ppo|online|dpo`, or a checkpoint by path or name."""
    prompt: tuple[str, ...] = ()
    """Prompts, each in quotes."""
    data: Path | None = None
    """Prompts: JSON lines or Parquet with a column prompt."""
    samples: int = 1
    """Completions of each prompt."""
    max_tokens: int = 64
    """T, tokens of a completion at most."""
    temperature: float = 1.0
    """Of sampling, from the whole distribution; 0: the likeliest token each time."""
    seed: int = 0
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    out: Path | None = None
    """Write there instead; nothing may be there."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        if self.temperature < 0:
            raise UserError(f"temperature: got {self.temperature}, wanted 0 or more")


def main(args: list[str], *, prog: str) -> None:
    """Check everything, then speak."""
    given = parse(GenerateArgs, args, prog=prog, default=GenerateArgs())
    if not given.model or bool(given.prompt) == (given.data is not None):
        raise UserError(f"wanted `{prog} --model RUN` with either --prompt TEXT... or --data FILE")
    if given.out is not None and given.out.exists():
        raise UserError(f"{given.out} exists: give another --out, nothing is overwritten")
    if given.out is not None and not given.out.parent.is_dir():
        raise UserError(f"out: got {given.out}, wanted a file in a folder that is there")
    lines = completed(given)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if given.out is None:
        sys.stdout.write(text)
    else:
        given.out.write_text(text)


def completed(given: GenerateArgs) -> list[dict[str, object]]:
    """A row for each completion."""
    import torch

    from prefrl.language.collect import generate
    from prefrl.language.data import chat_template, read_prompts
    from prefrl.language.models import check_room
    from prefrl.language.policy import Sampling

    model, tokenizer = load_policy(given.model, device=given.device, offline=given.offline)
    device = next(model.parameters()).device
    texts = list(given.prompt)
    if given.data is not None:
        texts = read_prompts(given.data, template=chat_template(tokenizer))
    check_room(model, tokenizer, texts, cap=given.max_tokens, name="model")
    sampling = Sampling(temperature=given.temperature, never_said=tokenizer.never_said)
    generator = torch.Generator().manual_seed(given.seed)
    rows: list[dict[str, object]] = []
    asked = [text for text in texts for _ in range(given.samples)]
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        said = generate(
            model,
            tokenizer.prompts(part).to(device),
            sampling=sampling,
            tokenizer=tokenizer,
            max_tokens=given.max_tokens,
            generator=generator,
        )
        completions = tokenizer.decode(said.completion, said.mask)
        ended = said.ended(tokenizer.eos).tolist()
        rows += [
            {"prompt": prompt, "completion": completion, "ended": whole}
            for prompt, completion, whole in zip(part, completions, ended, strict=True)
        ]
    return rows
