"""Settings of PPO on a language model, with the field's usual values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from prefrl.errors import UserError, refuse_idle
from prefrl.language.terms import MissingEOS
from prefrl.ppo import PPOConfig

if TYPE_CHECKING:
    from prefrl.language.tasks import TextTask


CRITIC = ("gamma", "lam", "value_clip", "value_coef")  # settings of the update for one
TOKENS = 48


def language_ppo() -> PPOConfig:
    """The update as Ziegler et al. 2019 and Stiennon et al. 2020 have it, for small models."""
    return PPOConfig(
        gamma=1.0,
        lam=0.95,
        lr=1e-5,
        epochs=4,
        minibatches=4,
        clip=0.2,
        value_clip=0.2,
        value_coef=0.1,
        entropy_coef=0.0,
        max_grad_norm=1.0,
        normalise="rollout",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageConfig:
    """PPO, RLOO or GRPO on completions."""

    updates: int = 200
    """Updates planned; the step size anneals over them."""
    samples: int = 1
    """Completions of each prompt: rloo and grpo compare them, and want 2 or more."""
    max_tokens: int | None = None
    """T, tokens of a completion at most; None: as many as the texts of the task have, or 48."""
    temperature: float = 1.0
    """Of sampling, and so of the log-probabilities of policy and reference."""
    advantage: Literal["critic", "rloo", "grpo"] = "critic"
    """Advantages from a critic (PPO), or from the other completions of the same prompt."""
    critic: Literal["separate", "shared"] = "separate"
    """A trunk of its own, the reward model's or else the policy's; or a zero head on the latter."""
    beta: float = 0.05
    """Weight of the KL penalty, in reward per nat: higher stays closer to the reference. It
    means something only once rewards have a deviation of about 1."""
    kl_target: float | None = None
    """Steer beta to hold this many nats per sequence; None: beta is fixed."""
    kl_horizon: int = 10_000
    """Episodes over which beta is steered: longer is steadier and slower."""
    missing_eos: Literal["replace", "subtract", "keep"] = "replace"
    """The score of a completion that was cut off: put a value in its place, subtract it, or
    keep the score."""
    missing_eos_value: float = -1.0
    """That value: -1 to replace in Ziegler et al. 2019; a positive one to subtract."""
    whiten_rewards: bool = False
    """Scale the rewards of a rollout to deviation 1, their mean kept."""
    pretraining: float = 0.0
    """Weight gamma of the pretraining loss, the mean over tokens; 0: none."""
    pretraining_batch: int = 16
    """Pretraining texts for each minibatch."""
    lora_rank: int = 0
    """Rank of LoRA adapters, of which alone the policy then learns; 0: all weights learn."""
    lora_alpha: int = 16
    """Scale of the adapters, divided by their rank."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward passes; weights stay float32."""
    shard: bool = False
    """Of several devices each holds a part of every weight, gradient and moment (FSDP): less
    memory, more traffic."""
    chunk: int | None = None
    """Evaluate at most this many completions at a time, and accumulate gradients; results stay
    the same, memory falls. None: a whole minibatch at once."""
    ppo: PPOConfig = field(default_factory=language_ppo)

    def __post_init__(self) -> None:
        for name in ("updates", "samples", "kl_horizon", "pretraining_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        for name in ("max_tokens", "chunk"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more, or none")
        for name in ("beta", "pretraining", "lora_rank"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        for name in ("temperature", "lora_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted more than 0")
        self._check_idle()
        if self.kl_target is not None and not self.kl_target > 0:
            raise UserError(f"kl_target: got {self.kl_target}, wanted more than 0 nats")
        if self.kl_target is not None and not self.beta:
            raise UserError("kl_target: got one, with beta 0, which nothing can steer; wanted more")
        if self.shard and self.lora_rank:
            raise UserError(
                f"shard: got it with lora_rank {self.lora_rank}, wanted one of them: adapters "
                "are merged from whole weights"
            )
        if self.advantage != "critic" and self.samples < 2:
            raise UserError(
                f"samples: got {self.samples}, wanted 2 or more: {self.advantage} compares the "
                "completions of one prompt"
            )
        if self.advantage != "critic" and self.critic == "shared":
            raise UserError(
                f"critic: got shared, with {self.advantage}, which has none; wanted advantage "
                "critic, or nothing said of one"
            )
        if self.advantage != "critic" and self.ppo.normalise == "minibatch":
            raise UserError(
                f"ppo.normalise: got minibatch, with {self.advantage}, whose groups a minibatch "
                "parts; wanted rollout or none"
            )
        for name in CRITIC if self.advantage != "critic" else ():
            beside = f"{self.advantage}, which has no critic and discounts nothing"
            usual = getattr(language_ppo(), name)
            refuse_idle(f"ppo.{name}", getattr(self.ppo, name), usual, beside=beside)
        if not math.isfinite(self.missing_eos_value):
            raise UserError(f"missing_eos_value: got {self.missing_eos_value}, wanted a number")
        if self.missing_eos == "replace" and self.missing_eos_value > 0:
            raise UserError(
                f"missing_eos_value: got {self.missing_eos_value}, wanted 0 or less: to put a "
                "positive value in place of the score would reward endless completions"
            )
        if self.missing_eos == "subtract" and self.missing_eos_value < 0:
            raise UserError(
                f"missing_eos_value: got {self.missing_eos_value}, wanted 0 or more: to subtract "
                "a negative value would reward endless completions"
            )

    def _check_idle(self) -> None:
        """Settings whose effect hangs on another one."""
        idle = {
            "kl_horizon": "no kl_target" if self.kl_target is None else "",
            "missing_eos_value": "missing_eos keep" if self.missing_eos == "keep" else "",
            "lora_alpha": "" if self.lora_rank else "lora_rank 0",
            "pretraining_batch": "" if self.pretraining else "pretraining 0",
        }
        defaults = {f.name: f.default for f in fields(self)}
        for name, beside in idle.items():
            if beside:
                refuse_idle(name, getattr(self, name), defaults[name], beside=beside)

    @property
    def cap(self) -> int:
        """T."""
        return TOKENS if self.max_tokens is None else self.max_tokens

    def of_task(self, task: TextTask | None) -> LanguageConfig:
        """With the length of its texts, where none is given."""
        if self.max_tokens is not None:
            return self
        return replace(self, max_tokens=TOKENS if task is None else task.max_completion)

    @property
    def missing_eos_rule(self) -> MissingEOS:
        """As a function of scores."""
        return MissingEOS(rule=self.missing_eos, value=self.missing_eos_value)
