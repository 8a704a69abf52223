"""Our PPO is stable-baselines3's: with the same weights and draws both act and learn alike.

Not compared here: normalised advantages, whose deviation is theirs over n - 1 steps and ours over
n, and the compiled gradient, which `tests/ppo/test_gradient.py` compares with ours.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import benchmarks
import prefrl
from benchmarks.sb3_true_reward import TrueRewardVecEnv, sb3_ppo
from prefrl.agents import Collector, ControlPolicy, make_policy
from prefrl.config import TrainConfig
from prefrl.loop.terms import TrueReward
from prefrl.ppo import PPO, Gradient, add_rewards

ROLLOUTS = 3
ACTIONS, ORDER = 7, 9  # seeds of the draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A rollout and the weights after the update on it; arrays [B, T, ...]."""

    observation: np.ndarray
    action: np.ndarray
    logp: np.ndarray
    value: np.ndarray
    advantage: np.ndarray
    lr: float
    weights: list[Tensor]


def mlp_pairs(ours: Any, theirs: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Two networks of two layers, and the actions' spread."""
    hidden = theirs.mlp_extractor
    heads = (hidden.policy_net, theirs.action_net), (hidden.value_net, theirs.value_net)
    for mine, (layers, head) in zip((ours.actor, ours.critic), heads, strict=True):
        for a, b in zip((mine[0], mine[2], mine[4]), (layers[0], layers[2], head), strict=True):
            yield from ((a.weight, b.weight), (a.bias, b.bias))
    yield ours.log_std, theirs.log_std


def cnn_pairs(ours: Any, theirs: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """A shared trunk; our features are flattened channels last, theirs channels first."""
    layers = list(theirs.features_extractor.children())
    modules = [m for layer in layers for m in layer.modules() if hasattr(m, "weight")]
    *convs, hidden = modules
    for a, b in zip(ours.trunk.convs, convs, strict=True):
        yield from ((a.weight, b.weight), (a.bias, b.bias))
    channels = convs[-1].out_channels
    side = math.isqrt(hidden.in_features // channels)
    shaped = hidden.weight.view(-1, channels, side, side).permute(0, 2, 3, 1).flatten(1)
    yield from ((ours.trunk.hidden.weight, shaped), (ours.trunk.hidden.bias, hidden.bias))
    for a, b in ((ours.actor, theirs.action_net), (ours.critic, theirs.value_net)):
        yield from ((a.weight, b.weight), (a.bias, b.bias))


def weights_of(ours: Any, theirs: Any) -> list[tuple[Tensor, Tensor]]:
    """Each of our weights beside theirs, of the same shape."""
    return [*(cnn_pairs if hasattr(ours, "trunk") else mlp_pairs)(ours, theirs)]


def config_of(name: str, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """The settings of the benchmark's arm for both, on less data."""
    monkeypatch.syspath_prepend(str(Path(benchmarks.__path__[0])))
    learning = importlib.import_module("learning")
    config: TrainConfig = next(
        learning.config_of(arm) for arm in learning.ppo() if arm.name == f"{name} SB3"
    )
    small = {"epochs": 2, "minibatches": 2, "normalise": "none"}
    return replace(config, num_envs=4, rollout_steps=32, ppo=replace(config.ppo, **small))


def venv_of(config: TrainConfig) -> Any:
    options: dict[str, Any] = config.env.options()
    if config.task.startswith("ALE/"):
        options["threads"] = 1
    else:
        options["horizon"] = 8  # time limits; in longer episodes rounding would grow to metres
    return prefrl.make_vec(config.task, num_envs=config.num_envs, seed=0, **options)


@pytest.mark.parametrize("name", ["HalfCheetah", "Pong", "Recipe on Pong"])
def test_both_act_and_learn_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, monkeypatch)
    theirs = sb3_ppo(TrueRewardVecEnv(venv_of(config)), config, seed=0, normalize_advantage=False)
    ours = build(config)

    def others() -> list[Tensor]:
        return copied(weight for _, weight in weights_of(ours, theirs.policy))

    mine = [weight for weight, _ in weights_of(ours, theirs.policy)]
    before = others()
    wanted = learn_sb3(config, theirs, others, monkeypatch)
    load(mine, before)
    for got, want in zip(learn(config, ours, mine), wanted, strict=True):
        assert got.lr == pytest.approx(want.lr)
        for field in ("observation", "action", "logp", "value", "advantage"):
            np.testing.assert_allclose(
                getattr(got, field), getattr(want, field), rtol=1e-4, atol=1e-4, err_msg=field
            )
        apart = norm(a - b for a, b in zip(got.weights, want.weights, strict=True))
        moved = norm(a - b for a, b in zip(want.weights, before, strict=True))
        assert apart <= 1e-4 * moved
        assert (moved > 0) == (got.lr > 0)
        before = want.weights
        load(mine, before)  # so that rounding does not add up


@pytest.mark.parametrize("name", ["HalfCheetah", "Pong", "Recipe on Pong"])
def test_both_begin_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(name, monkeypatch)
    venv = TrueRewardVecEnv(venv_of(config))
    theirs = sb3_ppo(venv, config, seed=0).policy
    venv.close()
    for mine, other in weights_of(build(config), theirs):
        assert mine.shape == other.shape
        assert mine.norm().item() == pytest.approx(other.norm().item(), abs=1e-4)


def copied(weights: Iterable[Tensor]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def load(weights: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def norm(tensors: Iterable[Tensor]) -> float:
    return torch.cat([x.reshape(-1) for x in tensors]).norm().item()


def build(config: TrainConfig) -> ControlPolicy:
    venv = venv_of(config)
    policy = make_policy(
        venv.single_observation_space,
        venv.single_action_space,
        config.policy,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(1),
    )
    venv.close()
    return policy


def learn(config: TrainConfig, policy: ControlPolicy, weights: Iterable[Tensor]) -> Iterator[Seen]:
    torch.manual_seed(ACTIONS)
    venv = venv_of(config)
    collector = Collector(
        venv,
        policy,
        gamma=config.ppo.gamma,
        device=torch.device("cpu"),
        generator=torch.default_generator,  # stable-baselines3 has no other
    )
    order = torch.Generator().manual_seed(ORDER)
    ppo = PPO(Gradient(policy, config.ppo), config.ppo, generator=order, rows="steps")
    collector.reset_at(0)
    for i in range(ROLLOUTS):
        experience = collector.collect(config.rollout_steps)
        rollout, _ = add_rewards(experience, [TrueReward()])
        figures = ppo.update(rollout, progress=(i + 1) / ROLLOUTS)
        observation = experience.observation
        if collector.pixels:
            observation = observation.permute(0, 1, 4, 2, 3)
        inputs: Any = rollout.inputs
        yield Seen(
            observation=observation.numpy(),
            action=inputs.action.numpy(),
            logp=rollout.logp.numpy(),
            value=rollout.value.numpy(),
            advantage=ppo.advantage(rollout).numpy(),
            lr=figures["ppo/lr"],
            weights=copied(weights),
        )
    venv.close()


def learn_sb3(
    config: TrainConfig,
    agent: Any,
    weights: Callable[[], list[Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> list[Seen]:
    seen: list[Seen] = []
    update = agent.train

    def train() -> None:
        update()
        buffer = agent.rollout_buffer  # flattened by now: [B * T, ...]

        def rows(x: np.ndarray) -> np.ndarray:
            by_env = x.reshape(config.num_envs, config.rollout_steps, *x.shape[1:])
            return by_env.squeeze(-1) if by_env.shape[2:] == (1,) else by_env

        seen.append(
            Seen(
                observation=rows(buffer.observations),
                action=rows(buffer.actions),
                logp=rows(buffer.log_probs),
                value=rows(buffer.values),
                advantage=rows(buffer.advantages),
                lr=agent.policy.optimizer.param_groups[0]["lr"],
                weights=weights(),
            )
        )

    order = torch.Generator().manual_seed(ORDER)
    monkeypatch.setattr(
        np.random, "permutation", lambda n: torch.randperm(n, generator=order).numpy()
    )
    monkeypatch.setattr(agent, "train", train)
    torch.manual_seed(ACTIONS)
    agent.learn(ROLLOUTS * config.num_envs * config.rollout_steps)
    agent.env.close()
    return seen
