"""The reward model: an ensemble and its normaliser."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefrl.errors import UserError
from prefrl.feedback import Segment
from prefrl.pixels import BYTES, from_planes
from prefrl.rewards.networks import ARCHITECTURES, PixelReward, RewardNetwork, StateReward
from prefrl.rewards.saved import ABOUT, DTYPES, WEIGHTS, Spaces, find_model, saved_in, sha256

SAVED_SETTINGS = ("network", "members", "far_inputs", "error", "scale", "clip", "firm_threshold")
CHUNK = {"pixels": 1024, "states": 512}
"""Steps per forward on a CPU: more states leave its caches; with fewer pixels than so many,
convolutions wait for each other (37 us a step instead of 44 with 256, Pong, two threads)."""
CUDA_CHUNK = 8192
L2_RANGE = (1e-7, 1e-1)  # within which weight penalties move
STACKED_STEPS = 512  # at once: stacked pixels of all segments are gigabytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """The reward model and how it is fitted."""

    members: int = 3
    """E, networks in the ensemble."""
    network: Literal["christiano2017", "small"] = "christiano2017"
    """Convolutions for pixels: the paper's, or two without batch normalisation."""
    far_inputs: Literal["compressed", "cut"] = "compressed"
    """States farther than 10 deviations from the first labels: told apart as by a logarithm, or
    all alike. Those in which a robot lies may be far from where it began, and most of a rollout."""
    error: float = 0.1
    """Share of answers assumed to be drawn at random, inside the likelihood."""
    dropout: float = 0.5
    """Share of convolution channels dropped while fitting (pixels only)."""
    lr: float = 3e-4
    """Adam's step size."""
    batch: int = 16
    """Comparisons per gradient step."""
    stride: int = 1
    """n: fit on every n-th step of a segment, from a random first one: cheaper, and right
    where neighbouring steps are alike; where they are not, rewards come out too small.
    Hold-outs and the normaliser read every n-th too."""
    score_every: int = 1
    """n: reward every n-th step of a rollout by the model, and those between on the line
    between their neighbours: cheaper, under the same condition."""
    updates_per_label: float = 1.0
    """Gradient steps for every new label: more fits better and overfits sooner."""
    pretrain_epochs: float = 20.0
    """Passes over the first labels before the policy learns."""
    output_penalty: float = 0.0
    """Weight of the mean squared output (Ibarz et al. 2018): pulls to 0 what no answer asks to
    be otherwise, and fixes the mean, which comparisons leave open."""
    l2: float = 1e-4
    """Initial weight penalty of each member, 1e-7 to .1, adapted from then on; 0: none, ever."""
    l2_band: tuple[float, float] = (1.1, 1.5)
    """The penalty moves while hold-out loss / training loss is outside this band."""
    l2_rate: float = 1.01
    """Factor by which it moves at each gradient step; 1: it stays."""
    keep: int = 3000
    """Labels kept for fitting, newest first."""
    scale: float = 1.0
    """Standard deviation of each member's normalised reward; their mean has less."""
    clip: float | None = None
    """Largest normalised reward of one step, in standard deviations: answers tell the order of
    segments and leave open how much rare events weigh. None: no limit."""
    firm_threshold: tuple[float, float] = (0.0, 0.0)
    """What differs from the labelled steps' median by the first or less, in standard deviations,
    counts as nothing; by the second or more, in full; in between it rises evenly. For tasks where
    most steps are worth the same, and a policy would live on what the model has not quite
    learned of them."""
    normaliser_segments: int = 256
    """Labelled segments, newest first, on whose steps (those read: `stride`) mean 0 and that
    deviation hold."""

    def __post_init__(self) -> None:
        for name in (
            "members", "lr", "batch", "stride", "score_every", "pretrain_epochs", "keep",
            "scale", "normaliser_segments",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise UserError(f"model.{name}: got {getattr(self, name)}, wanted more than 0")
        if len(self.l2_band) != 2 or not 0 <= self.l2_band[0] <= self.l2_band[1]:
            raise UserError(f"model.l2_band: got {self.l2_band}, wanted two ratios, low and high")
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"model.clip: got {self.clip}, wanted more than 0, or none")
        low_high = self.firm_threshold
        if len(low_high) != 2 or not 0 <= low_high[0] <= low_high[1]:
            raise UserError(
                f"model.firm_threshold: got {self.firm_threshold}, wanted two numbers from 0 on, "
                "rising"
            )
        for name, most in (("updates_per_label", 1e4), ("pretrain_epochs", 1e6)):
            if not getattr(self, name) <= most:
                raise UserError(f"model.{name}: got {getattr(self, name)}, wanted at most {most:g}")
        if self.l2 and not L2_RANGE[0] <= self.l2 <= L2_RANGE[1]:
            raise UserError(f"model.l2: got {self.l2}, wanted 0, or 1e-7 to .1")
        if not self.l2_rate >= 1:
            raise UserError(f"model.l2_rate: got {self.l2_rate}, wanted 1 or more")
        for name in ("output_penalty", "updates_per_label"):
            if not getattr(self, name) >= 0:
                raise UserError(f"model.{name}: got {getattr(self, name)}, wanted 0 or more")
        for name in ("error", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"model.{name}: got {getattr(self, name)}, wanted 0 to below 1")


def check_stride(config: RewardConfig, length: int) -> None:
    """Does `config.stride` leave any of a segment's steps?

    Raises:
        UserError: it does not.
    """
    if config.stride > length:
        raise UserError(
            f"model.stride: got {config.stride}, wanted at most {length}, a segment's steps"
        )


class RewardModel:
    """Scores behaviour step by step.

    The learned reward of a step is the mean over members of each member's own normalised
    output (normalise first, then average: Christiano et al. 2017, section 2.2). Before the
    first fit every step scores 0.
    """

    def __init__(
        self,
        network: RewardNetwork,
        spaces: Spaces,
        config: RewardConfig,
        *,
        device: torch.device,
    ) -> None:
        self.network = network.to(device)
        self.spaces = spaces
        self.config = config
        self.scale = config.scale
        self.device = device
        self.fitted = False
        self._lacking: frozenset[str] = frozenset()
        self.mean = torch.zeros(network.members, device=device)
        self.std = torch.ones(network.members, device=device)
        self.median = torch.zeros((), device=device)

    @classmethod
    def build(
        cls,
        spaces: Spaces,
        config: RewardConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator,
    ) -> Self:
        """A fresh model; `generator` on the CPU draws the weights, `dtype` is for pixels."""
        network = _network(spaces, config, dtype, generator)
        return cls(network, spaces, config, device=device)

    @torch.no_grad()
    def members(self, observation: Tensor, action: Tensor) -> Tensor:
        """Raw outputs of every member, in float32.

        Args:
            observation: [n, *obs]
            action: [n, *act]

        Returns:
            [E, n]
        """
        self.network.eval()
        size = CHUNK[self.spaces.kind] if self.device.type == "cpu" else CUDA_CHUNK
        chunks = zip(observation.split(size), action.split(size), strict=True)
        return torch.cat([self.network(o, a) for o, a in chunks], dim=1)

    def score_steps(
        self, observation: Tensor, action: Tensor, *, members: Sequence[int] | None = None
    ) -> Tensor:
        """Learned reward of [B, T, *obs], [B, T, *act] -> [B, T].

        Args:
            members: the mean is of these; None: of all.
        """
        B, T = observation.shape[:2]
        if not self.fitted:
            return torch.zeros((B, T), device=self.device)
        raw = self.members(observation.flatten(0, 1), action.flatten(0, 1))
        reward = self._normalised(raw, members)
        if self.config.firm_threshold[1]:
            reward = firm(reward - self.median, *self.config.firm_threshold)
        return self.scale * reward.view(B, T)

    def _normalised(self, raw: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """[E, n] raw outputs -> [n] the mean of the members' own normalised ones."""
        normalised = (raw - self.mean[:, None]) / self.std[:, None]
        if self.config.clip is not None:
            normalised = normalised.clamp(-self.config.clip, self.config.clip)
        return (normalised if members is None else normalised[list(members)]).mean(0)

    def score(self, segments: Sequence[Segment], *, members: Sequence[int] | None = None) -> Tensor:
        """Learned reward of segments of one length, by all members or by some: [B, T].

        Raises:
            UserError: no segments, or of several lengths.
        """
        lengths = sorted({len(segment.actions) for segment in segments})
        if len(lengths) != 1:
            got = f"of {', '.join(map(str, lengths))} steps" if lengths else "none"
            raise UserError(f"segments: got {got}, wanted some of one length")
        return self.score_steps(*self._tensors(segments), members=members)

    def segment_returns(self, segments: Sequence[Segment], *, stride: int = 1) -> Tensor:
        """Raw return of each segment under each member: [E, B], for likelihoods.

        Args:
            stride: n, read from every n-th step, and scaled up to all.
        """
        steps = len(segments[0].actions)
        read = slice(min(stride // 2, steps - 1), None, stride)
        some = max(STACKED_STEPS // len(range(steps)[read]), 1)
        returns = []
        for start in range(0, len(segments), some):
            observation, action = self._tensors(segments[start : start + some], read)
            raw = self.members(observation.flatten(0, 1), action.flatten(0, 1))
            returns.append(raw.view(len(raw), *action.shape[:2]).mean(-1) * steps)
        return torch.cat(returns, dim=1)

    def normalise_on(self, observation: Tensor, action: Tensor) -> None:
        """Anchor mean and deviation of each member, and the median of all, on these steps.

        They are [n, *obs], [n, *act].

        Called when the model has changed, on labelled segments, and frozen in between:
        statistics that run along drift with the policy.
        """
        raw = self.members(observation, action)
        self.mean = raw.mean(1)
        self.std = raw.std(1, correction=0).clamp_min(1e-6)
        self.median = self._normalised(raw).median()
        self.fitted, self._lacking = True, frozenset()

    def state(self) -> dict[str, Tensor]:
        """Every tensor that scoring needs; of an older file just its own, so that a copy is one."""
        network = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        anchors = {"mean": self.mean, "std": self.std, "median": self.median}
        state = {**network, **anchors, "fitted": torch.tensor(self.fitted)}
        return {k: v for k, v in state.items() if k not in self._lacking}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        older = self._of_older_files(state)
        state = {**older, **state}
        prefix = "network."
        network = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.network.load_state_dict(network)
        self.mean, self.std = state["mean"].to(self.device), state["std"].to(self.device)
        self.median = state["median"].to(self.device)
        self.fitted, self._lacking = bool(state["fitted"]), frozenset(older)

    def _of_older_files(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What such a file lacks, as it was then, but for rounding; nothing where it is damaged."""
        older = {} if "median" in state else {"median": torch.zeros(())}  # unused
        if self.spaces.kind == "pixels" and not {"network.mean", "network.std"} & state.keys():
            shape = self.network.mean.shape  # from 0 to 1
            older |= {"network.mean": torch.zeros(shape), "network.std": torch.full(shape, BYTES)}
        return older

    def save(self, directory: Path) -> None:
        """Write `reward_model.safetensors`, and `reward_model.json` with its hash."""
        tensors = {k: v.contiguous().cpu() for k, v in self.state().items()}
        save_file(tensors, directory / WEIGHTS)
        about = {
            "spaces": asdict(self.spaces),
            "settings": {name: getattr(self.config, name) for name in SAVED_SETTINGS},
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "sha256": sha256(directory / WEIGHTS),
        }
        (directory / ABOUT).write_text(json.dumps(about, indent=2))

    @classmethod
    def load(cls, directory: str | Path, *, device: str = "cpu") -> Self:
        """Read what `save` wrote, or the newest whole model of a run directory.

        It computes in the number format it was fitted in, so it scores bit for bit the same with
        the same version on the same machine.

        Raises:
            UserError: no reward model there, or none that is whole, or of another version.
        """
        saved = find_model(Path(directory))
        unknown = sorted(set(saved.settings) - {f.name for f in fields(RewardConfig)})
        if unknown:
            raise UserError(
                f"the reward model in {saved.path} has a setting {unknown[0]!r}, which this "
                "version has not: use the version that wrote it, or fit a new model"
            )
        model = cls.build(
            saved.spaces,
            RewardConfig(**saved.settings),
            dtype=DTYPES[saved.dtype],
            device=torch.device(device),
            generator=torch.Generator(),
        )
        model.restore(load_file(saved.path / WEIGHTS))
        return model

    @classmethod
    def load_if_any(cls, directory: str | Path) -> Self | None:
        """As `load`, or None where no reward model was ever saved."""
        path = Path(directory)
        return cls.load(path) if saved_in(path) else None

    def _tensors(
        self, segments: Sequence[Segment], read: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """[B, n, *obs], [B, n, *act] of the steps `read`, on the device."""
        observations = [s.observations[read] for s in segments]
        if self.spaces.kind == "pixels":
            planes = np.stack([np.moveaxis(x, -1, 1) for x in observations])
            observation = from_planes(planes, self.device)
        else:
            observation = torch.from_numpy(np.stack(observations)).to(self.device)
        action = torch.from_numpy(np.stack([s.actions[read] for s in segments]))
        return observation, action.to(self.device)


def firm(x: Tensor, low: float, high: float) -> Tensor:
    """Firm shrinkage (Gao and Bruce 1997, equation 2.5): soft where small, none where large.

    >>> firm(torch.tensor([-2.0, -1.0, 0.5, 0.75, 1.0]), 0.5, 1.0).tolist()
    [-2.0, -1.0, 0.0, 0.5, 1.0]
    """
    size = x.abs()
    between = high * (size - low) / max(high - low, 1e-9)
    return x.sign() * torch.where(size > high, size, between.clamp(0, high))


def _network(
    spaces: Spaces, config: RewardConfig, dtype: torch.dtype, generator: torch.Generator
) -> RewardNetwork:
    if spaces.kind == "pixels":
        size, _, frames = spaces.observation
        return PixelReward(
            members=config.members,
            size=size,
            frames=frames,
            dropout=config.dropout,
            dtype=dtype,
            generator=generator,
            architecture=ARCHITECTURES[config.network],
        )
    return StateReward(
        members=config.members,
        observation=math.prod(spaces.observation),
        action=spaces.actions,
        discrete=spaces.discrete,
        cut=config.far_inputs == "cut",
        generator=generator,
    )
