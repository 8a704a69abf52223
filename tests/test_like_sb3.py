"""Our PPO is stable-baselines3's: with the same weights and draws both act and learn alike.

Advantages are not normalised here: their deviation is over n - 1 steps, ours over n. So what the
two come to in `benchmarks/learning.py ppo` differs by chance alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from torch import Tensor

import prefrl
from benchmarks.sb3_true_reward import SMALL_CNN, TrueRewardVecEnv
from prefrl.agents import Collector, ControlPolicy, PolicyConfig, make_policy
from prefrl.loop.terms import TrueReward
from prefrl.ppo import PPO, Gradient, PPOConfig, add_rewards

ROLLOUTS = 3
ACTIONS, ORDER = 7, 9  # seeds of the draws


@dataclass
class Seen:
    """A rollout and the weights after the update on it; arrays [B, T, ...]."""

    observation: np.ndarray
    action: np.ndarray
    logp: np.ndarray
    value: np.ndarray
    advantage: np.ndarray
    lr: float
    weights: list[Tensor]


@dataclass(kw_only=True)
class Case:
    """A task, and settings of both."""

    task: str
    envs: int
    steps: int
    options: dict[str, Any]
    policy: PolicyConfig
    ppo: PPOConfig
    sb3: dict[str, Any]
    """The policy's class and its arguments."""
    pairs: Callable[[Any, Any], Iterator[tuple[Tensor, Tensor]]]
    """Our weights beside theirs, of the same shape."""

    def venv(self) -> Any:
        return prefrl.make_vec(self.task, num_envs=self.envs, seed=0, **self.options)


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


SETTINGS: dict[str, Any] = {"epochs": 2, "minibatches": 2, "normalise": "none"}
ROBOT = Case(
    task="HalfCheetah-v5",
    envs=8,
    steps=32,
    options={"horizon": 40},  # time limits within rollouts
    policy=PolicyConfig(normalise_observations=False),
    ppo=PPOConfig(**SETTINGS, lr=3e-4, lr_end=1.0, clip=0.2, entropy_coef=0.0, value_coef=1.0),
    sb3={"policy": "MlpPolicy"},
    pairs=mlp_pairs,
)
PIXELS: dict[str, Any] = {
    "task": "ALE/Pong-v5",
    "envs": 4,
    "steps": 32,
    "options": {"actions": "reduced", "threads": 1},
    "pairs": cnn_pairs,
}
PUBLISHED = Case(
    **PIXELS,
    policy=PolicyConfig(trunk="nature", precision="fp32"),
    ppo=PPOConfig(**SETTINGS, lr_end=0.0, value_coef=1.0),
    sb3={"policy": "CnnPolicy"},
)
RECIPE = Case(
    **PIXELS,
    policy=PolicyConfig(trunk="small", precision="fp32"),
    ppo=PPOConfig(**SETTINGS, lr=5e-4, lr_end=0.2),
    sb3={"policy": "CnnPolicy", "policy_kwargs": SMALL_CNN},
)


@pytest.mark.parametrize("case", [ROBOT, PUBLISHED, RECIPE], ids=["robot", "published", "recipe"])
def test_both_act_and_learn_alike(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = build_sb3(case), build(case)
    mine = [weight for weight, _ in case.pairs(ours, theirs.policy)]

    def others() -> list[Tensor]:
        return copied(weight for _, weight in case.pairs(ours, theirs.policy))

    before = others()
    wanted = learn_sb3(case, theirs, others, monkeypatch)
    load(mine, before)
    for got, want in zip(learn(case, ours, mine), wanted, strict=True):
        assert got.lr == pytest.approx(want.lr)
        for name in ("observation", "action", "logp", "value", "advantage"):
            np.testing.assert_allclose(
                getattr(got, name), getattr(want, name), rtol=1e-4, atol=1e-4, err_msg=name
            )
        apart = norm(a - b for a, b in zip(got.weights, want.weights, strict=True))
        moved = norm(a - b for a, b in zip(want.weights, before, strict=True))
        assert apart <= 1e-4 * moved
        assert (moved > 0) == (got.lr > 0)
        before = want.weights
        load(mine, before)  # or robots, chaotic as they are, would soon go another way


def copied(weights: Iterable[Tensor]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def load(weights: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def norm(tensors: Iterable[Tensor]) -> float:
    return torch.cat([x.reshape(-1) for x in tensors]).norm().item()


def build(case: Case) -> ControlPolicy:
    venv = case.venv()
    policy = make_policy(
        venv.single_observation_space,
        venv.single_action_space,
        case.policy,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(1),
    )
    venv.close()
    return policy


def learn(case: Case, policy: ControlPolicy, weights: Iterable[Tensor]) -> Iterator[Seen]:
    torch.manual_seed(ACTIONS)
    venv = case.venv()
    collector = Collector(
        venv,
        policy,
        gamma=case.ppo.gamma,
        device=torch.device("cpu"),
        generator=torch.default_generator,  # stable-baselines3 has no other
    )
    order = torch.Generator().manual_seed(ORDER)
    ppo = PPO(Gradient(policy, case.ppo), case.ppo, generator=order, rows="steps")
    collector.reset_at(0)
    for i in range(ROLLOUTS):
        experience = collector.collect(case.steps)
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


def build_sb3(case: Case) -> Any:
    ppo = case.ppo
    return stable_baselines3.PPO(
        **case.sb3,
        env=TrueRewardVecEnv(case.venv()),
        n_steps=case.steps,
        batch_size=case.envs * case.steps // ppo.minibatches,
        n_epochs=ppo.epochs,
        learning_rate=lambda left: ppo.lr * (ppo.lr_end + (1 - ppo.lr_end) * left),
        clip_range=ppo.clip,
        ent_coef=ppo.entropy_coef,
        vf_coef=ppo.value_coef / 2,
        gamma=ppo.gamma,
        gae_lambda=ppo.lam,
        normalize_advantage=False,
        device="cpu",
        seed=0,
    )


def learn_sb3(
    case: Case, agent: Any, weights: Callable[[], list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> list[Seen]:
    seen: list[Seen] = []
    update = agent.train

    def train() -> None:
        update()
        buffer = agent.rollout_buffer  # flattened by now: [B * T, ...]

        def rows(x: np.ndarray) -> np.ndarray:
            by_env = x.reshape(case.envs, case.steps, *x.shape[1:])
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
    agent.learn(ROLLOUTS * case.envs * case.steps)
    agent.env.close()
    return seen
