"""Runs a policy in a vector environment and hands over [B, T] tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from prefrl.agents.policy import ControlInputs, ControlPolicy
from prefrl.ppo import Rollout


class ScoreStep(Protocol):
    """The hidden channel of the last step, for oracles and metrics only."""

    true_reward: np.ndarray
    """[B]"""
    episode_end: np.ndarray
    """[B] bool"""
    episode_return: np.ndarray
    """[B] valid where episode_end."""
    episode_length: np.ndarray
    """[B] valid where episode_end."""


class HiddenScoreVenv(Protocol):
    """A Gymnasium vector environment whose score travels apart from the agent's data."""

    num_envs: int
    single_observation_space: Any
    single_action_space: Any
    score: Any

    def reset_at(self, step: int) -> np.ndarray: ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """One rollout, and what really happened in it."""

    rollout: Rollout
    """Rewards still zero."""
    observation: Tensor
    """[B, T, *obs] what the reward model sees."""
    action: Tensor
    """[B, T, *act] as the environment took it (continuous actions clipped)."""
    true_reward: np.ndarray
    """[B, T] float64, hidden: oracles and metrics only."""
    episode_end: np.ndarray
    """[B, T] bool, hidden: segments stop here."""
    episode_returns: list[float]
    """True returns of the episodes that ended, for oracles and metrics only."""
    episode_lengths: list[int]
    """Their lengths in steps."""
    first_step: int
    """Steps of each environment between the last reset and this rollout."""


class Collector:
    """Steps `venv` with `policy`, T steps at a time, in buffers on the policy's device.

    Args:
        venv: the score is hidden; see `envs.HiddenScoreVectorEnv`.
        steps: T, steps of each environment per rollout.
        generator: draws the actions; on `device`.
        gamma: written into `Rollout.discount`.
    """

    def __init__(
        self,
        venv: HiddenScoreVenv,
        policy: ControlPolicy,
        *,
        steps: int,
        gamma: float,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self.venv = venv
        self.policy = policy
        self.steps = steps
        self.gamma = gamma
        self.device = device
        self.generator = generator
        self.pixels = len(venv.single_observation_space.shape) == 3
        self._observation = torch.empty(0)
        self._actions: list[np.ndarray] = []
        self._reset_step = 0

    def reset_at(self, step: int) -> None:
        """Start every environment anew from (seed, step)."""
        self._observation = self._to_device(self.venv.reset_at(step))
        self._actions = []
        self._reset_step = step

    def state(self) -> dict[str, Any]:
        """Where the environments are: the reset they came from and all actions since."""
        actions = np.stack(self._actions) if self._actions else np.zeros((0,))
        return {"reset_step": self._reset_step, "actions": actions}

    def restore(self, state: dict[str, Any]) -> None:
        """Replay from the reset, because ALE's vector environment cannot save its state."""
        self.reset_at(state["reset_step"])
        observation = None
        for action in state["actions"]:
            observation = self.venv.step(action)[0]
            self._actions.append(action)
        if observation is not None:
            self._observation = self._to_device(observation)

    @torch.no_grad()
    def collect(self) -> Experience:
        """Act for T steps."""
        B, T = self.venv.num_envs, self.steps
        first_step = len(self._actions)
        observation = torch.empty(
            (B, T, *self._observation.shape[1:]), dtype=self._observation.dtype, device=self.device
        )
        action, logp, value = [], [], torch.empty((B, T + 1), device=self.device)
        truncated = np.zeros((B, T), dtype=bool)
        true_reward, episode_end = np.zeros((B, T)), np.zeros((B, T), dtype=bool)
        final_values: list[tuple[np.ndarray, int, Tensor]] = []
        returns: list[float] = []
        lengths: list[int] = []

        for t in range(T):
            observation[:, t] = self._observation
            decision = self.policy.act(self._observation, generator=self.generator)
            action.append(decision.action)
            logp.append(decision.logp)
            value[:, t] = decision.value
            taken = self._taken(decision.action)
            following, _, terminated, truncated[:, t], infos = self.venv.step(taken)
            assert not terminated.any(), "a termination gives the score away"
            self._actions.append(taken)
            self._observation = self._to_device(following)

            score = self.venv.score
            true_reward[:, t], episode_end[:, t] = score.true_reward, score.episode_end
            ended = score.episode_end
            if ended.any():
                returns += score.episode_return[ended].tolist()
                lengths += score.episode_length[ended].tolist()
            if truncated[:, t].any():
                rows = np.flatnonzero(truncated[:, t])
                final = self._to_device(infos["final_obs"][rows])
                final_values.append((rows, t, self.policy.value(final)))
        value[:, T] = self.policy.value(self._observation)

        next_value = value[:, 1:].clone()
        for rows, t, final_value in final_values:
            next_value[rows, t] = final_value
        inputs = ControlInputs(
            observation=self.policy.prepare(observation), action=torch.stack(action, 1)
        )
        rollout = Rollout(
            inputs=inputs,
            mask=torch.ones((B, T), dtype=torch.bool, device=self.device),
            logp=torch.stack(logp, 1),
            value=value[:, :-1].contiguous(),
            reward=torch.zeros((B, T), device=self.device),
            next_value=next_value,
            discount=torch.full((B, T), self.gamma, device=self.device),
            trace=torch.from_numpy(~truncated).to(self.device, torch.float32),
        )
        return Experience(
            rollout=rollout,
            observation=observation,
            action=self._clip(inputs.action),
            true_reward=true_reward,
            episode_end=episode_end,
            episode_returns=returns,
            episode_lengths=lengths,
            first_step=first_step,
        )

    def _taken(self, action: Tensor) -> np.ndarray:
        return self._clip(action).cpu().numpy()

    def _clip(self, action: Tensor) -> Tensor:
        space = self.venv.single_action_space
        if not hasattr(space, "low"):
            return action
        low, high = (torch.as_tensor(x, device=action.device) for x in (space.low, space.high))
        return action.clamp(low, high)

    def _to_device(self, observation: np.ndarray) -> Tensor:
        """Pixels [B, C, H, W] become channels-last [B, H, W, C], once, here."""
        x = torch.from_numpy(np.ascontiguousarray(observation)).to(self.device)
        x = x.permute(0, 2, 3, 1) if self.pixels else x
        return x.clone(memory_format=torch.contiguous_format)  # the buffer is the environment's
