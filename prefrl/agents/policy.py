"""Actor-critics for discrete and continuous control."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from prefrl.agents.networks import ObservationNormaliser, PixelTrunk, init_linear, mlp
from prefrl.errors import UserError, refuse_idle
from prefrl.pixels import BYTES, LEAST_VAR, LIMIT
from prefrl.ppo import Evaluation

# (filters, kernel, stride) and features
TRUNKS: dict[str, tuple[tuple[tuple[int, int, int], ...], int]] = {
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),  # Mnih et al. 2015
    "small": (((16, 8, 4), (32, 4, 2)), 256),  # Mnih et al. 2013
}


LOOKED_AT = 8  # every so many steps of a rollout go into the statistics of pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """The actor-critic network."""

    trunk: Literal["nature", "small"] = "nature"
    """Convolutions for pixels: Mnih et al. 2015, or the three times cheaper ones of 2013."""
    widths: tuple[int, ...] = (64, 64)
    """Tanh layers for state observations, actor and critic apart."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the convolutions; auto: bf16 where the hardware has it."""
    normalise_observations: bool = True
    """Standardise observations by running statistics, pixels each place of the picture; false:
    states as they are, pixels from 0 to 1."""
    log_std: float = 0.0
    """Initial log standard deviation of continuous actions."""

    def __post_init__(self) -> None:
        if not all(width >= 1 for width in self.widths):
            raise UserError(f"policy.widths: got {self.widths}, wanted each 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlInputs:
    """Observations and actions: what a control policy evaluates."""

    observation: Tensor
    """[B, T, *prepared]"""
    action: Tensor
    """[B, T] discrete, or [B, T, *act] continuous, as sampled."""

    def rows(self, index: Tensor) -> ControlInputs:
        """The rows `index` [n]."""
        return ControlInputs(
            # copies whole rows, which `observation[index]` does number by number
            observation=self.observation.index_select(0, index),
            action=self.action[index],
        )

    def by_step(self) -> ControlInputs:
        """[B * T, 1, ...]."""
        return ControlInputs(
            observation=self.observation.flatten(0, 1).unsqueeze(1),
            action=self.action.flatten(0, 1).unsqueeze(1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One decision in each of B environments."""

    action: Tensor
    """[B] or [B, *act]."""
    logp: Tensor
    """[B]"""
    value: Tensor
    """[B]"""


class ControlPolicy(nn.Module):
    """What the collector needs; PPO uses `evaluate` only.

    `prepare` comes first: all but it and `observe` read what it returns.
    """

    def act(self, prepared: Tensor, *, generator: torch.Generator, greedy: bool = False) -> Action:
        """Decide in [B, *prepared]."""
        raise NotImplementedError

    def value(self, prepared: Tensor) -> Tensor:
        """[B, *prepared] -> [B]."""
        raise NotImplementedError

    def prepare(self, observation: Tensor) -> Tensor:
        """[..., *obs] as observed -> [..., *prepared]: once, not for every minibatch."""
        return observation

    def acting(self) -> AbstractContextManager[None]:
        """Inside, weights are not changed and nobody asks for gradients."""
        return nullcontext()

    def evaluate(self, inputs: ControlInputs) -> Evaluation:
        """[n, T] log-probability, entropy, value."""
        raise NotImplementedError

    def observe(self, observation: Tensor) -> None:
        """Take in [B, T, *obs] between rollouts, for normalisers."""


class CategoricalPolicy(ControlPolicy):
    """Discrete actions; pixels through a shared trunk, states through two MLPs."""

    def __init__(
        self,
        observation: Box,
        actions: int,
        config: PolicyConfig,
        *,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.pixels = len(observation.shape) == 3
        self.normalises = config.normalise_observations
        if self.pixels:
            self.normaliser = ObservationNormaliser(
                (*observation.shape[1:], 1), limit=LIMIT, least_var=LEAST_VAR, std=BYTES
            )
            convs, hidden = TRUNKS[config.trunk]
            self.trunk = PixelTrunk(
                size=observation.shape[1],
                channels=observation.shape[0],
                convs=convs,
                hidden=hidden,
                dtype=dtype,
                generator=generator,
            )
            self.actor: nn.Module = init_linear(nn.Linear(hidden, actions), 0.01, generator)
            self.critic: nn.Module = init_linear(nn.Linear(hidden, 1), 1.0, generator)
        else:
            self.normaliser = ObservationNormaliser(observation.shape)
            inputs = math.prod(observation.shape)
            self.actor = mlp(inputs, config.widths, actions, gain=0.01, generator=generator)
            self.critic = mlp(inputs, config.widths, 1, gain=1.0, generator=generator)

    def act(self, prepared: Tensor, *, generator: torch.Generator, greedy: bool = False) -> Action:
        features = self._features(prepared)
        logp = self.actor(features).log_softmax(-1)
        if greedy:
            action = logp.argmax(-1)
        else:
            action = torch.multinomial(logp.exp(), 1, generator=generator).squeeze(-1)
        return Action(
            action=action,
            logp=logp.gather(-1, action.unsqueeze(-1)).squeeze(-1),
            value=self.critic(features).squeeze(-1),
        )

    def value(self, prepared: Tensor) -> Tensor:
        return self.critic(self._features(prepared)).squeeze(-1)

    def prepare(self, observation: Tensor) -> Tensor:
        if self.normalises:
            observation = self.normaliser(observation)
        elif self.pixels:
            observation = observation / BYTES
        return self.trunk.prepare(observation) if self.pixels else observation

    def acting(self) -> AbstractContextManager[None]:
        return self.trunk.cast_once() if self.pixels else nullcontext()

    def evaluate(self, inputs: ControlInputs) -> Evaluation:
        n, T = inputs.action.shape
        features = self._features(inputs.observation.flatten(0, 1))
        logp = self.actor(features).log_softmax(-1)
        taken = logp.gather(-1, inputs.action.reshape(-1, 1))
        return Evaluation(
            logp=taken.view(n, T),
            entropy=-(logp.exp() * logp).sum(-1).view(n, T),
            value=self.critic(features).view(n, T),
        )

    def observe(self, observation: Tensor) -> None:
        if not self.normalises:
            return
        if self.pixels:  # of stacked frames the newest: the others were that before
            observation = observation[:, ::LOOKED_AT, ..., -1:]
        self.normaliser.update(observation)

    def _features(self, observation: Tensor) -> Tensor:
        return self.trunk(observation) if self.pixels else observation


class GaussianPolicy(ControlPolicy):
    """Continuous actions: a diagonal Gaussian whose spread does not depend on the state.

    Samples are unbounded and the environment clips them, so log-probabilities are exact.
    """

    def __init__(
        self,
        observation: Box,
        actions: int,
        config: PolicyConfig,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        inputs = math.prod(observation.shape)
        self.normaliser = ObservationNormaliser(observation.shape)
        self.normalises = config.normalise_observations
        self.actor = mlp(inputs, config.widths, actions, gain=0.01, generator=generator)
        self.critic = mlp(inputs, config.widths, 1, gain=1.0, generator=generator)
        self.log_std = nn.Parameter(torch.full((actions,), config.log_std))

    def act(self, prepared: Tensor, *, generator: torch.Generator, greedy: bool = False) -> Action:
        mean = self.actor(prepared)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        action = mean if greedy else mean + self.log_std.exp() * noise
        return Action(
            action=action,
            logp=self._logp(mean, action),
            value=self.critic(prepared).squeeze(-1),
        )

    def value(self, prepared: Tensor) -> Tensor:
        return self.critic(prepared).squeeze(-1)

    def prepare(self, observation: Tensor) -> Tensor:
        return self.normaliser(observation) if self.normalises else observation

    def evaluate(self, inputs: ControlInputs) -> Evaluation:
        x = inputs.observation
        logp = self._logp(self.actor(x), inputs.action)
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        return Evaluation(
            logp=logp, entropy=entropy.expand(logp.shape), value=self.critic(x).squeeze(-1)
        )

    def observe(self, observation: Tensor) -> None:
        if self.normalises:
            self.normaliser.update(observation)

    def _logp(self, mean: Tensor, action: Tensor) -> Tensor:
        z = (action - mean) * (-self.log_std).exp()
        constant = self.log_std + 0.5 * math.log(2 * math.pi)
        return -(0.5 * z.square() + constant).sum(-1)


def make_policy(
    observation: gymnasium.Space,
    action: gymnasium.Space,
    config: PolicyConfig,
    *,
    device: torch.device,
    generator: torch.Generator,
) -> ControlPolicy:
    """The policy for one environment's spaces, on `device`.

    Args:
        observation: Box of shape [C, H, W] uint8, frames with the newest last, or [d] float.
        action: Discrete, or Box of shape [d].
        generator: draws the initial weights; on the CPU.

    Raises:
        UserError: other spaces, or pixels with continuous actions.
    """
    box, action = _readable(observation, action)
    if isinstance(action, Discrete):
        dtype = compute_dtype(config.precision, device)
        policy: ControlPolicy = CategoricalPolicy(
            box, int(action.n), config, dtype=dtype, generator=generator
        )
    else:
        policy = GaussianPolicy(box, action.shape[0], config, generator=generator)
    return policy.to(device)


def restore_policy(policy: ControlPolicy, state: dict[str, Tensor]) -> None:
    """Take in a `state_dict` from a file.

    A policy of pixels without statistics reads them from 0 to 1, and goes on so.
    """
    pixels = isinstance(policy, CategoricalPolicy) and policy.pixels
    if pixels and not any(name.startswith("normaliser.") for name in state):
        shape = policy.state_dict()["normaliser.mean"].shape
        state = {
            **state,
            "normaliser.mean": torch.zeros(shape),
            "normaliser.var": torch.full(shape, BYTES**2 - LEAST_VAR),
            "normaliser.count": torch.tensor(2.0**50),  # so many that no others move them
        }
    policy.load_state_dict(state)


def _readable(observation: gymnasium.Space, action: gymnasium.Space) -> tuple[Box, Discrete | Box]:
    """The same, if there is a policy for them."""
    if not isinstance(observation, Box) or len(observation.shape) not in (1, 3):
        raise UserError(f"observation space: got {observation}, wanted a Box, [C, H, W] or [d]")
    pixels = len(observation.shape) == 3
    if pixels and observation.dtype != np.uint8:
        raise UserError(f"observation space: got pixels of {observation.dtype}, wanted uint8")
    if isinstance(action, Discrete):
        return observation, action
    if pixels or not isinstance(action, Box) or len(action.shape) != 1:
        wanted = "Discrete, with pixels" if pixels else "Discrete or a flat Box"
        raise UserError(f"action space: got {action}, wanted {wanted}")
    return observation, action


def refuse_unread(config: PolicyConfig, *, pixels: bool, discrete: bool) -> None:
    """Refuse settings that the policy for such observations and actions would not read.

    Raises:
        UserError: there is one.
    """
    unread = {"widths": "pixels"} if pixels else {"trunk": "states"}
    if discrete:
        unread["log_std"] = "discrete actions"
    for name, beside in unread.items():
        given, default = getattr(config, name), getattr(PolicyConfig(), name)
        refuse_idle(f"policy.{name}", given, default, beside=beside)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The convolutions' arithmetic: bf16 where the hardware multiplies it natively."""
    if precision == "auto":
        precision = "bf16" if _has_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
