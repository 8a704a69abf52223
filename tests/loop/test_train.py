"""The whole loop on the built-in world: it learns, resumes bit for bit, leaks nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prefrl.film
import prefrl.run
from envs import ScoreStep, make_vec, registry
from prefrl.agents import Collector
from prefrl.config import EnvConfig, TrainConfig
from prefrl.errors import UserError
from prefrl.feedback import Answer, Comparison, FeedbackStore
from prefrl.loop.checkpoint import newest_checkpoint
from prefrl.loop.metrics import read_metrics
from prefrl.loop.rundir import RunDir
from prefrl.loop.saving import _check_true_reward, read_run
from prefrl.loop.state import Run
from prefrl.loop.train import Stop, learn
from prefrl.recipes import recipe_for
from prefrl.run import _check_points, make_rater, make_schedule

DOT = "prefrl/Dot-v0"
SHORT: dict[str, Any] = {"labels": 40, "steps": 8_960, "checkpoint_every": 3_200}


def config(**settings: Any) -> TrainConfig:
    return dataclasses.replace(recipe_for(DOT), **settings)


@contextmanager
def running(
    directory: Path,
    config: TrainConfig,
    *,
    rater: Any = None,
    scramble: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[Run]:
    """The parts of one run, begun or resumed in `directory`."""
    options = config.env.options()
    venv = make_vec(config.task, num_envs=config.num_envs, seed=config.seed, **options)
    if scramble is not None:
        venv = Scrambled(venv, scramble)  # type: ignore[assignment]
    rundir = RunDir.prepare(directory, config)
    begun = (directory / "labels.db").exists()
    opened = (
        FeedbackStore.open(directory)
        if begun
        else FeedbackStore.create(directory, task=config.task, seed=config.seed)
    )
    with opened as store:
        run = Run(
            config,
            rundir,
            venv=venv,
            rater=rater or make_rater(config),
            schedule=make_schedule(config),
            store=store,
            device=torch.device("cpu"),
        )
        run.resume()
        yield run


class Scrambled:
    """A vector environment whose hidden score is changed."""

    def __init__(self, venv: Any, scramble: Callable[[np.ndarray], np.ndarray]) -> None:
        self._venv, self._scramble = venv, scramble

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venv, name)

    @property
    def score(self) -> ScoreStep:
        step = self._venv.score
        return dataclasses.replace(
            step,
            true_reward=self._scramble(step.true_reward),
            episode_return=self._scramble(step.episode_return),
        )


class Replay:
    """Gives the answers of a finished run, whatever the segments are worth."""

    def __init__(self, source: Path, fallback: Any) -> None:
        with FeedbackStore.open(source) as store:
            self.choices = {x.query.id: x.reply for x in store.labels(after=0)}
        self.oracle, self.name = fallback, fallback.name

    def answer(self, query: Any, segments: Any, context: Any) -> Any:
        given = self.oracle.answer(query, segments, context)
        return dataclasses.replace(given, reply=self.choices[query.id])


def weights(run: Run) -> dict[str, torch.Tensor]:
    policy = {f"policy.{k}": v for k, v in run.policy.state_dict().items()}
    return {k: v.clone() for k, v in (policy | run.model.state()).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(("labels", "segments"), [(200, 2), (120, 3)])
def test_the_dot_is_learned_from_comparisons_and_rankings(
    tmp_path: Path, labels: int, segments: int
) -> None:
    queries = dataclasses.replace(config().queries, segments=segments)
    settings = config(seed=1, labels=labels, queries=queries)
    with running(tmp_path / "run", settings) as run:
        learn(run)
        learned = run.episodes.mean_return()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    first = next(r["episode/true_return"] for r in rows if "episode/true_return" in r)
    assert first < -18  # a random walk: about -20
    assert learned > -12  # walking there takes about -5; rounding differs by processor
    assert rows[-1]["feedback/labels"] == settings.labels  # all it was granted, and no more


def test_no_labels_teach_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "run", config(labels=0, steps=25_600)) as run:
        learn(run)
        assert run.episodes.mean_return() < -15
        assert not run.recorder.pool  # nor is anything kept for those who ask nothing


@pytest.mark.parametrize("nobody", [{"reward": "true"}, {"labels": 0}])
def test_who_asks_nobody_needs_no_room_for_segments_and_says_nothing_of_a_reward_model(
    tmp_path: Path, nobody: dict[str, Any]
) -> None:
    for steps in (5, 40):  # a segment has 10
        settings = config(**nobody, rollout_steps=steps, steps=1_280, video=False)
        out = prefrl.run.run(settings, out=tmp_path / str(steps))
        assert not any("correlation" in k for row in read_metrics(out.metrics) for k in row)


def test_a_complete_run_can_be_interrupted_while_it_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for jobs

    monkeypatch.setattr(prefrl.run, "write_report", draw)
    with pytest.raises(KeyboardInterrupt):
        prefrl.run.run(config(labels=0, steps=1_280, video=False), out=tmp_path / "run")
    signal.signal(signal.SIGINT, before)
    assert newest_checkpoint(tmp_path / "run" / "checkpoints").name.endswith("1280")  # type: ignore[union-attr]


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt),
                                               (signal.SIGTERM, SystemExit)])  # fmt: skip
def test_a_run_that_a_signal_stops_saves_says_so_and_passes_it_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    error: type[BaseException],
) -> None:
    collect = Collector.collect

    def stopped(of: Collector, steps: int) -> Any:
        os.kill(os.getpid(), number)
        return collect(of, steps)

    settings = config(labels=0, steps=2_560, video=False)
    monkeypatch.setattr(Collector, "collect", stopped)
    with caplog.at_level("INFO"), pytest.raises(error) as caught:
        prefrl.run.run(settings, out=tmp_path / "run")
    monkeypatch.setattr(Collector, "collect", collect)
    assert getattr(caught.value, "code", 143) == 143
    assert "train --resume --out" in caplog.text
    assert newest_checkpoint(tmp_path / "run" / "checkpoints").name.endswith("0640")  # type: ignore[union-attr]
    done = prefrl.run.run(settings, out=tmp_path / "run")
    assert (done.path / "report" / "index.html").is_file()


def test_who_is_complete_passes_no_signal_on() -> None:
    with Stop().on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.complete()
    assert stop.asked


def test_a_run_in_another_thread_hears_no_signals(tmp_path: Path) -> None:
    settings = config(labels=0, steps=640, video=False)
    with ThreadPoolExecutor(1) as worker:
        done = worker.submit(prefrl.run.run, settings, out=tmp_path / "run").result()
    assert (done.path / "report" / "index.html").is_file()


def test_emulators_get_the_threads_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(prefrl.run, "make_vec", lambda *_, **about: given.update(about))
    with pytest.raises(AttributeError):  # there is no environment
        prefrl.run.run(config(threads=3), out=tmp_path / "run")
    assert given["threads"] == 3


def test_a_player_without_a_policy_closes_its_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = make_vec(DOT, num_envs=1, seed=0)
    monkeypatch.setattr(prefrl.film, "make_vec", lambda *_, **__: venv)
    begun = RunDir.prepare(tmp_path / "run", config())
    with pytest.raises(UserError, match="no checkpoint"):
        prefrl.film.open_player(begun, num_envs=1, seed=0, greedy=False)
    assert venv.closed


def test_a_run_that_cannot_begin_closes_its_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = make_vec(DOT, num_envs=16, seed=0)
    monkeypatch.setattr(prefrl.run, "make_vec", lambda *_, **__: venv)
    with pytest.raises(UserError, match="a segment of 10 steps does not fit"):
        prefrl.run.run(config(rollout_steps=5), out=tmp_path / "run")
    assert venv.closed


def test_a_negated_oracle_teaches_the_opposite(tmp_path: Path) -> None:
    settings = config(rater="negated")
    with running(tmp_path / "run", settings) as run:
        learn(run)
        assert run.episodes.mean_return() < -25  # farther from the goal than a random walk


@pytest.mark.parametrize("interruptions", [(2_000,), (3_200, 3_840, 7_000)])
def test_a_run_that_is_stopped_and_resumed_ends_bit_identical(
    tmp_path: Path, interruptions: tuple[int, ...]
) -> None:
    with running(tmp_path / "alone", config(**SHORT)) as run:
        learn(run)
        alone = weights(run)
    for step in interruptions:
        with running(tmp_path / "stopped", config(**SHORT)) as run:
            learn(run, stop=StopAt(run, step))
            assert run.step < SHORT["steps"]
    with running(tmp_path / "stopped", config(**SHORT)) as run:
        learn(run)
        assert same(weights(run), alone)
    one, other = (read_metrics(tmp_path / x / "metrics.jsonl") for x in ("alone", "stopped"))
    assert [untimed(r) for r in one] == [untimed(r) for r in other]


def test_a_run_on_pixels_goes_on_bit_identical(tmp_path: Path) -> None:
    game = recipe_for("ALE/Pong-v5")
    short = dataclasses.replace(
        game,
        num_envs=2,
        rollout_steps=32,
        steps=576,
        labels=8,
        checkpoint_every=256,
        queries=dataclasses.replace(game.queries, initial=0.5, every=64, pool=8),
    )
    with running(tmp_path / "alone", short) as run:
        learn(run)
        assert run.ppo.optimiser.state
        alone = weights(run)
    with running(tmp_path / "stopped", short) as run:
        learn(run, stop=StopAt(run, 448))
        assert run.model.fitted
    with running(tmp_path / "stopped", short) as run:
        learn(run)
        assert same(weights(run), alone)


class StopAt(Stop):
    """Asks to stop once the run has reached a step."""

    def __init__(self, run: Run, step: int) -> None:
        self._run, self._step = run, step

    @property
    def asked(self) -> bool:  # type: ignore[override]
        return self._run.step >= self._step


def untimed(row: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in row.items() if not k.startswith("time/")}


def test_until_the_first_fit_every_segment_begins_at_a_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SHORT | {"steps": 4_480, "checkpoint_every": 10_000}
    queries = dataclasses.replace(config().queries, restart=True)
    with running(tmp_path, config(**settings, queries=queries)) as run:
        begins: list[tuple[bool, int]] = []
        add, reset_at = run.recorder.add, run.venv.reset_at
        resets: list[tuple[bool, bool]] = []

        def reset(step: int, *, phases: bool) -> np.ndarray:
            resets.append((run.model.fitted, phases))
            return reset_at(step, phases=phases)

        def noted(experience: Any, *, policy_step: int) -> None:
            steps = experience.action.shape[1]
            assert steps == (40 if run.model.fitted else run.segment_steps)
            begins.append((run.model.fitted, experience.first_step))
            add(experience, policy_step=policy_step)

        monkeypatch.setattr(run.recorder, "add", noted)
        monkeypatch.setattr(run.venv, "reset_at", reset)
        learn(run)
    # so that each of them is whole; and once more, into different phases of episodes
    assert resets == [(False, False)] * (len(resets) - 1) + [(True, True)]
    before = [first_step for fitted, first_step in begins if not fitted]
    assert len(before) > 2
    assert set(before) == {0}
    assert 40 in [first_step for fitted, first_step in begins if fitted]  # and no longer


def test_the_first_queries_are_chosen_from_as_much_as_the_pool_holds(tmp_path: Path) -> None:
    queries = dataclasses.replace(config().queries, first="k_center", candidates=3, pool=48)
    with running(tmp_path, config(steps=64_000, labels=40, queries=queries)) as run:
        while not run.model.fitted:
            held = len(run.recorder.pool)
            learn(run, stop=StopAt(run, run.step + 640))
        labels = run.store.labels(after=0)
    assert {label.query.reason for label in labels} == {"k_center"}
    assert held < 48 <= held + queries.per_rollout


def test_a_short_run_asks_about_what_there_is(tmp_path: Path) -> None:
    settings = config(steps=6_400, labels=200)  # of which 400 segments would be wanted
    with running(tmp_path, settings) as run:
        learn(run)
        assert run.asking.labels_used > 0
        assert run.model.fitted


@pytest.mark.parametrize("schedule", ["constant", "christiano_atari", "christiano_mujoco"])
@pytest.mark.parametrize("task", [DOT, "ALE/Pong-v5", "HalfCheetah-v5"])
def test_every_recipe_takes_every_schedule(task: str, schedule: str) -> None:
    recipe = recipe_for(task)
    queries = dataclasses.replace(recipe.queries, schedule=schedule)
    settings = dataclasses.replace(recipe, queries=queries)
    _check_points(settings)
    assert make_schedule(settings).due(recipe.steps) == recipe.labels


def test_candidates_for_the_first_queries_gather_for_a_twentieth_of_the_run(tmp_path: Path) -> None:
    queries = dataclasses.replace(config().queries, first="k_center", candidates=100, pool=10**6)
    with running(tmp_path, config(steps=64_000, labels=40, queries=queries)) as run:
        while not run.model.fitted:
            before = run.step
            learn(run, stop=StopAt(run, run.step + 640))
    assert before < 3_200 <= run.step


def test_labels_stored_after_the_last_checkpoint_are_used_when_the_run_comes_by_again(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "alone", config(**SHORT)) as run:
        learn(run)
        alone, labels = weights(run), run.store.labels(after=0)
    with running(tmp_path / "killed", config(**SHORT)) as run, pytest.raises(Killed):
        learn(run, stop=KillAt(run, 8_000))  # long after the checkpoint at 6,400
    with running(tmp_path / "killed", config(**SHORT)) as run:
        learn(run)
        assert same(weights(run), alone)
        assert [x.query.id for x in run.store.labels(after=0)] == [x.query.id for x in labels]


def test_a_run_that_takes_another_course_after_a_kill_leaves_the_answers_of_the_first(
    tmp_path: Path,
) -> None:
    settings = killed(tmp_path / "run")
    with running(tmp_path / "run", settings) as run:
        before = set(run.bank.seqs)
        first_course = {x.seq for x in run.store.labels(after=0)} - before
        assert first_course
        run.query_generator = np.random.default_rng(99)  # as rounding does on another processor
        learn(run, stop=StopAt(run, 7_600))
        taken = run.bank.seqs
        assert len(taken) > len(before)
        assert not first_course & set(taken)
        assert run.asking.labels_used == len(taken) <= run.asking.labels_due(run.step)
    with running(tmp_path / "run", settings) as run:
        assert run.bank.seqs == taken


def test_a_resumed_run_learns_from_all_its_answers_though_somebody_else_has_answered_meanwhile(
    tmp_path: Path,
) -> None:
    settings = killed(tmp_path / "run")
    with running(tmp_path / "run", settings) as run:
        store, before = run.store, set(run.bank.seqs)
        assert {x.seq for x in store.labels(after=0)} - before
        first, last = store.labels(after=0)[0].query, store.labels(after=0)[-1].query
        own = dataclasses.replace(first, segments=(first.segments[0], last.segments[1]))
        store.add_queries([own])
        (outcome,) = store.submit_many(
            [Answer(id="hers", query=own.id, rater="ann", reply=Comparison(choice="second"))]
        )
        assert outcome == "ok"
        learn(run)
        learned_from = {x.query.id for x in store.labels(after=0) if x.seq in run.bank.seqs}
        assert learned_from >= run.asking.asked | {own.id}
        assert run.asking.labels_used == len(learned_from) == run.asking.labels_due(run.step)
        taken = run.bank.seqs
    assert taken != sorted(taken)
    with running(tmp_path / "run", settings) as run:
        assert run.bank.seqs == taken  # in the order in which they came: batches count on it


def killed(directory: Path) -> TrainConfig:
    """Leave a run that asks often, killed after a checkpoint and more answers; its settings."""
    settings = config(**SHORT, queries=dataclasses.replace(config().queries, every=640))
    with running(directory, settings) as run, pytest.raises(Killed):
        learn(run, stop=KillAt(run, 8_000))
    return settings


class Killed(BaseException):
    """Nothing on the way may catch it."""


class KillAt(StopAt):
    """Dies without saving a checkpoint."""

    @property
    def asked(self) -> bool:  # type: ignore[override]
        if super().asked:
            raise Killed
        return False


@pytest.mark.parametrize(
    "scramble",
    [
        lambda x: -x,
        lambda x: 0 * x,
        lambda x: x + np.random.default_rng(0).normal(size=x.shape),
    ],
    ids=["negated", "zero", "noise"],
)
def test_scrambling_the_true_reward_changes_no_weight_when_the_labels_are_replayed(
    tmp_path: Path, scramble: Callable[[np.ndarray], np.ndarray]
) -> None:
    with running(tmp_path / "honest", config(**SHORT)) as run:
        learn(run)
        honest = weights(run)
    replay = Replay(tmp_path / "honest", make_rater(config(**SHORT)))
    with running(tmp_path / "other", config(**SHORT), rater=replay, scramble=scramble) as run:
        learn(run)
        assert same(weights(run), honest)


def test_scrambling_the_true_reward_changes_the_weights_when_it_is_what_the_oracle_reads(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "honest", config(**SHORT)) as run:
        learn(run)
        honest = weights(run)
    with running(tmp_path / "other", config(**SHORT), scramble=lambda x: -x) as run:
        learn(run)
        assert not same(weights(run), honest)


def test_the_rater_has_its_own_randomness(tmp_path: Path) -> None:
    """The first rollout, before any label, does not depend on who will answer."""
    rollouts = []
    for rater in ("oracle", "mistake"):
        with running(tmp_path / rater, config(rater=rater)) as run:
            for _ in range(30):
                experience = run.collector.collect(run.rollout_steps)
                run.step += experience.true_reward.size
                run.recorder.add(experience, policy_step=run.step)
            rollouts.append(run.collector.collect(run.rollout_steps).action)
    assert torch.equal(*rollouts)


def test_a_directory_of_other_settings_is_refused_and_left_alone(tmp_path: Path) -> None:
    RunDir.prepare(tmp_path / "run", config(**SHORT))
    before = sorted(p.name for p in (tmp_path / "run").iterdir())
    with pytest.raises(UserError, match="labels was 40, now 41"):
        RunDir.prepare(tmp_path / "run", config(**SHORT | {"labels": 41}))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == before


def hopper(**settings: Any) -> TrainConfig:
    short = {"num_envs": 2, "rollout_steps": 64, "steps": 512, "checkpoint_every": 128}
    short |= {"env": EnvConfig(horizon=70)}
    return dataclasses.replace(recipe_for("Hopper-v5"), **short | settings)


def test_a_run_of_shorter_episodes_goes_on_bit_identical(tmp_path: Path) -> None:
    true = hopper(reward="true", labels=0)
    with running(tmp_path / "alone", true) as run:
        learn(run)
        assert run.venv.task.horizon == 70
        alone = weights(run)
    with running(tmp_path / "stopped", true) as run:
        learn(run, stop=StopAt(run, 128))
    with running(tmp_path / "stopped", true) as run:
        assert 128 <= run.step < 512
        learn(run)
        assert same(weights(run), alone)


@pytest.mark.parametrize("rater", ["oracle", "human"])
def test_a_run_begun_under_another_true_reward_is_refused_unless_nobody_learned_from_it(
    rater: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = hopper(rater=rater, labels=8)
    with running(tmp_path / "run", begun) as run:
        run.checkpoint(restart=False)
        task = run.venv.task
    words = dataclasses.replace(task.details, true_reward="the same in other words")
    lower = dataclasses.replace(task.details, height=(1, 0.5))
    for details, refused in ((words, False), (lower, rater == "oracle")):
        other = dataclasses.replace(task, details=details)
        monkeypatch.setitem(registry._TASKS, task.id, other)
        with (
            pytest.raises(UserError, match=r"'height': .1, 0.0.*now it has")
            if refused
            else nullcontext(),
            running(tmp_path / "run", begun),
        ):
            pass
        assert ("now it has" in caplog.text) == (details is lower and not refused)
        if refused:
            _check_true_reward(run, begun=None)  # a checkpoint of before it was written down


def test_labels_that_are_too_few_for_a_gradient_step_wait_for_others(tmp_path: Path) -> None:
    settings = config(**SHORT)
    settings = dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, updates_per_label=0.25),
        queries=dataclasses.replace(settings.queries, every=1),  # one or two labels a session
    )
    with running(tmp_path / "run", settings) as run:
        learn(run)
        rows = read_metrics(RunDir(path=tmp_path / "run").metrics)
        first, *later = [row for row in rows if "reward/updates" in row]
        learned_from = 40 - first["feedback/labels"] - run.asking.unfitted
        taken = [row["reward/updates"] for row in later]
    assert len(taken) > 3
    assert min(taken) >= 1
    assert sum(taken) == pytest.approx(learned_from / 4, abs=len(taken) / 2)
    assert run.asking.unfitted <= 2  # round(.25 * 2) is no step


def test_a_run_begun_on_another_device_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "run", config(**SHORT)) as run:
        run.checkpoint(restart=True)
        path = newest_checkpoint(tmp_path / "run" / "checkpoints")
        assert path is not None
        state = path / "state.json"
        state.write_text(state.read_text().replace('"device": "cpu"', '"device": "cuda"'))
        with pytest.raises(UserError, match="was begun on cuda; here device 'auto' is cpu: go on"):
            read_run(run, path)
