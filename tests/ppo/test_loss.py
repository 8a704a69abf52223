"""The clipped objective, step by step on paper."""

import math

import pytest
import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.ppo import Batch, Evaluation, PPOConfig, ppo_loss
from prefrl.ppo.rollout import masked_mean


class Nothing:
    """Inputs of a policy that is not asked."""

    def rows(self, index: Tensor) -> "Nothing":
        return self

    def by_step(self) -> "Nothing":
        return self


def batch(**given: list[float]) -> Batch:
    """One sequence; what is not given is zero, and every step counts."""
    T = len(next(iter(given.values())))
    names = ("logp", "value", "advantage", "returns")
    rows = {name: torch.tensor([given.get(name, [0.0] * T)]) for name in names}
    mask = torch.tensor([given.get("mask", [1.0] * T)]) > 0
    return Batch(inputs=Nothing(), mask=mask, **rows)


def now(logp: list[float], *, value: list[float] | None = None, entropy: float = 0.0) -> Evaluation:
    zero = [0.0] * len(logp)
    return Evaluation(
        logp=torch.tensor([logp], requires_grad=True),
        entropy=torch.full((1, len(logp)), entropy),
        value=torch.tensor([value or zero], requires_grad=True),
    )


def log(*ratios: float) -> list[float]:
    return [math.log(x) for x in ratios]


def loss_of(present: Evaluation, past: Batch, **settings: float):  # type: ignore[no-untyped-def]
    config = PPOConfig(**{"clip": 0.2, "value_coef": 0.5, "entropy_coef": 0.01, **settings})
    return ppo_loss(
        present,
        past,
        steps=past.mask.sum(),
        entropy_coef=torch.tensor(config.entropy_coef),
        config=config,
    )


def test_policy_loss_by_hand() -> None:
    # clip .2: min(A r, A clip(r, .8, 1.2))
    # r 1.5, A  2:  min( 3.0,  2.4) =  2.4    good and already likelier: no more credit
    # r 1.5, A -1:  min(-1.5, -1.2) = -1.5    bad and likelier: full blame
    # r 0.5, A -1:  min(-0.5, -0.8) = -0.8    bad and already rarer: no more blame
    # mean of (2.4, -1.5, -.8) is .1 / 3, and the loss is its negative
    got = loss_of(now(log(1.5, 1.5, 0.5)), batch(advantage=[2.0, -1.0, -1.0]))
    assert got.policy.item() == pytest.approx(-0.1 / 3)
    assert got.clip_fraction.item() == 1.0


def test_gradient_is_cut_only_where_the_step_would_go_further() -> None:
    # d(-A r)/d logp = -A r, divided by the 4 steps; 0 where the clipped side is the smaller
    present = now(log(1.5, 1.5, 0.5, 0.5))
    loss_of(present, batch(advantage=[1.0, -1.0, 1.0, -1.0])).policy.backward()
    assert present.logp.grad is not None
    assert present.logp.grad.flatten().tolist() == pytest.approx([0, 1.5 / 4, -0.5 / 4, 0])


def test_gradient_at_ratio_one_is_that_of_the_policy_gradient() -> None:
    present = now([0.0, 0.0])
    loss_of(present, batch(advantage=[3.0, -1.0])).policy.backward()
    assert present.logp.grad is not None
    assert present.logp.grad.flatten().tolist() == [-1.5, 0.5]


def test_value_loss_by_hand() -> None:
    # 1/2 mean((3 - 1)^2, (0 - 1)^2) = 1/2 * (4 + 1) / 2 = 1.25
    got = loss_of(now([0.0, 0.0], value=[3.0, 0.0]), batch(returns=[1.0, 1.0]))
    assert got.value.item() == 1.25


def test_value_clip_takes_the_worse_of_the_two_errors() -> None:
    # value_clip .5 around the old value 0
    # V 2, R 3:   (2 - 3)^2 = 1,      (.5 - 3)^2 = 6.25     -> 6.25, and no gradient
    # V .25, R 3: both (.25 - 3)^2 = 7.5625
    # V 2, R 0:   (2 - 0)^2 = 4,      (.5 - 0)^2 = .25      -> 4, and it may come back
    present = now([0.0] * 3, value=[2.0, 0.25, 2.0])
    got = loss_of(present, batch(returns=[3.0, 3.0, 0.0]), value_clip=0.5)
    assert got.value.item() == pytest.approx(0.5 * (6.25 + 7.5625 + 4) / 3)
    got.value.backward()
    assert present.value.grad is not None
    # d(1/2 (V - R)^2) = V - R, over 3 steps
    assert present.value.grad.flatten().tolist() == pytest.approx([0, -2.75 / 3, 2 / 3])


def test_total_is_policy_plus_value_minus_entropy() -> None:
    # policy -(2 + 0) / 2 = -1; value 1/2 * (4 + 0) / 2 = 1; entropy .7
    # -1 + .5 * 1 - .01 * .7 = -.507
    present = now([0.0, 0.0], value=[2.0, 0.0], entropy=0.7)
    got = loss_of(present, batch(advantage=[2.0, 0.0]))
    assert got.total.item() == pytest.approx(-0.507)
    assert got.figures().tolist() == pytest.approx([-0.507, -1.0, 1.0, 0.7, 0.0, 0.0, 1.0, 0.0])


def test_approximate_kl_by_hand() -> None:
    # r - 1 - log r at r = 2 and r = 1: 1 - log 2 and 0
    got = loss_of(now(log(2.0, 1.0)), batch(advantage=[0.0, 0.0]))
    assert got.approx_kl.item() == pytest.approx((1 - math.log(2)) / 2)
    assert got.clip_fraction.item() == 0.5


def test_approximate_kl_estimates_the_divergence_from_the_old_policy() -> None:
    # under the old policy (.5, .5), KL(old || new) of new (.8, .2) = .5 log(.5/.8) + .5 log(.5/.2)
    old = [math.log(0.5)] * 2
    got = loss_of(now([math.log(0.8), math.log(0.2)]), batch(logp=old))
    wanted = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert got.approx_kl.item() == pytest.approx(wanted)


@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e30])
def test_padding_reaches_neither_loss_nor_gradient(junk: float) -> None:
    short = now(log(1.1, 0.9), value=[1.0, 2.0])
    long = Evaluation(
        logp=torch.tensor([[*log(1.1, 0.9), 0.0]], requires_grad=True),
        entropy=torch.tensor([[0.0, 0.0, junk]]),
        value=torch.tensor([[1.0, 2.0, 0.0]], requires_grad=True),
    )
    wanted = loss_of(short, batch(advantage=[1.0, -2.0], returns=[0.5, 0.5]), value_clip=0.1)
    padded = batch(
        advantage=[1.0, -2.0, junk],
        returns=[0.5, 0.5, junk],
        logp=[0.0, 0.0, -junk],
        value=[0.0, 0.0, junk],
        mask=[1.0, 1.0, 0.0],
    )
    got = loss_of(long, padded, value_clip=0.1)
    assert got.figures().tolist() == pytest.approx(wanted.figures().tolist())
    wanted.total.backward()
    got.total.backward()
    for name in ("logp", "value"):
        left, right = getattr(short, name).grad, getattr(long, name).grad
        assert right[:, :2].tolist() == left.tolist()
        assert right[:, 2].tolist() == [0.0]


def test_chunks_sum_to_the_whole() -> None:
    whole = loss_of(now(log(1.5, 1.1, 0.5)), batch(advantage=[2.0, -1.0, -1.0]))
    config, steps = PPOConfig(clip=0.2), torch.tensor(3)
    rest = {"steps": steps, "entropy_coef": torch.tensor(0.01), "config": config}
    left = ppo_loss(now(log(1.5, 1.1)), batch(advantage=[2.0, -1.0]), **rest)
    right = ppo_loss(now(log(0.5)), batch(advantage=[-1.0]), **rest)
    summed = left.figures() + right.figures()
    torch.testing.assert_close(summed, whole.figures())


def test_masked_mean_ignores_nan_under_the_mask() -> None:
    x = torch.tensor([1.0, math.nan, 3.0])
    assert masked_mean(x, torch.tensor([True, False, True])).item() == 2.0


@pytest.mark.parametrize(
    ("name", "value"), [("clip", 0.0), ("epochs", 0), ("lr", -1.0), ("gamma", 1.5), ("lam", -0.1)]
)
def test_impossible_settings_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"ppo\.{name}: got {value}, wanted"):
        PPOConfig(**{name: value})


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ({"lr": 0.0}, r"ppo\.lr: got 0\.0, wanted more than 0"),
        ({"gamma": 1.1}, r"ppo\.gamma: got 1\.1, wanted 0 to 1"),
        ({"entropy_coef": -0.01}, r"ppo\.entropy_coef: got -0\.01, wanted 0 or more"),
        ({"value_coef": math.nan}, r"ppo\.value_coef: got nan, wanted 0 or more"),
        ({"value_clip": 0.0}, r"ppo\.value_clip: got 0\.0, wanted more than 0, or none"),
        ({"target_kl": -1.0}, r"ppo\.target_kl: got -1\.0, wanted more than 0, or none"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        PPOConfig(**setting)
