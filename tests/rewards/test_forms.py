"""Rankings, ratings and edits: their likelihoods, and that each alone finds the order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prefrl.feedback import Comparison, Edit, Label, Query, Ranking, Rating, Reply, Segment
from prefrl.feedback.records import Form
from prefrl.rewards import LabelBank, RewardConfig, RewardFitter, RewardModel, Spaces
from prefrl.rewards.fit import label_loss
from prefrl.rewards.likelihood import (
    bradley_terry_loss,
    plackett_luce_loss,
    ranking_choices,
    ranking_loss,
    rating_loss,
)
from tests.rewards.helpers import label, segment, states
from tests.rewards.test_fit import LINEAR, correlation, linear_segments

CPU = torch.device("cpu")
RETURNS = st.lists(st.floats(-5, 5), min_size=3, max_size=6)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def answered(
    segments: Sequence[Segment], reply: Reply, form: Form, *, step: int = 0, edited: str = ""
) -> Label:
    shown = segments[:1] if edited else segments
    ids = tuple(s.id for s in shown)
    query = Query(segments=ids, policy_step=step, reason="test", priority=0.0, form=form)
    about = {"seq": step + 1, "id": query.id, "query": query, "rater": "test"}
    return Label(reply=reply, edited=edited, **about)  # type: ignore[arg-type]


# ---- likelihoods --------------------------------------------------------------------------


@given(returns=RETURNS)
def test_a_ranking_without_ties_is_plackett_luce(returns: list[float]) -> None:
    order = tuple((i,) for i in np.argsort(returns)[::-1].tolist())
    got = ranking_loss(t(*returns), ranking_choices(order), error=0.0)
    wanted = plackett_luce_loss(t(*(returns[i] for (i,) in order)))
    torch.testing.assert_close(got, wanted)


@given(first=st.floats(-5, 5), second=st.floats(-5, 5), error=st.sampled_from([0.0, 0.1]))
def test_a_ranking_of_two_is_a_comparison_also_in_ties(
    first: float, second: float, error: float
) -> None:
    for order, target in ((((0,), (1,)), 0.0), (((1,), (0,)), 1.0), (((0, 1),), 0.5)):
        got = ranking_loss(t(first, second), ranking_choices(order), error=error)
        wanted = bradley_terry_loss(t(second - first), t(target), error=error)
        torch.testing.assert_close(got[None], wanted)


@given(returns=st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_a_tie_is_the_mean_over_all_its_orders(returns: list[float]) -> None:
    """3 best, then 0, 1, 2 in any of six orders."""
    got = ranking_loss(t(*returns), ranking_choices(((3,), (0, 1, 2))), error=0.0)
    orders = [(3, *rest) for rest in itertools.permutations((0, 1, 2))]
    wanted = [plackett_luce_loss(t(*(returns[i] for i in order))) for order in orders]
    torch.testing.assert_close(got, torch.stack(wanted).mean())


def test_a_tie_pulls_its_segments_together() -> None:
    returns = t(2.0, 0.0, -1.0).requires_grad_()
    ranking_loss(returns, ranking_choices(((0, 1, 2),)), error=0.0).backward()
    assert returns.grad is not None
    assert returns.grad[0] > 0 > returns.grad[2]


def test_probabilities_of_all_rankings_sum_to_one_with_error_too() -> None:
    returns = t(0.3, -1.0, 2.0)
    total = sum(
        math.exp(-ranking_loss(returns, ranking_choices([(i,) for i in p]), error=0.2))
        for p in itertools.permutations(range(3))
    )
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("error", [0.0, 0.1])
@pytest.mark.parametrize("score", [-30.0, -1.3, 0.0, 4.2, 30.0])
def test_probabilities_of_all_ratings_sum_to_one(score: float, error: float) -> None:
    losses = rating_loss(t(*[score] * 9), torch.arange(1, 10), error=error)
    assert losses.isfinite().all()
    assert losses.neg().exp().sum().item() == pytest.approx(1.0)


def test_ratings_by_hand() -> None:
    """At a return of 0, P(9) = 1 - sigmoid(3.5) = 0.0293, P(5) = 2 sigmoid(0.5) - 1 = 0.2449."""
    losses = rating_loss(t(0.0, 0.0), torch.tensor([9, 5]), error=0.0)
    assert losses.neg().exp().tolist() == pytest.approx([0.02931, 0.24492], rel=1e-3)


@given(value=st.integers(1, 9))
def test_a_rating_pulls_the_return_towards_it(value: int) -> None:
    at = t(value - 5.0 - 0.5, value - 5.0 + 0.5).requires_grad_()
    rating_loss(at, torch.full((2,), value), error=0.0).sum().backward()
    assert at.grad is not None
    below, above = at.grad.tolist()
    assert below < 0 or value == 1
    assert above > 0 or value == 9


# ---- the bank and the fitter --------------------------------------------------------------


def mixed_bank() -> LabelBank:
    """A comparison, a ranking of three, a rating, a ranking of four, an edit."""
    made = LabelBank(members=2, keep=100, device=CPU)
    s = [states(float(i), float(i)) for i in range(12)]
    made.add(label(s[0], s[1], "second", step=0), s[:2])
    made.add(answered(s[2:5], Ranking(order=((0,), (1, 2))), "ranking", step=1), s[2:5])
    made.add(answered(s[5:6], Rating(value=9), "rating", step=2), s[5:6])
    four = Ranking(order=((3,), (2,), (1,), (0,)))
    made.add(answered(s[6:10], four, "ranking", step=3), s[6:10])
    edit = answered(s[10:], Edit(text="x"), "edit", step=4, edited=s[11].id)
    made.add(edit, s[10:])
    return made


def test_a_mixed_batch_scores_each_label_by_its_own_likelihood() -> None:
    bank = mixed_bank()
    batch = bank.batch(torch.tensor([3, 0, 4, 2, 1]))
    returns = batch.steps.observation.view(*batch.steps.shape).sum(1)[None].double()
    # segment i returns 2 i
    got = label_loss(returns, batch, error=0.1)[0]
    wanted = [
        ranking_loss(t(12, 14, 16, 18), ranking_choices(((3,), (2,), (1,), (0,))), error=0.1),
        bradley_terry_loss(t(2.0), t(1.0), error=0.1)[0],
        bradley_terry_loss(t(2.0), t(1.0), error=0.1)[0],
        rating_loss(t(10.0), torch.tensor([9]), error=0.1)[0],
        ranking_loss(t(4, 6, 8), ranking_choices(((0,), (1, 2))), error=0.1),
    ]
    torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-6, atol=1e-6)


def test_comparisons_alone_make_a_plain_batch() -> None:
    bank = mixed_bank()
    assert bank.batch(torch.tensor([0, 4])).forms is None
    assert bank.batch(torch.tensor([0, 2])).forms is not None


def test_what_is_withdrawn_leaves_the_bank_with_its_segments() -> None:
    bank, pair = LabelBank(members=2, keep=9, device=CPU), (states(1.0), states(2.0))
    shared = (pair[1], states(3.0))
    one, two = label(*pair, "first", step=0), label(*shared, "tie", step=1)
    bank.add(one, pair)
    bank.add(two, shared)
    bank.remove(one)
    bank.remove(one)  # it is not there any more
    assert len(bank) == 1
    assert set(bank._segments) == {s.id for s in shared}


def test_several_answers_to_one_query_are_all_kept_and_held_out_together() -> None:
    bank, pair = LabelBank(members=8, keep=9, device=CPU), (states(1.0), states(2.0))
    one = label(*pair, "first")
    about = {"seq": 2, "id": "other", "query": one.query, "rater": "bob"}
    other = Label(reply=Comparison(choice="tie"), **about)  # type: ignore[arg-type]
    bank.add(one, pair)
    bank.add(other, pair)
    assert len(bank) == 2
    counts = bank.counts(torch.arange(2))
    assert torch.equal(counts[:, 0], counts[:, 1])


def fitted(labels: Sequence[tuple[Label, Sequence[Segment]]]) -> RewardFitter:
    config = RewardConfig(dropout=0.0, lr=3e-3, batch=32)
    bank = LabelBank(members=config.members, keep=config.keep, device=CPU)
    for one, segments in labels:
        bank.add(one, segments)
    weights, draws = (torch.Generator().manual_seed(s) for s in (0, 1))
    model = RewardModel.build(LINEAR, config, dtype=torch.float32, device=CPU, generator=weights)
    fit = RewardFitter(model, bank, config, generator=draws)
    fit.fit(150)
    return fit


def worth(s: Segment) -> float:
    return float(s.true_reward.sum())


def comparisons(segments: list[Segment]) -> list[tuple[Label, Sequence[Segment]]]:
    pairs = zip(segments[::2], segments[1::2], strict=True)
    return [(label(a, b, step=i), (a, b)) for i, (a, b) in enumerate(pairs)]


def rankings(segments: list[Segment]) -> list[tuple[Label, Sequence[Segment]]]:
    made = []
    for i in range(0, len(segments), 4):
        four = segments[i : i + 4]
        best = sorted(range(4), key=lambda k: -worth(four[k]))
        order = Ranking(order=((best[0],), (best[1], best[2]), (best[3],)))  # one tie
        made.append((answered(four, order, "ranking", step=i), four))
    return made


def ratings(segments: list[Segment]) -> list[tuple[Label, Sequence[Segment]]]:
    edges = np.quantile([worth(s) for s in segments], np.arange(1, 9) / 9)
    values = [1 + int(np.searchsorted(edges, worth(s))) for s in segments]
    return [
        (answered([s], Rating(value=v), "rating", step=i), [s])
        for i, (s, v) in enumerate(zip(segments, values, strict=True))
    ]


def edits(segments: list[Segment]) -> list[tuple[Label, Sequence[Segment]]]:
    made = []
    for i, pair in enumerate(zip(segments[::2], segments[1::2], strict=True)):
        worse, better = sorted(pair, key=worth)
        edit = answered([worse, better], Edit(text="better"), "edit", step=i, edited=better.id)
        made.append((edit, (worse, better)))
    return made


@pytest.mark.parametrize("form", [comparisons, rankings, ratings, edits])
def test_each_form_alone_finds_the_true_order(form: object) -> None:
    fit = fitted(form(linear_segments(240)))  # type: ignore[operator]
    assert correlation(fit.model, linear_segments(100, seed=1)) > 0.9
    figures = fit.holdout(100)
    if form is ratings:
        assert figures["reward/holdout_rating_correlation"] > 0.8
    else:
        assert figures["reward/holdout_accuracy"] > 0.8


def test_all_forms_together_find_the_true_order() -> None:
    segments = linear_segments(160)
    forms = (comparisons, rankings, ratings, edits)
    mixed = [x for k, form in enumerate(forms) for x in form(segments[40 * k : 40 * k + 40])]
    fit = fitted(mixed)
    assert correlation(fit.model, linear_segments(100, seed=1)) > 0.9
    assert fit.holdout(100)["reward/holdout_accuracy"] > 0.75


# ---- comparisons are fitted as before -----------------------------------------------------


def test_plain_comparisons_are_fitted_bit_for_bit_as_before_other_forms_came() -> None:
    """One step, written out as it was when nothing but comparisons existed."""
    segments = linear_segments(40)
    spaces = Spaces(kind="states", observation=(3,), actions=1, discrete=False)
    config = RewardConfig(dropout=0.0, batch=20, output_penalty=0.1)

    def fresh() -> RewardFitter:
        bank = LabelBank(members=config.members, keep=config.keep, device=CPU)
        for one, pair in comparisons(segments):
            bank.add(one, pair)
        weights, draws = (torch.Generator().manual_seed(s) for s in (0, 1))
        model = RewardModel.build(
            spaces, config, dtype=torch.float32, device=CPU, generator=weights
        )
        return RewardFitter(model, bank, config, generator=draws)

    def old_step(fit: RewardFitter, index: Tensor) -> None:
        counts = fit.bank.counts(index)
        held_out = (counts == 0).float()
        weight = counts / counts.sum(1, keepdim=True).clamp_min(1)
        fit.optimiser.zero_grad(set_to_none=True)
        steps = fit.bank.batch(index).steps
        target = fit.bank.batch(index).target
        torch.randint(1, (), generator=fit.generator)
        raw = fit.model.network(steps.observation, steps.action, dropout=fit.generator)
        returns = raw.view(-1, *steps.shape).mean(-1) * fit.bank.segment_steps
        first, second = returns.chunk(2, dim=1)
        difference = second - first
        loss = bradley_terry_loss(difference, target.expand_as(difference), error=config.error)
        pull = config.output_penalty * raw.square().mean(1).sum()
        ((loss * weight).sum() + pull).backward()
        losses = torch.zeros_like(fit.losses)
        losses += (loss.detach() * torch.stack([counts, held_out])).sum(-1)
        penalty = torch.stack(
            [w.flatten(1).square().sum(1) for w in fit.model.network.member_weights()]
        ).sum(0)
        (fit.l2 * penalty).sum().backward()
        fit.optimiser.step()
        fit._steer(losses / torch.stack([counts, held_out]).sum(-1))

    new, old = fresh(), fresh()
    for fit in (new, old):
        fit.model.network.train()
    for _ in range(5):
        new._step(new._draw(), chunk=config.batch)
        old_step(old, old._draw())
    one, two = new.model.state(), old.model.state()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert torch.equal(new.l2, old.l2)
    assert torch.equal(new.losses, old.losses)


def test_a_segment_of_nothing_in_common_is_not_needed_by_ratings() -> None:
    bank = LabelBank(members=2, keep=1, device=CPU)
    for i in range(3):
        one = [segment(np.full((2, 1), i, np.float32))]
        bank.add(answered(one, Rating(value=5), "rating", step=i), one)
    assert len(bank._segments) == 1
