"""Policies for control, and the collector that runs them in a vector environment."""

from prefrl.agents.collector import Collector, Experience, few_threads
from prefrl.agents.policy import (
    Action,
    CategoricalPolicy,
    ControlInputs,
    ControlPolicy,
    GaussianPolicy,
    PolicyConfig,
    make_policy,
    restore_policy,
)

__all__ = [
    "Action",
    "CategoricalPolicy",
    "Collector",
    "ControlInputs",
    "ControlPolicy",
    "Experience",
    "GaussianPolicy",
    "PolicyConfig",
    "few_threads",
    "make_policy",
    "restore_policy",
]
