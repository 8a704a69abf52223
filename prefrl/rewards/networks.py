"""Ensembles of reward networks, evaluated together.

Members share no weight. For states every layer is one batched matrix product. For pixels the
frames are made ready once and the members' convolutions follow one another, so that each reads
neighbours as channels: as one grouped convolution the second layer takes 1.6 times as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prefrl.pixels import BYTES, LEAST_VAR, FoldedConv, standardised_patches

LEAK = 0.01  # Christiano et al. 2017, appendix A
HIDDEN = 64  # same source
LEAST_STD = 1e-2  # of states
FAR = 10.0  # deviations of the first labels, beyond which inputs are compressed or cut
HEAD_GAIN = 0.1  # returns are sums of ten steps or more: start with answers near one half


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Convolutions over stacked frames, then one hidden layer."""

    convs: tuple[tuple[int, int, int], ...]
    """(filters, kernel, stride) of each layer."""
    hidden: int
    """Units of the hidden layer."""
    batch_norm: bool
    """Batch normalisation after each convolution; without it, biases."""


ARCHITECTURES = {
    "christiano2017": Architecture(
        convs=((16, 7, 3), (16, 5, 2), (16, 3, 1), (16, 3, 1)), hidden=HIDDEN, batch_norm=True
    ),
    "small": Architecture(  # the convolutions of Mnih et al. 2013
        convs=((16, 8, 4), (32, 4, 2)), hidden=HIDDEN, batch_norm=False
    ),
}


class RewardNetwork(nn.Module):
    """E networks of one step each: [n, *obs], [n, *act] -> [E, n]."""

    members: int
    dtype: torch.dtype = torch.float32
    """Of the arithmetic but for the last layer; weights are always float32."""

    mean: Tensor
    std: Tensor
    """Of the inputs, on what was labelled at the first fit."""
    head: BatchedLinear

    def forward(
        self, observation: Tensor, action: Tensor, *, dropout: torch.Generator | None = None
    ) -> Tensor:
        """Raw learned rewards: [E, n].

        Args:
            observation: [n, *obs]
            action: [n, *act]
            dropout: draws the dropout masks while fitting; None when rewarding.
        """
        return self.head(self.hidden_units(observation, action, dropout=dropout)).squeeze(-1)

    def hidden_units(
        self, observation: Tensor, action: Tensor, *, dropout: torch.Generator | None = None
    ) -> Tensor:
        """[E, n, HIDDEN] activations of the last hidden layer, of which rewards are linear."""
        raise NotImplementedError

    def standardise_on(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Inputs are in deviations of these steps from now on: each [n, *obs] and [n, *act]."""
        raise NotImplementedError

    def member_weights(self) -> list[Tensor]:
        """[E, ...] views of every weight matrix, for the L2 penalty of each member."""
        raise NotImplementedError


class PixelReward(RewardNetwork):
    """Ensembles of convolutional networks, which do not see the action.

    "christiano2017" is the paper's (appendix A.2): four convolutions of 16 filters with batch
    normalisation and dropout, then 64 hidden units. Dropout acts on whole channels (Ibarz et
    al. 2018). Weights are float32, arithmetic `dtype` but for the last layer, from hidden units to
    reward.

    Args:
        members: E.
        frames: C, frames stacked in one observation [H, W, C].
        dropout: share of channels dropped while fitting.
    """

    def __init__(
        self,
        *,
        members: int,
        size: int,
        frames: int,
        dropout: float,
        dtype: torch.dtype,
        generator: torch.Generator,
        architecture: Architecture = ARCHITECTURES["christiano2017"],
    ) -> None:
        super().__init__()
        self.members, self.dropout, self.dtype = members, dropout, dtype
        self.architecture = architecture
        self.register_buffer("mean", torch.zeros(size, size, 1))
        self.register_buffer("std", torch.full((size, size, 1), BYTES))
        convs, norms, inputs, width = [], [], frames, None
        for filters, kernel, stride in architecture.convs:
            conv = FoldedConv(
                inputs,
                filters * members,  # of each member in turn
                kernel,
                stride,
                width=width,
                bias=not architecture.batch_norm,
            )
            _init(conv.weight, kernel * kernel * inputs, generator)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            convs.append(conv)
            norm = nn.BatchNorm2d(filters * members) if architecture.batch_norm else nn.Identity()
            norms.append(norm)
            inputs, size = filters, (size - kernel) // stride + 1
            width = size
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(norms)
        flat = inputs * size * size
        self.hidden = BatchedLinear(members, flat, architecture.hidden, generator)
        self.head = BatchedLinear(members, architecture.hidden, 1, generator, gain=HEAD_GAIN)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def hidden_units(
        self, observation: Tensor, action: Tensor, *, dropout: torch.Generator | None = None
    ) -> Tensor:
        _, kernel, stride = self.architecture.convs[0]
        how = (self.mean, self.std.reciprocal(), kernel, stride, self.dtype)
        patches = standardised_patches(observation, *how).permute(0, 3, 1, 2)
        layers = [self._of_members(i) for i in range(len(self.convs))]
        hidden = []
        for member, (weight, bias) in enumerate(self._hidden()):
            x = patches
            for conv, norm, of_members in zip(self.convs, self.norms, layers, strict=True):
                assert isinstance(conv, FoldedConv)
                x = conv.convolve(x, *of_members[member])
                if self.training and isinstance(norm, nn.BatchNorm2d):
                    x = _normalised(x, norm, member, self.members)
                x = F.leaky_relu(x, LEAK, inplace=True)
                if dropout is not None and self.dropout > 0:
                    x = x * self._kept(x, dropout)
            x = x.permute(0, 2, 3, 1).flatten(1)  # as it lies in memory
            hidden.append(torch.addmm(bias, x, weight))
        return F.leaky_relu(torch.stack(hidden).float(), LEAK)

    def standardise_on(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        # of stacked frames each counts, and all places alike
        mean, var = _moments(frames.movedim(-1, 1).flatten(0, 1) for frames, _ in parts)
        self.mean.copy_(mean.unsqueeze(-1))
        self.std.copy_((var + LEAST_VAR).sqrt().unsqueeze(-1))

    def member_weights(self) -> list[Tensor]:
        named = self.convs.named_parameters()
        convs = [p.reshape(self.members, -1) for name, p in named if name.endswith("weight")]
        return [*convs, self.hidden.weight, self.head.weight]

    def _of_members(self, i: int) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of convolution i for each member, in `dtype`."""
        conv, norm = self.convs[i], self.norms[i]
        assert isinstance(conv, FoldedConv)
        weight, bias = conv.weight, conv.bias
        if isinstance(norm, nn.BatchNorm2d) and not self.training:
            weight, bias = _folded(weight, norm)
        weights = conv.cast(self.dtype, weight).chunk(self.members)
        if bias is None:
            return [(weight, None) for weight in weights]
        return [*zip(weights, bias.to(self.dtype).chunk(self.members), strict=True)]

    def _hidden(self) -> list[tuple[Tensor, Tensor]]:
        """Weight [size * size * filters, units] and bias of the hidden layer for each member.

        In `dtype`, the rows in the order in which convolutions leave their numbers in memory; in
        the file they are channels first.
        """
        filters = self.architecture.convs[-1][0]
        E, flat, units = self.hidden.weight.shape
        rows = self.hidden.weight.view(E, filters, flat // filters, units).transpose(1, 2)
        weights = rows.to(self.dtype).reshape(E, flat, units).unbind()
        return [*zip(weights, self.hidden.bias.to(self.dtype).squeeze(1).unbind(), strict=True)]

    def _kept(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """[n, channels, 1, 1] 0 or 1 / (1 - dropout)."""
        draw = torch.rand((*x.shape[:2], 1, 1), generator=generator, device=x.device)
        return (draw >= self.dropout).to(x.dtype) / (1 - self.dropout)


class StateReward(RewardNetwork):
    """Two layers of 64 on (observation, action) (Christiano et al. 2017, appendix A.1).

    Args:
        members: E.
        observation: number of observation entries.
        action: number of action entries; a discrete action is one-hot.
        discrete: actions are indices.
        cut: inputs end at `FAR`; else what is beyond is `compressed`.
    """

    def __init__(
        self,
        *,
        members: int,
        observation: int,
        action: int,
        discrete: bool,
        cut: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.members, self.actions, self.discrete, self.cut = members, action, discrete, cut
        inputs = observation + action
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))
        self.first = BatchedLinear(members, inputs, HIDDEN, generator)
        self.second = BatchedLinear(members, HIDDEN, HIDDEN, generator)
        self.head = BatchedLinear(members, HIDDEN, 1, generator, gain=HEAD_GAIN)

    def hidden_units(
        self, observation: Tensor, action: Tensor, *, dropout: torch.Generator | None = None
    ) -> Tensor:
        x = (self.features(observation, action) - self.mean) / self.std
        x = x.clamp(-FAR, FAR) if self.cut else compressed(x)
        x = x.expand(self.members, -1, -1)
        x = F.leaky_relu(self.first(x), LEAK, inplace=True)
        return F.leaky_relu(self.second(x), LEAK, inplace=True)

    def standardise_on(self, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
        mean, var = _moments(self.features(*part) for part in parts)
        self.mean.copy_(mean)
        self.std.copy_(var.sqrt().clamp_min(LEAST_STD))

    def features(self, observation: Tensor, action: Tensor) -> Tensor:
        """[n, *obs], [n, *act] -> [n, inputs]."""
        if self.discrete:
            action = F.one_hot(action.long(), self.actions)
        return torch.cat([observation.flatten(1).float(), action.flatten(1).float()], -1)

    def member_weights(self) -> list[Tensor]:
        return [self.first.weight, self.second.weight, self.head.weight]


def compressed(x: Tensor) -> Tensor:
    """What is beyond `FAR` grows as a logarithm: it is told apart, and none of it is huge.

    A policy leaves the first labels far behind: HalfCheetah runs at 13 of their deviations, and if
    inputs ended at 10, faster would not be better (docs/log.md).

    >>> compressed(torch.tensor([-9.0, 10.0, 27.182818])).round().tolist()
    [-9.0, 10.0, 20.0]
    """
    return x.clamp(-FAR, FAR) * (1 + (x.abs() / FAR).clamp_min(1).log())


class BatchedLinear(nn.Module):
    """E linear layers at once: [E, n, inputs] -> [E, n, outputs]."""

    def __init__(
        self,
        members: int,
        inputs: int,
        outputs: int,
        generator: torch.Generator,
        *,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))
        _init(self.weight, inputs, generator)
        self.weight.data.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.shape[-1] == 1:  # products with columns are slow
            return (x * self.weight.mT).sum(-1, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


def _moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance [...] over the rows of all parts [n, ...], in float64."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        x = part.double()
        count, total, squares = count + len(x), x.sum(0) + total, x.square().sum(0) + squares
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0)


def _init(weight: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """He et al. 2015 for leaky ReLU; written out, because fan_in is that of one member."""
    nn.init.normal_(weight, 0, math.sqrt(2 / ((1 + LEAK**2) * fan_in)), generator=generator)


def _normalised(x: Tensor, norm: nn.BatchNorm2d, member: int, members: int) -> Tensor:
    """Batch normalisation of one member's channels, whose running statistics it moves."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    held = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, var, weight, bias = (t.chunk(members)[member] for t in held)
    return F.batch_norm(x, mean, var, weight, bias, True, norm.momentum or 0.0, norm.eps)


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Batch normalisation by running statistics, folded into the convolution before it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return weight * gain.view(-1, 1, 1, 1), norm.bias - norm.running_mean * gain
