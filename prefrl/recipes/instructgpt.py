"""Ouyang et al. 2022 (InstructGPT, arXiv:2203.02155): SFT, a K-wise reward model, PPO with ptx.

Not run by us: the prompts and demonstrations are not public, and the models are out of reach of
the machines at hand. It shows which setting of the paper is which setting here.

    from prefrl.commands.lm_reward import reward
    from prefrl.recipes import instructgpt

    reward(instructgpt.reward(model="runs/sft", data=Path("rankings.jsonl")), Path("runs/reward"))

"s": as others quote the paper; "r": as we recall it, not checked; "ours": the paper is silent.
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

LIMITS = Limits(max_prompt=1024, max_completion=1024, too_long="drop")  # r: 2k tokens in all


def sft(*, model: str, data: Path) -> SftConfig:
    """Demonstrations: 12,725 prompts (s). The model with the best reward score is kept (s)."""
    return SftConfig(
        model=model,
        data=data,
        limits=LIMITS,
        optim=OptimConfig(
            lr=9.65e-6,  # r: of the smaller models
            schedule="cosine",  # r
            lr_end=0.1,  # r
            batch=32,  # r
            epochs=16,  # s
        ),
    )


def reward(*, model: str, data: Path) -> RewardStageConfig:
    """Rankings of 4 to 9 completions (s); one 6B reward model for all policies (s)."""
    return RewardStageConfig(
        model=model,
        data=data,
        limits=LIMITS,
        reward=TextRewardConfig(
            rankings="pairs",  # s: all K-choose-2 pairs of a prompt in one batch, weight 1 a prompt
            normalise=True,  # s: demonstrations have mean 0; here the SFT model's own completions
        ),
        optim=OptimConfig(
            lr=9e-6,  # s
            schedule="cosine",  # r
            lr_end=0.1,  # r
            batch=64,  # s: prompts, hence up to 2,304 comparisons
            epochs=1,  # s: more overfits
        ),
    )


def ppo(*, model: str, reward: str, data: Path, texts: Path) -> LmPPOConfig:
    """256,000 episodes (r) of the 31,144 prompts of the API (s)."""
    return LmPPOConfig(
        model=model,
        reward=reward,
        data=data,
        pretraining_data=texts,
        batch=512,  # r: episodes of a rollout
        lm=LanguageConfig(
            updates=500,  # r: of 512 episodes each
            max_tokens=1024,
            temperature=1.0,  # r
            critic="separate",  # s: begins as the reward model
            beta=0.02,  # s
            pretraining=27.8,  # s; its scale hangs on how the loss is averaged: ours is over tokens
            pretraining_batch=512,  # r: 8 pretraining examples for each of 64 episodes
            missing_eos="keep",  # ours
            ppo=PPOConfig(
                gamma=1.0,  # r
                lam=0.95,  # r
                lr=9e-6,  # ours
                lr_end=1.0,  # r: constant after a warm-up
                epochs=1,  # r
                minibatches=8,  # r
                clip=0.2,  # r
                value_clip=0.2,  # ours
                value_coef=0.1,  # ours
                entropy_coef=0.0,
                max_grad_norm=1.0,  # ours
                normalise="rollout",  # ours
            ),
        ),
    )
