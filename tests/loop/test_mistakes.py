"""The most certain mistakes, by hand."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from prefrl.feedback import FeedbackStore
from prefrl.loop.mistakes import certain_mistakes, judge
from prefrl.rewards import bootstrap_counts
from tests.loop.answered import answered, dots

MEMBERS = 2


def model(returns: dict[str, tuple[float, float]], *, fitted: bool = True) -> SimpleNamespace:
    """Says of each segment what the table says, by member."""

    def segment_returns(segments: list) -> torch.Tensor:
        return torch.tensor([returns[s.id] for s in segments]).T

    config = SimpleNamespace(error=0.1)
    return SimpleNamespace(fitted=fitted, segment_returns=segment_returns, config=config)


def believed(difference: float) -> float:
    """Probability of the better one: a tenth of all answers is taken to be chance."""
    return 0.9 / (1 + math.exp(-difference)) + 0.05


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    """Twelve comparisons, all answered rightly."""
    return FeedbackStore.open(answered(tmp_path / "run", sizes=[2] * 12, segments=dots(24)))


def test_each_answer_is_judged_by_members_that_never_saw_it(store: FeedbackStore) -> None:
    labels = store.labels(after=0)
    table = {s.id: (float(i % 5), float(-i % 7)) for i, s in enumerate(dots(24))}
    found = judge(model(table), store, labels)  # type: ignore[arg-type]
    assert [x.label.seq for x in found] == [x.seq for x in labels]
    kinds = set()
    for one in found:
        first, second = (table[i] for i in one.label.segments)
        counts = bootstrap_counts(one.label.query.id, MEMBERS)
        by = [m for m in range(MEMBERS) if counts[m] == 0] or [0, 1]
        mean = torch.tensor([second[m] - first[m] for m in by]).mean()
        assert one.second == pytest.approx(believed(float(mean)), abs=1e-6)
        assert one.members == tuple(by)
        assert one.held_out == (counts == 0).any()
        kinds.add(len(by))
    assert kinds == {1, 2}


def test_the_surest_mistakes_come_first_and_only_held_out_ones(store: FeedbackStore) -> None:
    labels = store.labels(after=0)
    table = {}
    for n, label in enumerate(labels):  # wrong about all but every third, by n
        target = label.comparison.target
        assert target is not None
        gain = (1 if target else -1) * (1.0 if n % 3 == 0 else -0.1 * n)
        first, second = label.segments
        table |= {first: (0.0, 0.0), second: (gain, gain)}
    held_out = [(bootstrap_counts(x.query.id, MEMBERS) == 0).any() for x in labels]
    wanted = [n for n in reversed(range(12)) if n % 3 and held_out[n]]
    assert not all(held_out)
    found = certain_mistakes(model(table), store, labels, count=3)  # type: ignore[arg-type]
    assert [x.label.seq for x in found] == [labels[n].seq for n in wanted[:3]]
    assert found[0].given == pytest.approx(believed(-0.1 * wanted[0]))


def test_a_model_that_was_never_fitted_makes_no_mistakes(store: FeedbackStore) -> None:
    assert judge(model({}, fitted=False), store, store.labels(after=0)) == []  # type: ignore[arg-type]
