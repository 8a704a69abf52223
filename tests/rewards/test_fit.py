"""Fitting: it finds the reward behind the answers, and knows how well."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prefrl.errors import UserError
from prefrl.feedback import Segment
from prefrl.rewards import LabelBank, RewardConfig, RewardFitter, RewardModel, Spaces, Steps
from prefrl.rewards.bank import LabelBatch
from prefrl.rewards.fit import L2_RANGE, STEPS_AT_ONCE
from tests.rewards.helpers import label, segment, states

CPU = torch.device("cpu")


def fitter(
    segments: list[Segment], config: RewardConfig, spaces: Spaces, *, members: int = 3
) -> RewardFitter:
    """Labels of a perfect oracle on neighbours in the list."""
    bank = LabelBank(members=config.members, keep=config.keep, device=CPU)
    for i in range(0, len(segments), 2):
        pair = segments[i], segments[i + 1]
        bank.add(label(*pair, step=i), pair)
    weights, draws = (torch.Generator().manual_seed(s) for s in (0, 1))
    model = RewardModel.build(spaces, config, dtype=torch.float32, device=CPU, generator=weights)
    return RewardFitter(model, bank, config, generator=draws)


def linear_segments(count: int, *, seed: int = 0) -> list[Segment]:
    """Five states of three entries; the true reward is 2 x - y, z is a distraction."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        x = (5 + 2 * rng.normal(size=(5, 3))).astype(np.float32)
        made.append(segment(x, true_reward=x @ [2.0, -1.0, 0.0]))
    return made


def blob_segments(count: int, *, seed: int = 0) -> list[Segment]:
    """Three frames of 44x44 with a bright square; the further right, the better."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        frames = rng.integers(0, 30, (3, 44, 44, 1), dtype=np.uint8)
        left, top = rng.integers(0, 34, 2)
        frames[:, top : top + 10, left : left + 10] = 255
        made.append(segment(frames, true_reward=np.full(3, left)))
    return made


LINEAR = Spaces(kind="states", observation=(3,), actions=1, discrete=False)
BLOB = Spaces(kind="pixels", observation=(44, 44, 1), actions=1, discrete=False)
ONE = Spaces(kind="states", observation=(1,), actions=1, discrete=False)


def correlation(model: RewardModel, segments: list[Segment]) -> float:
    true = np.array([s.true_reward.sum() for s in segments])
    return float(np.corrcoef(model.score(segments).sum(1), true)[0, 1])


def test_fitting_finds_a_linear_reward_of_states() -> None:
    config = RewardConfig(dropout=0.0, lr=3e-3, batch=32)
    fit = fitter(linear_segments(400), config, LINEAR)
    figures = fit.fit(200)
    assert figures["reward/updates"] == 200
    assert fit.holdout(100)["reward/holdout_accuracy"] > 0.8
    assert correlation(fit.model, linear_segments(100, seed=1)) > 0.9


@pytest.mark.parametrize("network", ["christiano2017", "small"])
def test_fitting_finds_the_reward_in_pixels(network: str) -> None:
    config = RewardConfig(
        network=network,  # type: ignore[arg-type]
        dropout=0.2,
        lr=2e-3,
        batch=16,
        members=2,
    )
    fit = fitter(blob_segments(240), config, BLOB)
    fit.fit(100)
    assert fit.holdout(100)["reward/holdout_accuracy"] > 0.8
    assert correlation(fit.model, blob_segments(60, seed=1)) > 0.8


def test_fitting_anchors_the_normaliser_on_the_labelled_segments() -> None:
    config = RewardConfig(dropout=0.0, lr=3e-3, members=1, scale=0.05, normaliser_segments=20)
    segments = linear_segments(40)
    fit = fitter(segments, config, LINEAR, members=1)
    fit.fit(5)
    got = fit.model.score(segments[-20:])  # the newest 20, as configured
    assert got.mean().item() == pytest.approx(0, abs=1e-5)
    assert got.std(correction=0).item() == pytest.approx(0.05, rel=1e-3)
    assert fit.model.score(segments).mean().abs() > 1e-4


def test_fitting_repeats_bit_for_bit() -> None:
    def weights() -> dict[str, Tensor]:
        fit = fitter(blob_segments(20), RewardConfig(batch=4, members=2), BLOB)
        fit.fit(3)
        return fit.model.state()

    one, two = weights(), weights()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_nothing_to_fit_on_changes_nothing() -> None:
    config = RewardConfig()
    empty = fitter([], config, ONE)
    assert empty.fit(10) == {}
    assert empty.holdout(10) == {}
    assert not empty.model.fitted
    full = fitter(linear_segments(4), config, LINEAR)
    assert full.fit(0) == {}
    assert not full.model.fitted


@pytest.mark.parametrize("labels", [1, 2])
def test_a_member_that_has_seen_no_label_yet_stays_finite(labels: int) -> None:
    # with one label, each member leaves it out with probability 1/e
    config = RewardConfig(members=12, dropout=0.0)
    fit = fitter(linear_segments(2 * labels), config, LINEAR)
    counts = fit.bank.batch(torch.arange(labels)).counts
    assert (counts.sum(1) == 0).any()
    fit.fit(3)
    assert all(p.isfinite().all() for p in fit.model.network.parameters())
    assert fit.model.score(linear_segments(2)).isfinite().all()


def test_a_member_does_not_learn_from_what_it_holds_out() -> None:
    def trained(flip: bool) -> tuple[Tensor, Tensor]:
        config = RewardConfig(members=3, dropout=0.0, l2_band=(0.0, 1e9))
        fit = fitter(linear_segments(20), config, LINEAR)
        index = torch.arange(10)
        counts = fit.bank.counts(index)
        if flip:  # the answers that member 0 holds out say the opposite
            for query, held in zip(list(fit.bank._examples), counts[0] == 0, strict=False):
                if held:
                    old = fit.bank._examples[query]
                    fit.bank._examples[query] = replace(old, target=1 - old.target)
        fit._step(index, chunk=len(index))
        weight = fit.model.network.head.weight  # type: ignore[union-attr]
        return weight.detach().clone(), counts  # type: ignore[union-attr, operator]

    (plain, counts), (flipped, _) = trained(False), trained(True)
    assert 0 < (counts[0] == 0).sum() < 10
    assert torch.equal(plain[0], flipped[0])
    assert not torch.equal(plain[1], flipped[1])


def test_a_step_in_chunks_equals_a_step_at_once() -> None:
    def trained(chunk: int) -> list[Tensor]:
        config = RewardConfig(dropout=0.0, batch=10)
        fit = fitter(linear_segments(20), config, LINEAR)
        fit._step(torch.arange(10), chunk=chunk)
        return [p.grad.clone() for p in fit.model.network.parameters() if p.grad is not None]

    torch.testing.assert_close(trained(3), trained(10))


@pytest.mark.parametrize(
    ("train", "held_out", "factor"),
    [
        (1.0, 1.6, 1.01),  # above 1.5: overfits, so a stronger penalty
        (1.0, 1.05, 1 / 1.01),  # below 1.1: could fit more, so a weaker one
        (1.0, 1.3, 1.0),
        (1.0, math.nan, 1.0),  # nothing held out yet
        (math.nan, 1.0, 1.0),
    ],
)
def test_the_penalty_moves_against_overfitting(
    train: float, held_out: float, factor: float
) -> None:
    fit = fitter([], RewardConfig(members=2, l2=1e-3), ONE)
    fit._steer(torch.tensor([[train, 1.0], [held_out, 1.3]]))
    assert fit.l2.tolist() == pytest.approx([1e-3 * factor, 1e-3])  # member 1 is in the band


def test_the_penalty_stays_in_its_range() -> None:
    fit = fitter([], RewardConfig(members=2, l2=1e-3, l2_rate=1e9), ONE)
    fit._steer(torch.tensor([[1.0, 1.0], [9.0, 0.1]]))
    assert fit.l2.tolist() == pytest.approx([L2_RANGE[1], L2_RANGE[0]])


def test_no_penalty_stays_none() -> None:
    fit = fitter([], RewardConfig(members=2, l2=0.0), ONE)
    fit._steer(torch.tensor([[1.0, 1.0], [9.0, 0.1]]))
    assert fit.l2.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("setting", [{"l2": 1.0}, {"l2": 1e-9}, {"l2": -1.0}, {"l2_rate": 0.5}])
def test_a_penalty_out_of_its_range_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"model\.{next(iter(setting))}: got"):
        RewardConfig(**setting)  # type: ignore[arg-type]


def test_losses_are_smoothed_and_survive_a_batch_without_hold_out() -> None:
    # .98 * 1 + .02 * 2 = 1.02
    fit = fitter([], RewardConfig(members=1), ONE)
    fit._steer(torch.tensor([[1.0], [3.0]]))
    fit._steer(torch.tensor([[2.0], [math.nan]]))
    assert fit.losses.flatten().tolist() == pytest.approx([1.02, 3.0])


def test_holdout_figures_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Three comparisons of one-step segments, two members. Differences (second - first):
    #   member 0:  2, -9, -1      holds out the first and the third
    #   member 1:  4,  1,  9      holds out the first and the second
    # judged by who held them out: (2 + 4) / 2 = 3, 1, -1; answers: second, first, tie
    config = RewardConfig(members=2, error=0.0)
    fit = fitter([states(0.0), states(1.0)] * 3, config, ONE)
    batch = LabelBatch(
        steps=Steps(observation=torch.zeros(6, 1), action=torch.zeros(6, 1), shape=(6, 1)),
        target=torch.tensor([1.0, 0.0, 0.5]),
        counts=torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]),
    )
    raw = torch.tensor([[0, 10, 1, 2, 1, 0], [1, 0, 0, 5, 1, 9]]).float()
    fit.model.fitted = True
    monkeypatch.setattr(fit.bank, "batch", lambda index, **stride: batch)
    monkeypatch.setattr(fit.model, "members", lambda observation, action: raw)
    got = fit.holdout(3)
    assert got["reward/holdout_accuracy"] == 0.5  # right, wrong, and a tie that does not count
    # -log sigmoid(3), -log(1 - sigmoid(1)), and the tie: the mean of both sides at 1
    losses = F.softplus(torch.tensor([-3.0, 1.0])).tolist()
    tie = F.softplus(torch.tensor([1.0, -1.0])).mean().item()
    assert got["reward/holdout_cross_entropy"] == pytest.approx((sum(losses) + tie) / 3)


def test_holdout_looks_at_the_newest_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fitter(linear_segments(20), RewardConfig(dropout=0.0, stride=2), LINEAR)
    fit.fit(1)
    asked: list[Any] = []
    true = fit.bank.batch

    def batch(index: Tensor, **steps: int) -> LabelBatch:
        asked.append((index.tolist(), steps))
        return true(index, **steps)

    monkeypatch.setattr(fit.bank, "batch", batch)
    fit.holdout(4)
    fit.holdout(99)
    steps = {"stride": 2, "offset": 1}
    assert asked == [([6, 7, 8, 9], steps), (list(range(10)), steps)]


def test_what_is_fitted_on_some_steps_is_anchored_on_as_many() -> None:
    fit = fitter(linear_segments(20), RewardConfig(dropout=0.0, stride=2), LINEAR)
    fit.fit(1)
    some = fit.bank.steps(fit.bank.segment_ids, stride=2, offset=1)
    torch.testing.assert_close(
        fit.model.mean, fit.model.members(some.observation, some.action).mean(1)
    )


@pytest.mark.parametrize("kind", ["states", "pixels"])
def test_inputs_are_standardised_before_the_first_fit_and_never_again(kind: str) -> None:
    made, spaces = (linear_segments, LINEAR) if kind == "states" else (blob_segments, BLOB)
    segments = made(2 * (STEPS_AT_ONCE // 3) + 6)  # of 3 or 5 steps: in three parts or four
    # anchored on the newest alone, but standardised on all
    fit = fitter(segments, RewardConfig(dropout=0.0, normaliser_segments=4), spaces)
    fit.fit(1)
    network = fit.model.network
    x = np.concatenate([s.observations for s in segments]).astype(np.float64)
    if kind == "states":
        mean, std = network.mean[:3], network.std[:3]
        np.testing.assert_allclose(std, x.std(0), rtol=1e-4)
    else:
        mean, std = network.mean, network.std
        np.testing.assert_allclose(std, np.sqrt(x.var(0) + 1), rtol=1e-4)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-4)
    before = network.mean.clone(), network.std.clone()
    more = [segment(s.observations + 50) for s in made(20, seed=3)]
    fit.bank.add(label(more[0], more[1]), (more[0], more[1]))
    fit.fit(1)
    assert torch.equal(network.mean, before[0])
    assert torch.equal(network.std, before[1])


def test_a_model_tells_apart_what_lies_far_beyond_the_first_labels() -> None:
    # as a robot that runs, after first labels about one that could hardly move
    rng = np.random.default_rng(0)

    def pairs(low: float, high: float) -> list[Segment]:
        values = rng.uniform(low, high, size=(80, 1))
        return [segment(np.repeat(v[None], 3, 0).astype(np.float32), v.repeat(3)) for v in values]

    config = RewardConfig(dropout=0.0, lr=3e-3, batch=32)
    fit = fitter(pairs(-1, 1), config, ONE)  # a deviation of .6
    fit.fit(100)
    fast = pairs(10, 14)  # 17 to 24 of them
    for first, second in zip(fast[::2], fast[1::2], strict=True):
        fit.bank.add(label(first, second, step=80 + len(fit.bank)), (first, second))
    fit.fit(200)
    assert correlation(fit.model, pairs(10, 14)) > 0.95


def test_penalties_and_their_losses_come_back() -> None:
    fit = fitter(linear_segments(40), RewardConfig(dropout=0.0), LINEAR)
    fit.fit(4)
    fresh = fitter(linear_segments(40), RewardConfig(dropout=0.0), LINEAR)
    fresh.restore({k: v.clone() for k, v in fit.state().items()})
    assert torch.equal(fresh.l2, fit.l2)
    assert torch.equal(fresh.losses, fit.losses)


@pytest.mark.parametrize("stride", [2, 3])
def test_steps_left_out_are_made_up_for(stride: int) -> None:
    # every step of a segment is alike, so any of them tell the whole difference
    segments = [segment(np.full((5, 1), v, np.float32)) for v in (0.0, 1.0, 2.0, 5.0)]
    whole = fitter(segments, RewardConfig(dropout=0.0), ONE)
    part = fitter(segments, RewardConfig(dropout=0.0, stride=stride), ONE)
    index = torch.tensor([0, 1])
    thinned, every = part._thinned(index), whole._thinned(index)
    assert len(thinned.steps.action) < len(every.steps.action)
    assert torch.allclose(part._outputs(thinned)[0], whole._outputs(every)[0], rtol=1e-4)


def test_the_output_penalty_pulls_the_mean_to_zero() -> None:
    # comparisons say nothing about the mean: without the penalty it stays where it was put
    def mean_after(penalty: float) -> float:
        config = RewardConfig(dropout=0.0, lr=0.01, output_penalty=penalty)
        fit = fitter(linear_segments(20), config, LINEAR)
        fit.model.network.head.bias.data += 3.0  # type: ignore[union-attr, operator]
        fit.fit(60)
        return float(fit.model.mean.mean())

    assert mean_after(1.0) < 1.0
    assert mean_after(0.0) > 2.0


def test_the_output_penalty_weighs_all_chunks_of_a_batch_alike() -> None:
    def gradient(chunk: int) -> Tensor:
        config = RewardConfig(dropout=0.0, batch=10, output_penalty=2.0)
        fit = fitter(linear_segments(20), config, LINEAR)
        fit.model.network.head.bias.data += 3.0  # type: ignore[union-attr, operator]
        fit._step(torch.arange(10), chunk=chunk)
        grad = fit.model.network.head.bias.grad  # type: ignore[union-attr]
        assert isinstance(grad, Tensor)
        return grad.clone()

    torch.testing.assert_close(gradient(3), gradient(10))
