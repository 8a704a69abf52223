"""`prefrl lm sft`: imitate demonstrations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prefrl.commands.lm_source import (
    ModelArgs,
    check_positions,
    fingerprint,
    limits_for,
    load_policy,
    task_or_data,
)
from prefrl.commands.lm_stage import (
    adapters_on,
    check_fit,
    default_directory,
    finished_there,
    held_out_figures,
    held_out_split,
    read_settings,
    run_stage,
)
from prefrl.errors import UserError, refuse_idle
from prefrl.language.encoded import Limits
from prefrl.language.optimise import OptimConfig

PANELS = {
    "Cross-entropy, nats a token": {"fit/loss": "fitted on", "fit/held_out_loss": "held out"},
    "Tokens guessed right": {
        "fit/token_accuracy": "fitted on",
        "fit/held_out_token_accuracy": "held out",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SftConfig:
    """Settings of supervised fine-tuning."""

    model: str = "llama"
    """A checkpoint by path or name, the run of an earlier stage, or of a task a new small "llama"
    or "gpt2" with a tokenizer trained here."""
    task: str = ""
    """A task that needs no download: reviews, docstrings."""
    data: Path | None = None
    """Demonstrations: JSON lines or Parquet with prompt and completion, or messages."""
    demonstrations: int = 8000
    """Of a task."""
    held_out: float = 0.05
    """Share of the demonstrations that is not fitted on."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    checkpoint_every: int = 200
    """Steps."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=2e-3, lr_end=0.15, batch=64, epochs=4)
    )
    limits: Limits = field(default_factory=Limits)
    """Of data; a task has its own."""
    new: ModelArgs = field(default_factory=ModelArgs)
    """Of a new model."""

    def __post_init__(self) -> None:
        check_fit(self)
        if self.demonstrations < 1:
            raise UserError(f"demonstrations: got {self.demonstrations}, wanted 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SftArgs(SftConfig):
    """Fine-tune a language model on demonstrations."""

    out: Path | None = None
    """Run directory; the same command with the same one goes on. Default: runs/STAGE-NAME-TIME."""


def main(args: list[str], *, prog: str) -> None:
    """Read and check everything, then fit."""
    config, out = read_settings(SftConfig, SftArgs, args, prog=prog)
    sft(config, out or default_directory("sft", config.task or str(config.data)))


def sft(config: SftConfig, out: Path) -> None:
    """One run, begun or resumed."""
    from prefrl.language.data import chat_template, read_demonstrations
    from prefrl.language.encoded import encode_demonstrations
    from prefrl.language.lora import merged
    from prefrl.language.models import save_model
    from prefrl.language.optimise import Fit
    from prefrl.language.sft import SftObjective

    if finished_there(out, config):
        return
    task = task_or_data(config.task, config.data)
    if task is None:
        default = SftConfig().demonstrations
        refuse_idle(
            "demonstrations", config.demonstrations, default, beside="data, of which all are read"
        )
    limits = limits_for(config.limits, task)
    model, tokenizer = load_policy(
        config.model, device=config.device, offline=config.offline, new=config.new, task=task,
        seed=config.optim.seed,
    )  # fmt: skip
    inputs = {"model": fingerprint(model)}
    check_positions(model, limits)
    if task is not None:
        demonstrations = list(task.demonstrations(config.demonstrations, config.optim.seed))
    else:
        assert config.data is not None
        demonstrations = read_demonstrations(config.data, template=chat_template(tokenizer))
    texts = encode_demonstrations(demonstrations, tokenizer, limits=limits)
    train, held_out = held_out_split(range(len(texts)), config.held_out, seed=config.optim.seed)

    model = adapters_on(model, config.optim)
    aside = SftObjective(model, texts.part(held_out))
    run_stage(
        config,
        out,
        fits=[Fit(SftObjective(model, texts.part(train)), config.optim)],
        held_out=lambda: held_out_figures([aside], config.optim),
        finish=lambda path: save_model(merged(model), tokenizer, path),
        panels=PANELS,
        title=f"SFT · {config.task or config.data}",
        inputs={**inputs, "examples": fingerprint(demonstrations)},
    )
