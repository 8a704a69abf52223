"""Huang et al. 2024 ("The N+ implementation details", arXiv:2403.17031): TL;DR with Pythia.

Not run by us: each of its runs took eight H100s. It shows which of its settings is which setting
here. Data: the TL;DR summaries and comparisons of Stiennon et al. 2020 as JSON lines, prompts cut
to 512 tokens at a line break, completions with a space before them.

    from prefrl.commands.lm_sft import sft
    from prefrl.recipes import tldr_pythia

    sft(tldr_pythia.sft(data=Path("tldr.jsonl")), Path("runs/tldr-sft"))

Its own reference results, four seeds: win rates over the reference summaries of SFT .33 (1B) to
.435 (6.9B), of PPO .705 to .78 at 2.8B and 6.9B; of the 1B policies two of four collapsed.
"""

from __future__ import annotations

from pathlib import Path

from prefrl.commands.lm_ppo import LmPPOConfig
from prefrl.commands.lm_reward import RewardStageConfig
from prefrl.commands.lm_sft import SftConfig
from prefrl.language.config import LanguageConfig
from prefrl.language.encoded import Limits
from prefrl.language.optimise import OptimConfig
from prefrl.language.reward import TextRewardConfig
from prefrl.ppo import PPOConfig

MODEL = "EleutherAI/pythia-1b-deduped"
RESPONSE = 53  # tokens, with the end
LIMITS = Limits(max_prompt=512, max_completion=RESPONSE)
LABELLED = Limits(max_prompt=512, max_completion=169)  # compared summaries are longer


def sft(*, data: Path, model: str = MODEL) -> SftConfig:
    """116,722 reference summaries, one pass."""
    return SftConfig(
        model=model,
        data=data,
        limits=LIMITS,
        optim=OptimConfig(lr=3e-6, schedule="cosine", batch=128, epochs=1, adam_eps=1e-5),
    )


def reward(*, model: str, data: Path) -> RewardStageConfig:
    """92,832 comparisons, one pass."""
    return RewardStageConfig(
        model=model,
        data=data,
        limits=LABELLED,
        reward=TextRewardConfig(
            normalise=True,  # theirs: reference summaries score 0, deviations as they come
        ),
        optim=OptimConfig(lr=3e-6, schedule="cosine", batch=64, epochs=1, adam_eps=1e-5),
    )


def ppo(*, model: str, reward: str, data: Path) -> LmPPOConfig:
    """A million episodes, 512 a rollout."""
    return LmPPOConfig(
        model=model,
        reward=reward,
        data=data,
        batch=512,  # theirs: episodes of a rollout
        lm=LanguageConfig(
            updates=1953,
            max_tokens=RESPONSE,
            temperature=0.7,
            critic="separate",  # a copy of the reward model
            beta=0.05,
            missing_eos="replace",
            missing_eos_value=-1.0,
            ppo=PPOConfig(
                gamma=1.0,
                lam=0.95,
                lr=3e-6,
                lr_end=0.0,
                epochs=4,
                minibatches=1,
                clip=0.2,
                value_clip=0.2,
                value_coef=0.1,
                entropy_coef=0.0,
                max_grad_norm=1.0,
                adam_eps=1e-5,
                normalise="rollout",  # advantages are whitened over the batch
            ),
        ),
    )
