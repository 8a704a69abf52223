"""The most certain mistakes, by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prefrl import fit
from prefrl.feedback import FeedbackStore
from prefrl.loop.checkpoint import write_checkpoint
from prefrl.loop.mistakes import certain_mistakes, judge, learned_from
from prefrl.loop.rundir import RunDir
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
    learned = {x.seq for x in labels}
    found = judge(model(table), store, labels, learned=learned)  # type: ignore[arg-type]
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
    learned = {x.seq for x in labels}
    found = certain_mistakes(model(table), store, labels, count=3, learned=learned)  # type: ignore[arg-type]
    assert [x.label.seq for x in found] == [labels[n].seq for n in wanted[:3]]
    assert found[0].given == pytest.approx(believed(-0.1 * wanted[0]))


def test_a_model_that_was_never_fitted_makes_no_mistakes(store: FeedbackStore) -> None:
    unfitted: Any = model({}, fitted=False)
    assert judge(unfitted, store, store.labels(after=0), learned=set()) == []


def test_who_was_not_fitted_to_an_answer_has_not_seen_it(store: FeedbackStore) -> None:
    labels = store.labels(after=0)
    table = {s.id: (0.0, 0.0) for s in dots(24)}
    unseen = [x for x in labels if (bootstrap_counts(x.query.id, MEMBERS) > 0).all()]
    assert unseen
    for one in judge(model(table), store, unseen, learned=set()):  # type: ignore[arg-type]
        assert one.held_out
        assert one.members == (0, 1)


def test_a_fit_has_learned_from_the_answers_it_was_given(store: FeedbackStore) -> None:
    run = store.directory
    fit(run, answers=5, updates=1, out=run.with_name("five"), threads=1)
    assert learned_from(run.with_name("five"), store) == {1, 2, 3, 4, 5}
    assert learned_from(run, store) == set(range(1, 13))  # no checkpoint says otherwise
    answered(run.with_name("other"), sizes=[2], segments=dots(2))
    assert learned_from(run.with_name("other"), store) == set()
    with FeedbackStore.open(run.with_name("other")) as other:
        assert learned_from(run.with_name("five"), other) == set()


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ({"labels": [*range(1, 11)], "unfitted": 3, "watermark": 11}, range(1, 8)),
        ({"labels": [7, 9], "unfitted": 0, "watermark": 9}, range(1, 10)),  # two are kept
        ({"labels": [1, 2], "unfitted": 2, "watermark": 2}, []),
        ({"unfitted": 0, "watermark": 4}, range(1, 5)),
    ],
)
def test_a_run_has_learned_from_what_its_newest_checkpoint_was_fitted_to(
    store: FeedbackStore, state: dict[str, Any], wanted: Sequence[int]
) -> None:
    def fill(path: Path) -> None:
        (path / "state.json").write_text(json.dumps(state))

    checkpoint = write_checkpoint(RunDir(path=store.directory).checkpoints, 7, fill)
    assert learned_from(store.directory, store) == set(wanted)
    assert learned_from(checkpoint, store) == set(wanted)
