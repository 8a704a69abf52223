"""Proximal policy optimisation on tensors; knows neither Gymnasium nor tokens."""

from prefrl.ppo.advantage import AdvantageOf, CriticAdvantage, GroupAdvantage
from prefrl.ppo.gae import gae
from prefrl.ppo.gradient import Auxiliary, CompiledGradient, Gradient, GradientOf
from prefrl.ppo.loss import Loss, PPOConfig, ppo_loss
from prefrl.ppo.processes import ALONE, Processes, part_of, whole
from prefrl.ppo.rollout import Batch, Evaluation, Inputs, Policy, Rollout
from prefrl.ppo.terms import RewardTerm, add_rewards
from prefrl.ppo.update import PPO

__all__ = [
    "ALONE",
    "PPO",
    "AdvantageOf",
    "Auxiliary",
    "Batch",
    "CompiledGradient",
    "CriticAdvantage",
    "Evaluation",
    "Gradient",
    "GradientOf",
    "GroupAdvantage",
    "Inputs",
    "Loss",
    "PPOConfig",
    "Policy",
    "Processes",
    "RewardTerm",
    "Rollout",
    "add_rewards",
    "gae",
    "part_of",
    "ppo_loss",
    "whole",
]
