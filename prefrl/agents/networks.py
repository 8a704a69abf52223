"""Networks that turn observations into features, fast on CPUs and on CUDA."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prefrl.pixels import FoldedConv, standardised, to_patches


def init_linear(
    layer: nn.Linear | nn.Conv2d, gain: float, generator: torch.Generator
) -> nn.Linear | nn.Conv2d:
    """Orthogonal weights, zero bias (the published PPO implementations' initialisation)."""
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class PixelTrunk(nn.Module):
    """Convolutions over stacked frames, then one hidden layer.

    The weights stay in float32 and are cast to `dtype` in every forward, or once inside
    `cast_once`, so that gradients accumulate in float32: bfloat16 arithmetic over float32
    masters. Frames are `prepare`d once for all the forwards that read them.

    Args:
        convs: (filters, kernel, stride) of each layer.
        hidden: features produced.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        convs: tuple[tuple[int, int, int], ...],
        hidden: int,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.features = hidden
        _, self.kernel, self.stride = convs[0]
        layers: list[nn.Linear | nn.Conv2d] = []
        for filters, kernel, stride in convs:
            width = size if layers else None
            conv = FoldedConv(channels, filters, kernel, stride, width=width)
            layers.append(init_linear(conv, math.sqrt(2), generator))
            channels, size = filters, (size - kernel) // stride + 1
        self.convs = nn.ModuleList(layers)
        self.hidden = init_linear(
            nn.Linear(channels * size * size, hidden), math.sqrt(2), generator
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._ready: list[tuple[Tensor, Tensor]] | None = None

    def prepare(self, frames: Tensor) -> Tensor:
        """[..., H, W, C] numbers of the order of 1 -> [..., H, w, c] patches for `forward`."""
        patches = to_patches(frames.flatten(0, -4), self.kernel, self.stride, self.dtype)
        return patches.unflatten(0, frames.shape[:-3])

    def forward(self, patches: Tensor) -> Tensor:
        """[n, H, w, c] prepared frames -> [n, hidden] float32."""
        *convs, hidden = self._ready or self._cast()
        x = patches.permute(0, 3, 1, 2)  # channels last in memory, and they stay so
        for conv, (weight, bias) in zip(self.convs, convs, strict=True):
            assert isinstance(conv, FoldedConv)
            x = F.relu(conv.convolve(x, weight, bias), inplace=True)
        return F.relu(F.linear(x.permute(0, 2, 3, 1).flatten(1), *hidden)).float()

    @contextmanager
    def cast_once(self) -> Iterator[None]:
        """Inside, weights are not changed and nobody asks for gradients."""
        before = self._ready
        self._ready = [(weight.detach(), bias.detach()) for weight, bias in self._cast()]
        try:
            yield
        finally:
            self._ready = before

    def _cast(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer in `dtype`."""
        cast = []
        for conv in self.convs:
            assert isinstance(conv, FoldedConv)
            assert conv.bias is not None
            cast.append((conv.cast(self.dtype), conv.bias.to(self.dtype)))
        hidden = self.hidden
        assert hidden.bias is not None
        return [*cast, (hidden.weight.to(self.dtype), hidden.bias.to(self.dtype))]


def mlp(
    inputs: int, widths: tuple[int, ...], outputs: int, *, gain: float, generator: torch.Generator
) -> nn.Sequential:
    """Tanh layers, then a linear head of the given gain."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [init_linear(nn.Linear(inputs, width), math.sqrt(2), generator), nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers, init_linear(nn.Linear(inputs, outputs), gain, generator))


class ObservationNormaliser(nn.Module):
    """Running mean and variance of the observations the policy has met.

    Observations hold no reward, so nothing leaks; statistics move only between rollouts, so
    a rollout and its update see the same numbers. Merging follows Chan et al. 1979.

    Args:
        shape: of the statistics, with which observations [..., *obs] are broadcast.
        limit: deviations at which observations are cut off.
        least_var: added to the variance of each entry.
        std: deviation of each before the first update, around 0.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        limit: float = 10.0,
        least_var: float = 1e-8,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.limit, self.least_var = limit, least_var
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.full(shape, std**2, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, observation: Tensor) -> Tensor:
        """[..., *obs] -> the same, standardised and clipped."""
        scale = (self.var + self.least_var).rsqrt().float()
        return standardised(observation, self.mean.float(), scale, limit=self.limit)

    @torch.no_grad()
    def update(self, observation: Tensor) -> None:
        """Merge in [B, T, *shape]."""
        x = observation.flatten(0, 1).double()
        mean, var, n = x.mean(0), x.var(0, correction=0), len(x)
        total = self.count + n
        delta = mean - self.mean
        spread = self.var * self.count + var * n + delta.square() * self.count * n / total
        self.mean.add_(delta * n / total)
        self.var.copy_(spread / total)
        self.count.copy_(total)
