"""Ensembles: one batched forward, and yet networks that have nothing in common."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prefrl.rewards.networks import (
    ARCHITECTURES,
    LEAK,
    BatchedLinear,
    PixelReward,
    RewardNetwork,
    StateReward,
    compressed,
)

E, SIZE, FRAMES = 3, 50, 2  # 50 pixels: 15, 6, 4, 2 after the four convolutions
KINDS = ["pixels", "states", "discrete"]


def network(
    kind: str,
    *,
    members: int = E,
    dtype: torch.dtype = torch.float32,
    architecture: str = "christiano2017",
) -> RewardNetwork:
    generator = torch.Generator().manual_seed(0)
    if kind == "pixels":
        return PixelReward(
            members=members,
            size=SIZE,
            frames=FRAMES,
            dropout=0.5,
            dtype=dtype,
            generator=generator,
            architecture=ARCHITECTURES[architecture],
        )
    return StateReward(
        members=members,
        observation=4,
        action=2,
        discrete=kind == "discrete",
        generator=generator,
    )


def steps(kind: str, n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    action = torch.randn(n, 2, generator=generator)
    if kind == "pixels":
        shape = (n, SIZE, SIZE, FRAMES)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8), action
    observation = torch.randn(n, 4, generator=generator)
    return observation, action if kind == "states" else torch.arange(n) % 2


def of_member(tensor: Tensor, k: int, members: int = E) -> Tensor:
    """The slice of a parameter that belongs to member k: they stack along the first axis."""
    n = len(tensor) // members
    return tensor[k * n : (k + 1) * n]


def settle(net: RewardNetwork, kind: str) -> RewardNetwork:
    """Running statistics and biases that are not their initial zeros and ones."""
    generator = torch.Generator().manual_seed(2)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and ("norm" in name or "bias" in name):
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return net


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_changing_one_member_changes_only_its_own_output(kind: str, training: bool) -> None:
    net = network(kind).train(training)
    before = net(*steps(kind)).detach()
    for p in net.parameters():
        of_member(p.data, 1).add_(0.5)
    after = net(*steps(kind)).detach()
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[2], before[2])
    assert (after[1] != before[1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_s_loss_has_gradients_in_its_own_weights_only(kind: str) -> None:
    net = network(kind).train()
    net(*steps(kind))[1].square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        for k in range(E):
            assert bool(of_member(p.grad, k).any()) == (k == 1), (name, k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_the_batched_forward_equals_separate_networks(kind: str, training: bool) -> None:
    net = settle(network(kind), kind).train(training)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    together = net(*steps(kind))
    shared = {"mean", "std"}  # the inputs' scale, not a weight
    for k in range(E):
        alone = network(kind, members=1).train(training)
        own = {
            name: of_member(x, k) if x.ndim and name not in shared else x
            for name, x in state.items()
        }
        alone.load_state_dict(own)
        torch.testing.assert_close(alone(*steps(kind))[0], together[k], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_members_start_apart(kind: str) -> None:
    got = network(kind).eval()(*steps(kind))
    assert got.shape == (E, 6)
    assert got.dtype == torch.float32
    assert not torch.allclose(got[0], got[1])
    assert not torch.allclose(got[1], got[2])


@pytest.mark.parametrize("kind", KINDS)
def test_penalised_weights_are_every_matrix_split_by_member(kind: str) -> None:
    net = network(kind)
    matrices = {n: p for n, p in net.named_parameters() if n.endswith("weight") and p.ndim > 1}
    weights = net.member_weights()
    assert len(weights) == len(matrices)
    for weight, p in zip(weights, matrices.values(), strict=True):
        assert weight.shape[0] == E
        for k in range(E):
            own = of_member(p, k).square().sum()
            torch.testing.assert_close(weight[k].square().sum(), own)


def test_inputs_far_away_are_told_apart_and_never_huge() -> None:
    x = torch.tensor([-1e4, -30.0, -20.0, -10.0, -3.0, 0.0, 3.0, 10.0, 20.0, 30.0, 1e4])
    y = compressed(x)
    assert torch.equal(y[3:8], x[3:8])
    assert (y.diff() > 0.1).all()
    torch.testing.assert_close(y, -y.flip(0))
    assert y[8].item() == pytest.approx(16.931, abs=1e-3)  # 10 (1 + ln 2)
    assert y[10].item() == pytest.approx(79.078, abs=1e-3)  # 10 (1 + ln 1000)
    near = torch.tensor([9.999, 10.001])
    assert compressed(near).diff().item() == pytest.approx(0.002, rel=1e-2)  # and no kink


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_members_are_plain_convolutions_and_read_channels_first(architecture: str) -> None:
    # batch normalisation is folded into them where there is any
    net = settle(network("pixels", architecture=architecture), "pixels").eval()
    assert isinstance(net, PixelReward)
    observation, action = steps("pixels")
    x = observation.permute(0, 3, 1, 2).float() / 255
    for conv, norm in zip(net.convs, net.norms, strict=True):
        assert isinstance(conv, torch.nn.Conv2d)
        groups = 1 if x.shape[1] == FRAMES else E  # all members read the same frames
        x = F.conv2d(x, conv.weight, conv.bias, conv.stride, groups=groups)
        x = F.leaky_relu(norm(x), LEAK)
    x = x.reshape(6, E, -1).transpose(0, 1)
    wanted = net.head(F.leaky_relu(net.hidden(x), LEAK)).squeeze(-1)
    torch.testing.assert_close(net(observation, action), wanted, atol=1e-5, rtol=1e-4)


def test_training_normalises_by_the_batch_and_moves_the_running_statistics() -> None:
    net = network("pixels").train()
    assert isinstance(net, PixelReward)
    before = net.norms[0].running_mean.clone()  # type: ignore[union-attr, operator]
    net(*steps("pixels"))
    assert not torch.equal(net.norms[0].running_mean, before)  # type: ignore[arg-type]
    after = net.norms[0].running_mean.clone()  # type: ignore[union-attr, operator]
    net.eval()(*steps("pixels"))
    assert torch.equal(net.norms[0].running_mean, after)  # type: ignore[arg-type]


def test_pixels_are_judged_without_the_action() -> None:
    net, (observation, action) = network("pixels").eval(), steps("pixels")
    assert torch.equal(net(observation, action), net(observation, action + 1))


def test_dropout_takes_whole_channels_and_keeps_the_mean() -> None:
    net = network("pixels")
    assert isinstance(net, PixelReward)
    kept = net._kept(torch.zeros(400, 48, 2, 2), torch.Generator().manual_seed(0))
    assert kept.shape == (400, 48, 1, 1)
    assert kept.unique().tolist() == [0.0, 2.0]  # 1 / (1 - .5)
    # 19,200 fair coins: 4 standard errors of the mean of 0 and 2 are 4 / sqrt(19,200) = .029
    assert kept.mean().item() == pytest.approx(1.0, abs=0.029)


def test_dropout_is_drawn_from_its_own_generator() -> None:
    net = network("pixels").train()

    def output(seed: int) -> Tensor:
        return net(*steps("pixels"), dropout=torch.Generator().manual_seed(seed))

    assert torch.equal(output(0), output(0))
    assert not torch.equal(output(0), output(1))
    assert not torch.equal(output(0), net(*steps("pixels")))


def test_bf16_pixels_are_close_to_fp32_and_their_weights_are_fp32() -> None:
    exact, rough = network("pixels").eval(), network("pixels", dtype=torch.bfloat16).eval()
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    for net in (exact, rough):
        net.standardise_on([steps("pixels")])
    a, b = exact(*steps("pixels")), rough(*steps("pixels"))
    assert b.dtype == torch.float32
    assert 0 < (b - a).norm() / a.norm() < 0.03


def test_states_are_standardised() -> None:
    # (9 - 1) / 2 = 4
    net = network("states")
    assert isinstance(net, StateReward)
    want = net(torch.full((1, 4), 4.0), torch.full((1, 2), 4.0))
    net.mean.fill_(1.0)
    net.std.fill_(2.0)
    assert torch.equal(net(torch.full((1, 4), 9.0), torch.full((1, 2), 9.0)), want)


def test_pixels_are_standardised_by_the_places_of_all_stacked_frames() -> None:
    net = network("pixels", architecture="small").eval()
    assert isinstance(net, PixelReward)
    shown = torch.full((2, SIZE, SIZE, FRAMES), 87, dtype=torch.uint8)
    shown[0, 3, 5, 1] = 91  # one of four frames
    shown[:, 7, 7] = torch.tensor([60, 100], dtype=torch.uint8)
    net.standardise_on([(x, torch.zeros(1, 2)) for x in shown.split(1)])
    assert net.mean.shape == net.std.shape == (SIZE, SIZE, 1)
    assert net.mean[[3, 7, 0], [5, 7, 0], 0].tolist() == [88.0, 80.0, 87.0]
    # variances 4^2 (1/4 - 1/16) = 3, ((100 - 60) / 2)^2 and 0, and 1 grey level, squared
    std = net.std[[3, 7, 0], [5, 7, 0], 0].tolist()
    assert std == [2.0, pytest.approx(401**0.5), 1.0]
    action = torch.zeros(1, 2)
    base = net(shown[1:], action)
    near, far, farther = shown[1:].clone(), shown[1:].clone(), shown[1:].clone()
    near[0, 20, 20, 0], far[0, 20, 20, 0], farther[0, 20, 20, 0] = 88, 92, 255
    assert not torch.equal(net(near, action), base)
    assert torch.equal(net(far, action), net(farther, action))  # beyond 5 deviations


def test_a_discrete_action_is_one_hot() -> None:
    net = network("discrete")
    assert isinstance(net, StateReward)
    got = net.features(torch.zeros(2, 4), torch.tensor([1, 0]))
    assert got.tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0]]


def test_batched_linear_by_hand() -> None:
    layer = BatchedLinear(2, 2, 1, torch.Generator())
    layer.weight.data = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    layer.bias.data = torch.tensor([[[0.5]], [[-0.5]]])
    # member 0: 5 + 2 * 6 + .5; member 1: 3 * 5 + 4 * 6 - .5
    assert layer(torch.tensor([[[5.0, 6.0]]] * 2)).flatten().tolist() == [17.5, 38.5]


def test_the_published_architecture_has_its_published_size() -> None:
    # 84 -> (84-7)/3+1 = 26 -> (26-5)/2+1 = 11 -> 9 -> 7
    net = PixelReward(
        members=1,
        size=84,
        frames=4,
        dropout=0.5,
        dtype=torch.float32,
        generator=torch.Generator(),
    )
    paper = ARCHITECTURES["christiano2017"].convs
    assert paper == ((16, 7, 3), (16, 5, 2), (16, 3, 1), (16, 3, 1))
    assert net.hidden.weight.shape == (1, 16 * 7 * 7, 64)
