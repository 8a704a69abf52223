"""Our environments for stable-baselines3 with the true reward shown: the baseline."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from prefrl.agents.policy import TRUNKS
from prefrl.config import TrainConfig
from prefrl.loop.metrics import EpisodeStats
from prefrl.loop.state import spaces_of
from prefrl.sb3 import LearnedRewardVecEnv


class TrueRewardVecEnv(LearnedRewardVecEnv):
    """As `LearnedRewardVecEnv`, but the reward is the environment's own.

    `curve` gathers (step, mean true return over the last 100 episodes), as our metrics do.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env, SimpleNamespace(spaces=spaces_of(env), fitted=True))  # type: ignore[arg-type]
        self.steps = 0
        self.episodes = EpisodeStats()
        self.curve: list[tuple[int, float]] = []

    def step_wait(self) -> Any:
        out = super().step_wait()
        score = self.env.score  # type: ignore[attr-defined]
        self.steps += self.num_envs
        whole = score.episode_length > 0
        if whole.any():
            self.episodes.add(
                score.episode_return[whole].tolist(), score.episode_length[whole].tolist()
            )
            self.curve.append((self.steps, self.episodes.mean_return()))
        return out

    def _reward(self, observation: np.ndarray) -> np.ndarray:
        return self.env.score.true_reward.astype(np.float32)  # type: ignore[attr-defined]


class SmallCNN(BaseFeaturesExtractor):
    """The trunk that our recipe has for pixels, `TRUNKS["small"]`."""

    def __init__(self, observation_space: Box) -> None:
        convs, hidden = TRUNKS["small"]
        super().__init__(observation_space, hidden)
        channels, size, _ = observation_space.shape
        layers: list[nn.Module] = []
        for filters, kernel, stride in convs:
            layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
            channels, size = filters, (size - kernel) // stride + 1
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * size * size, hidden), nn.ReLU()
        )

    def forward(self, observations: Tensor) -> Tensor:
        """[n, C, H, W] in 0 to 1 -> [n, hidden]."""
        features: Tensor = self.layers(observations)
        return features


def sb3_ppo(venv: TrueRewardVecEnv, config: TrainConfig, *, seed: int, **more: Any) -> PPO:
    """SB3's PPO with the settings of ours.

    Of the network it takes the trunk, of states SB3's own, which is the same as ours. Its value
    loss is not halved, so it weighs half as much.
    """
    ours = config.ppo
    pixels, small = len(venv.observation_space.shape) == 3, config.policy.trunk == "small"
    # behind any extractor but its NatureCNN SB3 would put two layers
    network = {"features_extractor_class": SmallCNN, "net_arch": []} if pixels and small else None
    return PPO(
        "CnnPolicy" if pixels else "MlpPolicy",
        venv,
        policy_kwargs=network,
        n_steps=config.rollout_steps,
        n_epochs=ours.epochs,
        batch_size=config.num_envs * config.rollout_steps // ours.minibatches,
        learning_rate=lambda left: ours.lr * (ours.lr_end + (1 - ours.lr_end) * left),
        clip_range=ours.clip,
        ent_coef=ours.entropy_coef,
        vf_coef=ours.value_coef / 2,
        max_grad_norm=ours.max_grad_norm,
        gamma=ours.gamma,
        gae_lambda=ours.lam,
        device="cpu",
        seed=seed,
        **more,
    )
