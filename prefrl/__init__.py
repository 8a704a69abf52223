"""Reinforcement learning from preferences, for games, robots and language models.

    env   = prefrl.make_vec("ALE/Pong-v5", num_envs=16, seed=0, actions="reduced")
    run   = prefrl.train("ALE/Pong-v5", labels=1400, out="runs/pong")
    store = prefrl.FeedbackStore.open("runs/pong")
    model = prefrl.RewardModel.load("runs/pong")
    model = prefrl.fit("runs/pong", without=["bob"])
    venv  = prefrl.sb3.LearnedRewardVecEnv(env, model)

Every name loads when it is first used: `import prefrl` alone brings in neither torch nor
gymnasium, so what needs neither opens at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import prefrl.sb3 as sb3
    from envs import make_vec
    from prefrl.errors import UserError
    from prefrl.feedback import FeedbackStore
    from prefrl.refit import fit
    from prefrl.rewards import RewardModel
    from prefrl.run import train

__version__ = "0.1.0"
__all__ = ["FeedbackStore", "RewardModel", "UserError", "fit", "make_vec", "sb3", "train"]

_HOMES = {
    "FeedbackStore": "prefrl.feedback",
    "RewardModel": "prefrl.rewards",
    "UserError": "prefrl.errors",
    "fit": "prefrl.refit",
    "make_vec": "envs",
    "train": "prefrl.run",
}


def __getattr__(name: str) -> Any:
    if name == "sb3":
        return importlib.import_module("prefrl.sb3")
    if name not in _HOMES:
        raise AttributeError(f"module 'prefrl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
