"""The built-in world: the whole loop in half a minute, for tests and first steps."""

from __future__ import annotations

from prefrl.agents.policy import PolicyConfig
from prefrl.config import QueryConfig, TrainConfig
from prefrl.ppo import PPOConfig
from prefrl.rewards import RewardConfig


def recipe(task: str) -> TrainConfig:
    """Settings for the toy task, all ours."""
    return TrainConfig(
        task=task,
        labels=200,
        steps=60_000,
        num_envs=16,
        rollout_steps=40,
        checkpoint_every=12_800,
        policy=PolicyConfig(widths=(32, 32)),
        ppo=PPOConfig(gamma=0.9, lr=1e-3, minibatches=8, clip=0.2),
        model=RewardConfig(
            dropout=0.0, lr=3e-3, batch=32, updates_per_label=4.0, pretrain_epochs=60.0
        ),
        queries=QueryConfig(schedule="constant", initial=0.5, every=6_400),
    )
