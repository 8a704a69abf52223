"""Proximal policy optimisation on tensors; knows neither Gymnasium nor tokens."""

from prefrl.ppo.gae import gae
from prefrl.ppo.gradient import CompiledGradient, Gradient, GradientOf
from prefrl.ppo.loss import Loss, PPOConfig, ppo_loss
from prefrl.ppo.rollout import Batch, Evaluation, Inputs, Policy, Rollout
from prefrl.ppo.update import PPO

__all__ = [
    "PPO",
    "Batch",
    "CompiledGradient",
    "Evaluation",
    "Gradient",
    "GradientOf",
    "Inputs",
    "Loss",
    "PPOConfig",
    "Policy",
    "Rollout",
    "gae",
    "ppo_loss",
]
