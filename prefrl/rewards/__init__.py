"""Reward models: likelihoods, networks, ensembles, fitting, normalisation, uncertainty."""

from prefrl.rewards.bank import LabelBank, Steps, bootstrap_counts
from prefrl.rewards.fit import RewardFitter
from prefrl.rewards.likelihood import (
    bradley_terry_loss,
    plackett_luce_loss,
    preference_probability,
    tie_aware_accuracy,
)
from prefrl.rewards.model import RewardConfig, RewardModel, Spaces
from prefrl.rewards.uncertainty import disagreement, promise

__all__ = [
    "LabelBank",
    "RewardConfig",
    "RewardFitter",
    "RewardModel",
    "Spaces",
    "Steps",
    "bootstrap_counts",
    "bradley_terry_loss",
    "disagreement",
    "plackett_luce_loss",
    "preference_probability",
    "promise",
    "tie_aware_accuracy",
]
