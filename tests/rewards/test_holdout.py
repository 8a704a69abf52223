"""Hold-out: only members that never saw a label judge it."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from prefrl.feedback import Segment
from prefrl.rewards import (
    LabelBank,
    RewardConfig,
    RewardModel,
    Spaces,
    bootstrap_counts,
    held_out,
    held_out_returns,
)
from tests.rewards.helpers import label, states

ONE = Spaces(kind="states", observation=(1,), actions=1, discrete=False)
MEMBERS = 3


def model() -> RewardModel:
    made = RewardModel.build(
        ONE,
        RewardConfig(members=MEMBERS),
        dtype=torch.float32,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
    )
    made.mean, made.std = torch.tensor([0.5, 0.0, 0.0]), torch.tensor([2.0, 1.0, 1.0])
    made.fitted = True
    return made


def chain(count: int) -> tuple[LabelBank, list[Segment]]:
    """Segment i is compared with i + 1."""
    made = LabelBank(members=MEMBERS, keep=1000, device=torch.device("cpu"))
    segments = [states(float(i), 2.0) for i in range(count + 1)]
    for step, pair in enumerate(pairwise(segments)):
        made.add(label(*pair, "second", step=step), pair)
    return made, segments


def test_a_label_is_judged_by_the_members_that_left_it_out() -> None:
    bank, segments = chain(12)
    judge = model()
    got = held_out(judge, bank, torch.arange(12), error=0.0)
    returns = judge.segment_returns(segments)  # [E, 13]
    wanted = []
    for example, (i, j) in zip(bank._examples.values(), pairwise(range(13)), strict=True):
        left_out = example.counts == 0
        if left_out.any():
            wanted.append(float((returns[:, j] - returns[:, i])[torch.from_numpy(left_out)].mean()))
    assert 0 < len(wanted) < 12
    assert got.difference.tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_label_is_judged_by_the_steps_that_are_read() -> None:
    bank, _ = chain(12)  # of segments that differ in their first step alone
    every = held_out(model(), bank, torch.arange(12), error=0.0)
    some = held_out(model(), bank, torch.arange(12), error=0.0, stride=2)
    assert (every.difference.abs() > 1e-3).all()
    assert (some.difference == 0).all()


def test_the_steps_that_are_read_stand_for_all() -> None:
    bank = LabelBank(members=MEMBERS, keep=1000, device=torch.device("cpu"))
    segments = [states(float(i), float(i)) for i in range(13)]
    for step, pair in enumerate(pairwise(segments)):
        bank.add(label(*pair, "second", step=step), pair)
    every = held_out(model(), bank, torch.arange(12), error=0.0)
    some = held_out(model(), bank, torch.arange(12), error=0.0, stride=2)
    torch.testing.assert_close(some.difference, every.difference)


def test_pieces_of_many_labels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, segments = chain(12)
    ids = [s.id for s in segments]
    figures = held_out(model(), bank, torch.arange(12), error=0.1).figures()
    returns = held_out_returns(model(), bank, ids)
    monkeypatch.setattr("prefrl.rewards.holdout.AT_ONCE", 5)
    again = held_out(model(), bank, torch.arange(12), error=0.1).figures()
    assert again == pytest.approx(figures)
    torch.testing.assert_close(held_out_returns(model(), bank, ids), returns, equal_nan=True)


def test_a_segment_is_judged_by_members_that_saw_no_label_about_it() -> None:
    bank, segments = chain(12)
    judge = model()
    got = held_out_returns(judge, bank, [s.id for s in segments])
    counts = np.stack([x.counts for x in bank._examples.values()])  # [12, E]
    steps = torch.tensor([[[float(i)], [2.0]] for i in range(13)])
    raw = judge.members(steps.flatten(0, 1), torch.zeros(26, 1)).view(MEMBERS, 13, 2)
    normal = ((raw - judge.mean[:, None, None]) / judge.std[:, None, None]).sum(-1)
    for i in range(13):
        seen = counts[max(i - 1, 0) : i + 1].sum(0)  # it is in the labels before and after it
        judges = [m for m in range(MEMBERS) if seen[m] == 0]
        if judges:
            assert got[i].item() == pytest.approx(normal[judges, i].mean().item(), abs=1e-5)
        else:
            assert got[i].isnan()
    assert got.isnan().any()
    assert not got.isnan().all()


def test_bootstraps_are_those_of_the_query() -> None:
    bank, segments = chain(2)
    queries = [label(*pair, step=step).query for step, pair in enumerate(pairwise(segments))]
    wanted = [bootstrap_counts(query.id, MEMBERS) for query in queries]
    assert torch.equal(bank.counts(torch.arange(2)), torch.from_numpy(np.stack(wanted, 1)).float())
