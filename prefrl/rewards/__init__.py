"""Reward models: likelihoods, networks, ensembles, fitting, normalisation, uncertainty."""

from prefrl.rewards.bank import LabelBank, Steps, bootstrap_counts
from prefrl.rewards.fit import RewardFitter
from prefrl.rewards.holdout import HeldOut, held_out, held_out_returns
from prefrl.rewards.likelihood import (
    bradley_terry_loss,
    plackett_luce_loss,
    preference_probability,
    tie_aware_accuracy,
)
from prefrl.rewards.model import RewardConfig, RewardModel, check_stride
from prefrl.rewards.saved import SavedModel, Spaces, find_model
from prefrl.rewards.uncertainty import disagreement, k_center, promise

__all__ = [
    "HeldOut",
    "LabelBank",
    "RewardConfig",
    "RewardFitter",
    "RewardModel",
    "SavedModel",
    "Spaces",
    "Steps",
    "bootstrap_counts",
    "bradley_terry_loss",
    "check_stride",
    "disagreement",
    "find_model",
    "held_out",
    "held_out_returns",
    "k_center",
    "plackett_luce_loss",
    "preference_probability",
    "promise",
    "tie_aware_accuracy",
]
