"""The pixel trunk in both precisions, and the observation normaliser against numpy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefrl.agents.networks import ObservationNormaliser, PixelTrunk, mlp

CONVS = ((8, 4, 2), (8, 3, 1))


def trunk(dtype: torch.dtype) -> PixelTrunk:
    return PixelTrunk(
        size=20,
        channels=4,
        convs=CONVS,
        hidden=32,
        dtype=dtype,
        generator=torch.Generator().manual_seed(0),
    )


def frames(n: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (n, 20, 20, 4), generator=generator, dtype=torch.uint8)


def features(net: PixelTrunk) -> Tensor:
    return net(net.prepare(frames() / 255))


def test_trunk_is_plain_convolutions() -> None:
    net, x = trunk(torch.float32), frames().permute(0, 3, 1, 2).float() / 255
    for conv in net.convs:
        assert isinstance(conv, torch.nn.Conv2d)
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, conv.stride))
    x = x.permute(0, 2, 3, 1).flatten(1)  # the hidden layer reads channels last
    wanted = F.relu(F.linear(x, net.hidden.weight, net.hidden.bias))
    torch.testing.assert_close(features(net), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_cast_once_where_asked_to(dtype: torch.dtype) -> None:
    net = trunk(dtype)
    before = features(net)
    with net.cast_once():
        with pytest.raises(KeyError), net.cast_once():
            raise KeyError
        cast = net._ready
        assert cast is not None
        assert torch.equal(features(net), before)
        assert not features(net).requires_grad
    assert net._ready is None
    for p in net.parameters():
        p.data.mul_(1.1)
    assert not torch.equal(features(net), before)
    features(net).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_bf16_features_are_close_to_those_of_fp32() -> None:
    exact, rough = features(trunk(torch.float32)), features(trunk(torch.bfloat16))
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() / exact.norm() < 0.02  # bf16 has 8 bits of mantissa


def test_bf16_weights_and_gradients_are_fp32_masters() -> None:
    rough, exact = trunk(torch.bfloat16), trunk(torch.float32)
    for net in (rough, exact):
        features(net).square().mean().backward()
    for (name, p), q in zip(rough.named_parameters(), exact.parameters(), strict=True):
        assert p.dtype == torch.float32, name
        assert p.grad is not None
        assert q.grad is not None
        assert p.grad.dtype == torch.float32, name
        assert F.cosine_similarity(p.grad.flatten(), q.grad.flatten(), dim=0) > 0.99, name


def test_the_same_generator_gives_the_same_weights_and_nothing_global_is_drawn() -> None:
    before = torch.get_rng_state()
    one, two = trunk(torch.float32).state_dict(), trunk(torch.float32).state_dict()
    # torch's layers draw their own first weights globally; ours must not depend on that
    torch.manual_seed(5)
    three = trunk(torch.float32).state_dict()
    torch.set_rng_state(before)
    for name in one:
        assert torch.equal(one[name], two[name])
        assert torch.equal(one[name], three[name])


def test_mlp_has_orthogonal_layers_and_a_head_of_the_given_gain() -> None:
    net = mlp(3, (8, 8), 2, gain=0.01, generator=torch.Generator().manual_seed(0))
    middle, head = net[2].weight, net[4].weight
    torch.testing.assert_close(middle @ middle.T, 2 * torch.eye(8))  # gain sqrt(2)
    torch.testing.assert_close(head @ head.T, 1e-4 * torch.eye(2))
    assert [type(x).__name__ for x in net] == ["Linear", "Tanh"] * 2 + ["Linear"]


def test_normaliser_by_hand() -> None:
    # observations 1 and 3: mean 2, variance 1; so 4 becomes 2
    normaliser = ObservationNormaliser((1,))
    normaliser.update(torch.tensor([[[1.0], [3.0]]]))
    assert normaliser(torch.tensor([4.0])).item() == pytest.approx(2.0)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    offset=st.sampled_from([0.0, 1e3, -1e5]),
)
def test_merged_statistics_equal_numpy_over_everything(
    sizes: list[int], seed: int, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(offset, 3.0, (2, size, 3)) for size in sizes]
    normaliser = ObservationNormaliser((3,))
    for part in parts:
        normaliser.update(torch.from_numpy(part))
    everything = np.concatenate([part.reshape(-1, 3) for part in parts])
    np.testing.assert_allclose(normaliser.mean.numpy(), everything.mean(0), rtol=1e-9)
    np.testing.assert_allclose(normaliser.var.numpy(), everything.var(0), rtol=1e-6, atol=1e-9)
    assert normaliser.count.item() == len(everything)


def test_normaliser_changes_nothing_before_its_first_update() -> None:
    x = torch.tensor([[-3.0, 0.5]])
    torch.testing.assert_close(ObservationNormaliser((2,))(x), x)


def test_normaliser_clips_what_it_has_never_seen() -> None:
    normaliser = ObservationNormaliser((1,), limit=10.0)
    normaliser.update(torch.tensor([[[-1.0], [1.0]]]))
    assert normaliser(torch.tensor([1e6])).item() == 10.0
    assert normaliser(torch.tensor([-1e6])).item() == -10.0


def test_a_constant_entry_does_not_explode() -> None:
    normaliser = ObservationNormaliser((1,))
    normaliser.update(torch.full((1, 5, 1), 7.0))
    assert normaliser(torch.tensor([7.0])).item() == 0.0
    assert math.isfinite(normaliser(torch.tensor([7.1])).item())
