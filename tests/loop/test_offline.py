"""A reward model fitted to stored answers: of every kind, to the same weights if interrupted."""

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import prefrl
from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, FeedbackStore
from prefrl.loop.metrics import read_metrics
from prefrl.loop.offline import chosen_labels, read_fit
from prefrl.loop.train import Stop
from prefrl.rewards import RewardModel
from tests.loop.answered import answered, dots

fit = partial(prefrl.fit, threads=1)  # more wait for each other where cores are busy
MIXED = [2] * 60 + [3] * 20 + [1] * 60
ENOUGH = sum(MIXED)


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 60 comparisons, 20 rankings and 60 ratings."""
    run = tmp_path_factory.mktemp("offline") / "run"
    return answered(run, sizes=MIXED, segments=dots(ENOUGH))


def correlation(model: RewardModel) -> float:
    fresh = dots(200, seed=1)
    true = [s.true_reward.sum() for s in fresh]
    return float(np.corrcoef(model.score(fresh).sum(1).numpy(), true)[0, 1])


def same(one: RewardModel, other: RewardModel) -> bool:
    a, b = one.state(), other.state()
    return all(torch.equal(a[k], b[k]) for k in a)


def hashes(directory: Path) -> dict[str, str]:
    """Of every file but the locks, which count those who have waited."""
    files = [p for p in directory.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class StopAfter(Stop):
    """Asks to stop after so many pieces."""

    def __init__(self, pieces: int) -> None:
        self.left = pieces

    @property
    def asked(self) -> bool:  # type: ignore[override]
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("here", "name"), [(".", "."), ("report", ".."), ("report", "../report/..")]
)
def test_a_model_lies_beside_the_run_however_that_is_named(
    here: str, name: str, gathered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = []
    monkeypatch.setattr("prefrl.refit._fit", lambda *given, **_: where.append(given[2]))
    (gathered / "report").mkdir(exist_ok=True)
    monkeypatch.chdir(gathered / here)
    fit(name)
    assert where[0].resolve() == gathered.with_name(f"run-fit-{len(MIXED)}")


def test_answers_of_every_kind_make_one_reward_model(gathered: Path, tmp_path: Path) -> None:
    before = hashes(gathered)
    model = fit(gathered, out=tmp_path / "fit", updates=300)
    assert correlation(model) > 0.9
    assert same(model, prefrl.RewardModel.load(tmp_path / "fit"))
    last = read_metrics(tmp_path / "fit" / "metrics.jsonl")[-1]
    assert last["step"] == 300
    assert last["reward/holdout_accuracy"] > 0.8
    assert last["reward/holdout_rating_correlation"] > 0.8
    assert last["reward/holdout_correlation_with_true"] > 0.8
    picture = cv2.imread(str(tmp_path / "fit" / "report" / "fit.png"))
    assert picture.shape[1] > 1200
    assert hashes(gathered) == before  # the run itself is only read


def test_it_goes_beside_the_run_and_passes_over_all_answers(gathered: Path) -> None:
    fit(gathered)
    settings = read_fit(gathered.with_name("run-fit-140"))
    # 20 passes over 140 answers in batches of 32: 20 * 140 / 32 = 87.5
    assert (settings.answers, settings.updates) == (140, 88)
    assert settings.model.keep == 140  # and not the run's newest 10


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_fit_that_is_stopped_goes_on_to_the_same_weights(
    pieces: int, gathered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(gathered, out=tmp_path / "whole", updates=50)
    with monkeypatch.context() as patch:
        patch.setattr("prefrl.refit.Stop", lambda: StopAfter(pieces))
        part = fit(gathered, out=tmp_path / "parts", updates=50)
    assert len(read_metrics(tmp_path / "parts" / "metrics.jsonl")) == pieces
    assert not same(part, whole)
    assert same(fit(gathered, out=tmp_path / "parts", updates=50), whole)


def test_a_fit_goes_on_with_the_answers_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = answered(tmp_path / "run", sizes=[2] * 40, segments=dots(80))
    whole = fit(run, out=tmp_path / "whole", updates=20)
    with monkeypatch.context() as patch:
        patch.setattr("prefrl.refit.Stop", lambda: StopAfter(3))
        fit(run, out=tmp_path / "parts", updates=20)
    with FeedbackStore.open(run) as store:
        last = store.labels(after=0)[-1]
        query = replace(last.query, policy_step=last.query.policy_step + 1)
        store.add_queries([query])
        reply = Comparison(choice="first")
        store.submit_many([Answer(id="late", query=query.id, rater="ann", reply=reply)])
        assert store.labels(after=0)[-1].id == "late"
    assert same(fit(run, out=tmp_path / "parts", updates=20), whole)
    later = fit(run, out=tmp_path / "later", updates=20, answers=999)
    assert not same(later, whole)
    assert read_fit(tmp_path / "later").answers == 41  # and not what may yet come


def test_what_a_person_said_who_was_forgotten_is_not_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = answered(tmp_path / "run", sizes=[2] * 40, segments=dots(80))
    with FeedbackStore.open(run) as store:
        for x in store.labels(after=0)[:10]:
            bob = Answer(id=f"bob-{x.seq}", query=x.query.id, rater="bob", reply=x.reply)
            store.submit_many([bob])
    with monkeypatch.context() as patch:
        patch.setattr("prefrl.refit.Stop", lambda: StopAfter(3))
        fit(run, out=tmp_path / "before", updates=20)
    with FeedbackStore.open(run) as store:
        store.forget("ann")
        seqs = [x.seq for x in chosen_labels(store, answers=45, without=())[0]]
        assert seqs == [41, 42, 43, 44, 45]  # bob's
    with pytest.raises(UserError, match="labels was 50, now 10"):
        fit(run, out=tmp_path / "before", updates=20)
    with monkeypatch.context() as patch:
        patch.setattr("prefrl.refit.Stop", lambda: StopAfter(3))
        fit(run, out=tmp_path / "after", updates=20, answers=45)
    fit(run, out=tmp_path / "after", updates=20, answers=45)
    assert read_metrics(tmp_path / "after" / "metrics.jsonl")[-1]["step"] == 20


def test_what_one_rater_said_can_be_left_out(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", sizes=[2] * 100, segments=dots(200))
    with FeedbackStore.open(run) as store:
        opposite = {"first": "second", "second": "first"}
        store.submit_many(
            [
                Answer(
                    id=f"bob-{x.seq}",
                    query=x.query.id,
                    rater="bob",
                    reply=Comparison(choice=opposite[x.comparison.choice]),  # type: ignore[arg-type]
                )
                for x in store.labels(after=0)
            ]
        )
    both = fit(run, out=tmp_path / "both", updates=120)
    without = fit(run, out=tmp_path / "without", updates=120, without=["bob"])
    alone = fit(run, out=tmp_path / "bob", updates=120, without=["ann"])
    assert abs(correlation(both)) < 0.8
    assert correlation(without) > 0.9
    assert correlation(alone) < -0.9


def test_only_the_first_answers_can_be_taken(gathered: Path, tmp_path: Path) -> None:
    fit(gathered, out=tmp_path / "fit", updates=1, answers=60)
    assert read_fit(tmp_path / "fit").answers == 60
    figures = read_metrics(tmp_path / "fit" / "metrics.jsonl")[-1]
    assert "reward/holdout_rating_correlation" not in figures  # the ratings came later


def test_a_fit_of_something_else_is_left_alone(gathered: Path, tmp_path: Path) -> None:
    fit(gathered, out=tmp_path / "fit", updates=2)
    before = hashes(tmp_path)
    with pytest.raises(UserError, match="updates was 2, now 3"):
        fit(gathered, out=tmp_path / "fit", updates=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"exists and holds something else .no fit.toml"):
        fit(gathered, out=tmp_path / "mine")
    (tmp_path / "mine" / "thesis.tex").unlink()
    (tmp_path / "mine").rmdir()
    assert hashes(tmp_path) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"without": ["anna"]}, "got 'anna', who has answered nothing here; did you mean 'ann'?"),
        ({"without": ["ann"]}, "without: got ann, by whom all 140 answers are"),
        ({"updates": 0}, "updates: got 0"),
        ({"seed": -1}, "seed: got -1"),
        ({"device": "abacus"}, "device: got 'abacus'"),
        ({"model": {"learning_rate": 1}}, "unknown setting 'model.learning_rate'"),
        ({"model": {"stride": 6}}, "model.stride: got 6, wanted at most 5, a segment's steps"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_and_nothing_is_created(
    settings: dict[str, object], said: str, gathered: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        fit(gathered, out=tmp_path / "fit", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "fit").exists()


def test_segments_of_several_lengths_are_refused(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", sizes=[2], segments=dots(2))
    answered(run, sizes=[2], segments=dots(2, steps=7))
    with pytest.raises(UserError, match="got segments of 5 and 7 steps"):
        fit(run)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_segments_of_another_shape_are_refused(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", sizes=[2], segments=dots(2, size=9))
    with pytest.raises(UserError, match=r"shape \(9,\), wanted \(4,\), as prefrl/Dot-v0 gives"):
        fit(run)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"updates": 1.5}, "updates: got 1.5, wanted int"),
        ({"updates": "10"}, "updates: got '10', wanted int"),
        ({"answers": 10.5}, "answers: got 10.5, wanted int"),
        ({"seed": 1.5}, "seed: got 1.5, wanted int"),
        ({"seed": 10**20}, "seed: got 1000"),
        ({"threads": 1.5}, "threads: got 1.5, wanted int"),
        ({"without": "ann"}, "without: got 'ann', wanted a list"),
        ({"model": 3}, "model: got 3, wanted a dictionary"),
    ],
)
def test_settings_of_other_types_are_refused_and_nothing_is_created(
    settings: dict[str, object], said: str, gathered: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        prefrl.fit(gathered, out=tmp_path / "out", **{"threads": 1, **settings})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
