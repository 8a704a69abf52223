"""Runs a policy in a vector environment and hands over [B, T] tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from prefrl.agents.policy import Action, ControlInputs, ControlPolicy
from prefrl.pixels import from_planes
from prefrl.ppo import Rollout

ROWS_A_THREAD = 16  # at 8 to 16 rows a second thread saves less than it costs the emulator


class ScoreStep(Protocol):
    """The hidden channel of the last step, for oracles and metrics only."""

    true_reward: np.ndarray
    """[B]"""
    episode_end: np.ndarray
    """[B] bool"""
    episode_return: np.ndarray
    """[B] valid where `episode_length` is above 0."""
    episode_length: np.ndarray
    """[B] of an episode that ended; 0: none did, or it was a shorter first one."""


class HiddenScoreVenv(Protocol):
    """A Gymnasium vector environment whose score travels apart from the agent's data."""

    num_envs: int
    single_observation_space: Any
    single_action_space: Any
    score: Any

    def reset_at(self, step: int, *, phases: bool) -> np.ndarray: ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """One rollout, and what really happened in it.

    The next `collect` writes over its observations, prepared ones too: copy what is to be kept.
    """

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
    """True returns of the whole episodes that ended, for oracles and metrics only."""
    episode_lengths: list[int]
    """Their lengths in steps."""
    first_step: int
    """Steps of each environment between the last reset and this rollout."""


class Collector:
    """Steps `venv` with `policy`, T steps at a time, in buffers on the policy's device.

    Args:
        venv: the score is hidden; see `envs.HiddenScoreVectorEnv`.
        generator: draws the actions; on `device`.
        gamma: written into `Rollout.discount`.
    """

    def __init__(
        self,
        venv: HiddenScoreVenv,
        policy: ControlPolicy,
        *,
        gamma: float,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self.venv = venv
        self.policy = policy
        self.gamma = gamma
        self.device = device
        self.generator = generator
        self.pixels = len(venv.single_observation_space.shape) == 3
        self._observation = torch.empty(0)
        self._actions: list[np.ndarray] = []
        self._buffers: dict[str, Tensor] = {}  # of observations, for one rollout after another
        self._reset_step, self._phases = 0, True

    def reset_at(self, step: int, *, phases: bool = True) -> None:
        """Start every environment anew from (seed, step).

        Args:
            phases: each in another phase of its episode. In one phase robots would all stand in
                one rollout and all lie in the next ones, where normalised advantages would make as
                much of the little that still differs.
        """
        self._observation = self._to_device(self.venv.reset_at(step, phases=phases))
        self._actions = []
        self._reset_step, self._phases = step, phases

    def state(self) -> dict[str, Any]:
        """Where the environments are: the reset they came from and all actions since."""
        actions = np.stack(self._actions) if self._actions else np.zeros((0,))
        return {"reset_step": self._reset_step, "phases": self._phases, "actions": actions}

    def restore(self, state: dict[str, Any]) -> None:
        """Replay from the reset, because ALE's vector environment cannot save its state."""
        self.reset_at(state["reset_step"], phases=state["phases"])
        observation = None
        for action in state["actions"]:
            observation = self.venv.step(action)[0]
            self._actions.append(action)
        if observation is not None:
            self._observation = self._to_device(observation)

    @torch.no_grad()
    def collect(self, steps: int) -> Experience:
        """Act for `steps`, T, in each environment."""
        with self.policy.acting(), few_threads(self.venv.num_envs):
            return self._collect(steps)

    def _collect(self, steps: int) -> Experience:
        first_step = len(self._actions)
        log = _Log(self.venv.num_envs, steps, device=self.device, buffers=self._buffers)
        for t in range(steps):
            prepared = self.policy.prepare(self._observation)
            decision = self.policy.act(prepared, generator=self.generator)
            log.decision(t, self._observation, prepared, decision)
            taken = self._clip(decision.action).cpu().numpy()
            following, _, terminated, truncated, infos = self.venv.step(taken)
            assert not terminated.any(), "a termination gives the score away"
            self._actions.append(taken)
            self._observation = self._to_device(following)
            log.score(t, self.venv.score)
            if truncated.any():
                rows = np.flatnonzero(truncated)
                final = self._to_device(infos["final_obs"][rows])
                log.truncation(t, rows, self._value(final))
        log.value[:, steps] = self._value(self._observation)
        seen, action = self._buffers["prepared"], torch.stack(log.action, 1)
        inputs = ControlInputs(observation=seen, action=action)
        return Experience(
            rollout=log.rollout(inputs, gamma=self.gamma),
            observation=self._buffers["observation"],
            action=self._clip(action),
            true_reward=log.true_reward,
            episode_end=log.episode_end,
            episode_returns=log.returns,
            episode_lengths=log.lengths,
            first_step=first_step,
        )

    def _value(self, observation: Tensor) -> Tensor:
        return self.policy.value(self.policy.prepare(observation))

    def _clip(self, action: Tensor) -> Tensor:
        space = self.venv.single_action_space
        if not hasattr(space, "low"):
            return action
        low, high = (torch.as_tensor(x, device=action.device) for x in (space.low, space.high))
        return action.clamp(low, high)

    def _to_device(self, observation: np.ndarray) -> Tensor:
        """Pixels [B, C, H, W] become channels-last [B, H, W, C], once, here."""
        if self.pixels:
            return from_planes(observation, self.device)
        x = torch.from_numpy(np.ascontiguousarray(observation)).to(self.device)
        return x.clone(memory_format=torch.contiguous_format)  # the buffer is the environment's


@contextmanager
def few_threads(rows: int) -> Iterator[None]:
    """Forwards of so few `rows` with fewer threads: the cores are left to the environments.

    A thread of torch's that waits for the next operation spins, and holds up the emulator's on the
    same core: with 16 games on two cores they took 1.4 times as long (docs/log.md, 2026-11-30).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(min(before, rows // ROWS_A_THREAD), 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Log:
    """What happens during one rollout, as it happens.

    Args:
        buffers: "observation" [B, T, *obs] and "prepared" [B, T, *prepared], to be written over;
            where they do not fit, others take their place.
    """

    def __init__(self, B: int, T: int, *, device: torch.device, buffers: dict[str, Tensor]) -> None:
        self.size, self.buffers = (B, T), buffers
        self.action: list[Tensor] = []  # T of [B, *act]
        self.logp: list[Tensor] = []  # T of [B]
        self.value = torch.empty((B, T + 1), device=device)
        self.true_reward, self.episode_end = np.zeros((B, T)), np.zeros((B, T), dtype=bool)
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self._final_values: list[tuple[int, np.ndarray, Tensor]] = []

    def decision(self, t: int, observation: Tensor, prepared: Tensor, decision: Action) -> None:
        """What the policy saw, as observed and prepared, and did at step t."""
        self._keep("observation", observation, t)
        self._keep("prepared", prepared, t)
        self.action.append(decision.action)
        self.logp.append(decision.logp)
        self.value[:, t] = decision.value

    def _keep(self, name: str, x: Tensor, t: int) -> None:
        """x [B, ...] of step t; in the same memory as before, because new pages are slow."""
        buffer, shape = self.buffers.get(name), (*self.size, *x.shape[1:])
        if buffer is None or buffer.shape != shape or buffer.dtype != x.dtype:
            buffer = self.buffers[name] = x.new_empty(shape)
        buffer[:, t] = x

    def score(self, t: int, score: ScoreStep) -> None:
        """What step t really brought."""
        self.true_reward[:, t], self.episode_end[:, t] = score.true_reward, score.episode_end
        whole = score.episode_length > 0
        if whole.any():
            self.returns += score.episode_return[whole].tolist()
            self.lengths += score.episode_length[whole].tolist()

    def truncation(self, t: int, rows: np.ndarray, final_value: Tensor) -> None:
        """A time limit cut the environments `rows` [n] after step t; [n] V of where they were."""
        self._final_values.append((t, rows, final_value))

    def rollout(self, inputs: ControlInputs, *, gamma: float) -> Rollout:
        """All of it for PPO, rewards still zero."""
        value = self.value[:, :-1].contiguous()
        next_value, trace = self.value[:, 1:].clone(), torch.ones_like(value)
        for t, rows, final_value in self._final_values:
            next_value[rows, t], trace[rows, t] = final_value, 0.0
        return Rollout(
            inputs=inputs,
            mask=torch.ones_like(value, dtype=torch.bool),
            logp=torch.stack(self.logp, 1),
            value=value,
            reward=torch.zeros_like(value),
            next_value=next_value,
            discount=torch.full_like(value, gamma),
            trace=trace,
        )
