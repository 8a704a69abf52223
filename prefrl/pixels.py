"""Pixels as convolutions read them: standardised place by place, with neighbours as channels.

Most of a game's picture never changes, and what matters may be a ball of two pixels: less its mean,
and in its own deviations, a place says only what is not always there. On Pong's true reward PPO
has 15 after .4 to .5M steps so, and without it had not after 1M in eight of nine runs (docs/log.md,
2026-11-30).

A convolution of kernel k and stride s over [H, W, C] is one of kernel (k, ceil(k / s)) and
stride (s, 1) over [H, W / s, s * C], which is the same memory read otherwise. A matrix unit then
multiplies 16 channels where four stacked frames gave it 4: the backward pass takes half the time.
Later layers gain a quarter to two fifths (docs/log.md, 2026-11-30).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LIMIT = 5.0
"""Deviations at which standardised pixels end."""
LEAST_VAR = 1.0
"""Added to the variance of each place, which may never have changed: a level of grey, squared."""
AT_ONCE = 16
"""Frames that are float32 at a time on a CPU, where more leave its caches."""
BYTES = 255.0
"""Mean 0 and this deviation, before there are others: pixels from 0 to 1."""


def from_planes(planes: np.ndarray, device: torch.device) -> Tensor:
    """[..., C, H, W] uint8, as games show frames -> a copy [..., H, W, C] on `device`."""
    assert planes.dtype == np.uint8
    *shape, C, H, W = planes.shape
    if device.type != "cpu" or C == 1:
        x = torch.from_numpy(np.ascontiguousarray(planes)).to(device).movedim(-3, -1)
        return x.clone(memory_format=torch.contiguous_format)
    woven = np.empty((*shape, H, W, C), dtype=np.uint8)
    for place in np.ndindex(*shape):  # twice to eight times as fast as permuting in torch
        cv2.merge([*planes[place]], woven[place])
    return torch.from_numpy(woven)


def standardised(x: Tensor, mean: Tensor, scale: Tensor, *, limit: float = LIMIT) -> Tensor:
    """[..., *obs] less `mean` and times `scale`, which broadcast with [*obs]; up to `limit`."""
    # spread out and of one type before, because torch takes ten times as long for numbers that are
    # repeated one by one, and three times for bytes beside floats
    mean, scale = (t.expand(x.shape[-t.ndim :]).contiguous() for t in (mean, scale))
    x = x.to(torch.promote_types(x.dtype, mean.dtype), copy=True)
    return x.sub_(mean).mul_(scale).clamp_(-limit, limit)


def standardised_patches(
    frames: Tensor, mean: Tensor, scale: Tensor, kernel: int, stride: int, dtype: torch.dtype
) -> Tensor:
    """`to_patches` of the `standardised` frames [n, H, W, C]."""
    mean, scale = (t.expand(frames.shape[1:]).contiguous() for t in (mean, scale))
    if frames.device.type != "cpu":
        return to_patches(standardised(frames, mean, scale), kernel, stride, dtype)
    none = to_patches(frames[:0], kernel, stride, dtype)
    patches = none.new_empty((len(frames), *none.shape[1:]))
    for some, there in zip(frames.split(AT_ONCE), patches.split(AT_ONCE), strict=True):
        x = standardised(some, mean, scale)
        there.copy_(to_patches(x, kernel, stride, x.dtype))
    return patches


def to_patches(frames: Tensor, kernel: int, stride: int, dtype: torch.dtype) -> Tensor:
    """Frames, once, for every later convolution with `patch_weight` and stride (stride, 1).

    Args:
        frames: [n, H, W, C]

    Returns:
        [n, H, w, stride * C] of `dtype`.
    """
    wide = _fitted(frames, kernel, stride).contiguous()
    n, H, W, C = wide.shape
    return wide.to(dtype).view(n, H, W // stride, stride * C)


class FoldedConv(nn.Conv2d):
    """A convolution without padding, which reads patches where the width allows.

    Args:
        width: W of what it reads. None: it is the first layer and reads `to_patches`.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: int,
        stride: int,
        *,
        width: int | None,
        bias: bool = True,
    ) -> None:
        super().__init__(channels, filters, kernel, stride, bias=bias)
        self.first = width is None
        self.folds = width is None or (stride > 1 and width % stride == 0)

    def cast(self, dtype: torch.dtype, weight: Tensor | None = None) -> Tensor:
        """The weight, or the given one of its shape, as `convolve` takes it."""
        weight = self.weight if weight is None else weight
        if self.folds:
            weight = patch_weight(weight, self.stride[0])
        return weight.to(dtype).contiguous(memory_format=torch.channels_last)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Of x [n, C, H, W], channels last in memory, and so is what comes out."""
        stride = self.stride[0]
        if not self.folds:
            return F.conv2d(x, weight, bias, stride)
        if not self.first:
            n, C, H, W = x.shape
            wide = x.permute(0, 2, 3, 1).reshape(n, H, W // stride, stride * C)
            x = wide.permute(0, 3, 1, 2)
        return F.conv2d(x, weight, bias, (stride, 1))


def patch_weight(weight: Tensor, stride: int) -> Tensor:
    """[filters, C, k, k] for frames -> [filters, stride * C, k, ceil(k / stride)]."""
    filters, C, kernel, _ = weight.shape
    m = -(-kernel // stride)
    taps = F.pad(weight, (0, m * stride - kernel)).view(filters, C, kernel, m, stride)
    return taps.permute(0, 4, 1, 2, 3).reshape(filters, stride * C, kernel, m)


def _fitted(frames: Tensor, kernel: int, stride: int) -> Tensor:
    """Rows cut, or padded with zeros, to what the convolution reads: whole patches."""
    W = frames.shape[2]
    wanted = ((W - kernel) // stride - (-kernel // stride)) * stride
    return frames if wanted == W else F.pad(frames, (0, 0, 0, wanted - W))
