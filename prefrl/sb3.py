"""Lets any stable-baselines3 algorithm train on a learned reward.

    venv = LearnedRewardVecEnv(prefrl.make_vec("Pendulum-v1", num_envs=4, seed=0), model)
    SAC("MlpPolicy", venv).learn(10_000)

The true reward stays hidden: neither rewards nor infos hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    unwrap_vec_wrapper,
)

from prefrl.errors import UserError
from prefrl.loop.state import spaces_for
from prefrl.rewards import RewardModel

SHOWN = ("terminal_observation", "TimeLimit.truncated")
"""What algorithms need to bootstrap at a time limit; nothing else of an info passes."""


class LearnedRewardVecEnv(VecEnvWrapper):
    """A vector environment of stable-baselines3 whose reward is a reward model's.

    Every step of all B environments is scored in one forward pass, from the observation
    that was acted upon and the action, as while the model was fitted.

    Args:
        env: from `prefrl.make_vec`; another of Gymnasium's whose sub-environments restart within
            the step in which an episode ends (`AutoresetMode.SAME_STEP`); or one of
            stable-baselines3.
        model: fitted to `env`'s observations and actions.
        phases: where all episodes last equally long, begin them in different phases, as
            `prefrl train` does: the first ones are shorter. For `evaluate_policy`, which would
            count those too, False. Environments of `prefrl.make_vec` know how.

    Raises:
        UserError: the model was fitted to other spaces, or not at all; or sub-environments restart
            at another moment.
    """

    def __init__(self, env: VectorEnv | VecEnv, model: RewardModel, *, phases: bool = True) -> None:
        if not isinstance(env, VectorEnv | VecEnv):
            raise UserError(
                f"env: got {type(env).__name__}, wanted several environments: one of "
                "prefrl.make_vec, gymnasium.make_vec, or stable-baselines3's DummyVecEnv"
            )
        if not hasattr(model, "spaces"):
            raise UserError(
                f"model: got {model!r}, wanted a reward model: `prefrl.RewardModel.load(RUN)`"
            )
        venv = env if isinstance(env, VecEnv) else GymnasiumVecEnv(env, phases=phases)
        if not isinstance(venv.observation_space, Box) or not isinstance(
            venv.action_space, Box | Discrete
        ):
            raise UserError(
                f"env: got observations {venv.observation_space} and actions {venv.action_space}, "
                "wanted a Box, and a Box or Discrete"
            )
        normalises = unwrap_vec_wrapper(venv, VecNormalize)
        if normalises is not None and normalises.norm_obs:
            raise UserError(
                "env: got a VecNormalize, whose observations the reward model was not fitted to; "
                "wanted it around this wrapper"
            )
        wanted, got = spaces_for(venv.observation_space, venv.action_space), model.spaces
        if wanted != got:
            raise UserError(f"the reward model reads {got}, but the environment gives {wanted}")
        if not model.fitted:
            raise UserError("the reward model was never fitted, so it would reward nothing")
        super().__init__(venv)
        self.model = model
        self._observation = np.empty(0)
        self._actions = np.empty(0)

    def reset(self) -> np.ndarray:
        """First observations: [B, *obs]; pixels uint8 [B, C, H, W]."""
        self._observation = np.asarray(self.venv.reset())
        return self._observation

    def step_async(self, actions: np.ndarray) -> None:
        """Pass the actions on, and remember them."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Observations [B, *obs], learned rewards [B], ends [B], infos."""
        before = self._observation.copy()
        following, _, done, infos = self.venv.step_wait()
        self._observation = np.asarray(following)
        shown = [{name: info[name] for name in SHOWN if name in info} for info in infos]
        return self._observation, self._reward(before), done, shown

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never: scores would leak through a Monitor below."""
        return [False] * len(list(self._get_indices(indices)))

    def _reward(self, observation: np.ndarray) -> np.ndarray:
        """[B, *obs] -> [B] float32."""
        x = torch.from_numpy(observation).to(self.model.device)
        if self.model.spaces.kind == "pixels":
            x = x.permute(0, 2, 3, 1)
        action = torch.from_numpy(np.asarray(self._actions)).to(self.model.device)
        return self.model.score_steps(x.unsqueeze(1), action.unsqueeze(1))[:, 0].cpu().numpy()


class GymnasiumVecEnv(VecEnv):
    """A vector environment of Gymnasium as one of stable-baselines3."""

    def __init__(self, env: VectorEnv, *, phases: bool) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise UserError(
                f"the environment restarts its episodes by {mode}: wanted AutoresetMode.SAME_STEP, "
                "an argument of gymnasium's vector environments, or one of prefrl.make_vec"
            )
        self.env, self.phases = env, phases
        self.render_mode = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions = np.empty(0)
        self._played = 0

    def reset(self) -> np.ndarray:
        """First observations [B, *obs].

        Without a seed of its own a later reset begins elsewhere than the ones before it, where
        the environment knows how (`reset_at`): `learn` resets at every call.
        """
        seed = self._seeds[0]  # one for all: sub-environments derive theirs from it
        options = self._options[0] or None
        if seed is None and options is None and hasattr(self.env, "reset_at"):
            observation = self.env.reset_at(self._played, phases=self.phases)
        else:
            observation, self._played = self.env.reset(seed=seed, options=options)[0], 0
            if self.phases and options is None and hasattr(self.env, "reset_at"):
                observation = self.env.reset_at(0, phases=True)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Observations [B, *obs], rewards [B], ends [B], infos."""
        self._played += self.num_envs
        observation, reward, terminated, truncated, about = self.env.step(self._actions)
        infos = [self._info(env, terminated, truncated, about) for env in range(self.num_envs)]
        return observation, reward, terminated | truncated, infos

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of this adapter: sub-environments have none of their own."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not offered: sub-environments share one array."""
        raise NotImplementedError(f"cannot set {attr_name!r}: sub-environments share one array")

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Not offered: sub-environments share one array."""
        raise NotImplementedError(f"cannot call {method_name!r}: sub-environments share one array")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """None: clips are drawn by `envs.render_clip`."""
        return [None] * self.num_envs

    def _info(
        self, env: int, terminated: np.ndarray, truncated: np.ndarray, about: dict[str, Any]
    ) -> dict[str, Any]:
        """What stable-baselines3 needs to bootstrap at a time limit."""
        if not (terminated[env] or truncated[env]):
            return {}
        return {
            "terminal_observation": about["final_obs"][env],
            "TimeLimit.truncated": bool(truncated[env] and not terminated[env]),
        }
