"""Patches and their weights against the convolution they stand for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prefrl.pixels import (
    AT_ONCE,
    FoldedConv,
    from_planes,
    patch_weight,
    standardised,
    standardised_patches,
    to_patches,
)


def frames(size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (19, *size, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [
        ((84, 84), 8, 4),  # Mnih et al. 2013
        ((84, 84), 7, 3),  # Christiano et al. 2017: two taps of zeros beside the kernel
        ((20, 28), 4, 2),
        ((11, 11), 4, 3),  # the last column is never read
        ((10, 13), 5, 4),  # the zero taps reach beyond the frame
        ((9, 9), 3, 1),
    ],
)
def test_patches_and_their_weight_are_the_strided_convolution(
    size: tuple[int, int], kernel: int, stride: int
) -> None:
    x = frames(size)
    weight = torch.randn(5, 3, kernel, kernel, generator=torch.Generator().manual_seed(1))
    wanted = F.conv2d(x.permute(0, 3, 1, 2).float(), weight, stride=stride)
    patches = to_patches(x, kernel, stride, torch.float32).permute(0, 3, 1, 2)
    got = F.conv2d(patches, patch_weight(weight, stride), stride=(stride, 1))
    torch.testing.assert_close(got, wanted, atol=1e-2, rtol=1e-4)  # of sums of some thousands


def test_the_gradient_reaches_the_frames_weight_through_its_patches() -> None:
    x, weight = frames(), torch.ones(2, 3, 3, 3, requires_grad=True)
    patches = to_patches(x, 3, 2, torch.float32).permute(0, 3, 1, 2)
    F.conv2d(patches, patch_weight(weight, 2), stride=(2, 1)).sum().backward()
    plain = torch.ones(2, 3, 3, 3, requires_grad=True)
    F.conv2d(x.permute(0, 3, 1, 2).float(), plain, stride=2).sum().backward()
    torch.testing.assert_close(weight.grad, plain.grad)


@pytest.mark.parametrize(
    ("width", "kernel", "stride", "folds"),
    [(20, 4, 2, True), (26, 5, 2, True), (9, 3, 3, True), (11, 4, 2, False), (9, 3, 1, False)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_later_layer_is_the_strided_convolution(
    width: int, kernel: int, stride: int, folds: bool, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = FoldedConv(3, 5, kernel, stride, width=width, bias=bias)
    assert conv.folds == folds
    x = torch.randn(4, 3, 13, width, generator=generator).to(memory_format=torch.channels_last)
    wanted = F.conv2d(x, conv.weight, conv.bias, stride)
    got = conv.convolve(x, conv.cast(torch.float32), conv.bias)
    torch.testing.assert_close(got, wanted)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("contiguous", [True, False])
def test_planes_become_channels_last(channels: int, contiguous: bool) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (5, channels, 6, 7), dtype=np.uint8)
    planes = planes if contiguous else planes[::2, ::-1, ::-1]
    x = from_planes(planes, torch.device("cpu"))
    assert np.array_equal(x.numpy(), planes.transpose(0, 2, 3, 1))
    segments = from_planes(planes[None], torch.device("cpu"))  # [1, n, C, H, W]
    assert torch.equal(segments, x[None])
    assert x.is_contiguous()
    before, planes[:] = x.clone(), 0
    assert torch.equal(x, before)  # the environment writes into its planes again


def test_planes_of_other_numbers_are_refused() -> None:
    with pytest.raises(AssertionError):
        from_planes(np.zeros((1, 4, 6, 7), dtype=np.float32), torch.device("cpu"))


def test_pixels_are_standardised_place_by_place() -> None:
    mean, scale = torch.full((2, 3, 1), 10.0), torch.full((2, 3, 1), 0.5)
    mean[1, 2], scale[1, 2] = 100.0, 1.0
    x = torch.full((4, 2, 3, 2), 14, dtype=torch.uint8)
    x[0, 1, 2] = torch.tensor([99, 200])  # the second is a hundred deviations away
    got = standardised(x, mean, scale)
    assert got.dtype == torch.float32
    assert got[0, 1, 2].tolist() == [-1.0, 5.0]
    assert (got[0, 0] == 2.0).all()  # (14 - 10) / 2
    assert (got[1:, 1, 2] == -5.0).all()
    assert (x[1] == 14).all()  # what it was given is as it was


@pytest.mark.parametrize("count", [1, AT_ONCE, 2 * AT_ONCE + 5])
@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (7, 3), (5, 4)])  # with and without padding
def test_patches_standardised_some_at_a_time_are_those_of_all(
    count: int, kernel: int, stride: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count, 13, 16, 3), generator=generator, dtype=torch.uint8)
    mean, scale = (255 * torch.rand(13, 16, 1, generator=generator) for _ in range(2))
    wanted = to_patches(standardised(x, mean, 1 / scale), kernel, stride, torch.bfloat16)
    got = standardised_patches(x, mean, 1 / scale, kernel, stride, torch.bfloat16)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, wanted)


def test_standardising_keeps_doubles() -> None:
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    got = standardised(x, torch.tensor([1.0, 1.0]), torch.tensor([2.0, 3.0]), limit=4.0)
    assert got.dtype == torch.float64
    assert got.tolist() == [[0.0, 4.0]]
    assert x.tolist() == [[1.0, 3.0]]
