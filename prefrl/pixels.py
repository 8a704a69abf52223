"""Frames as a strided convolution reads them fastest: neighbours in the channels.

A convolution of kernel k and stride s over [H, W, C] is one of kernel (k, ceil(k / s)) and
stride (s, 1) over [H, W / s, s * C], which is the same memory read otherwise. A matrix unit then
multiplies 16 channels where four stacked frames gave it 4: the backward pass takes half the time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAMES_AT_ONCE = 8  # in float32 they fit a core's cache


def to_patches(frames: Tensor, kernel: int, stride: int, dtype: torch.dtype) -> Tensor:
    """Frames, once, for every later convolution with `patch_weight` and stride (stride, 1).

    Args:
        frames: [n, H, W, C] uint8.

    Returns:
        [n, H, w, stride * C] of `dtype`; exact, because bfloat16 holds every byte.
    """
    wide = _fitted(frames, kernel, stride).contiguous()
    n, H, W, C = wide.shape
    return _floats(wide, dtype).view(n, H, W // stride, stride * C)


def first_layer(conv: nn.Conv2d) -> tuple[Tensor, tuple[int, int]]:
    """Weight and stride with which `conv`, made for frames of 0 to 1, reads patches of bytes."""
    stride = conv.stride[0]
    return patch_weight(conv.weight / 255, stride), (stride, 1)


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


def _floats(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[n, ...] uint8 as `dtype`."""
    if x.device.type != "cpu" or dtype == torch.float32:
        return x.to(dtype)
    # PyTorch turns bytes into bfloat16 one by one, but into float32 and on many at a time
    out = torch.empty(x.shape, dtype=dtype)
    for some, there in zip(x.split(FRAMES_AT_ONCE), out.split(FRAMES_AT_ONCE), strict=True):
        there.copy_(some.float())
    return out
