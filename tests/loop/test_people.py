"""People as raters: they answer through the store, while the run goes on or waits."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from prefrl.config import QueryConfig, TrainConfig
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Desk, DeskConfig, FeedbackStore
from prefrl.feedback.packs import make_pack
from prefrl.loop.metrics import ProgressLine, read_metrics
from prefrl.loop.state import Run
from prefrl.loop.train import Stop, ask, learn, wait_for_people
from prefrl.rewards import RewardConfig
from tests.loop.test_train import config, running

FIRST = 16  # 20 % of 60 labels, and what is due by the second rollout of 640 steps

PAUSE = time.sleep


def people(*, need: int = 1, rater: str = "human", **settings: object) -> TrainConfig:
    queries = QueryConfig(initial=0.2, every=640, per_rollout=16, stale_after=4_000, need=need)
    return config(rater=rater, labels=60, steps=12_800, queries=queries, **settings)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefrl.loop.train.WAIT_SECONDS", 0.01)


def learn_for_a_minute(run: Run, stop: Stop | None = None) -> None:
    """At most, so that a person who fails is an error and not a wait without end."""
    stop = stop or Stop()
    timer = threading.Timer(60, lambda: setattr(stop, "asked", True))
    timer.start()
    try:
        learn(run, stop=stop)
    finally:
        timer.cancel()


@contextmanager
def person(directory: Path, *, name: str, undoes: bool = False) -> Iterator[Callable[[], int]]:
    """A thread that prefers the larger true return; yields how many answers it has given."""
    leave, given = threading.Event(), [0]

    def rate() -> None:
        while not (directory / "labels.db").exists():
            PAUSE(0.01)
        with (
            FeedbackStore.open(directory) as store,
            Desk(store, rater=name, config=DeskConfig(repeat_share=0.0)) as desk,
        ):
            while not leave.is_set():
                for assignment in desk.take(1):
                    returns = [
                        store.segment(i).true_reward.sum() for i in assignment.query.segments
                    ]
                    choice = "second" if returns[1] > returns[0] else "first"
                    desk.submit(assignment, Comparison(choice=choice), None)  # type: ignore[arg-type]
                    given[0] += 1
                if undoes and given[0] == 5:
                    desk.undo()
                    undone = desk.take(1)[0]
                    desk.submit(undone, Comparison(choice="cannot"), None)
                    given[0] += 1
                PAUSE(0.002)

    thread = threading.Thread(target=rate)
    thread.start()
    try:
        yield lambda: given[0]
    finally:
        leave.set()
        thread.join()


def first_fit(directory: Path) -> dict[str, float]:
    return next(r for r in read_metrics(directory / "metrics.jsonl") if "reward/updates" in r)


@pytest.mark.parametrize("schedule", ["async", "strict"])
def test_a_run_learns_from_what_people_answer(tmp_path: Path, schedule: str) -> None:
    settings = people(schedule=schedule)
    with person(tmp_path / "run", name="ann"), running(tmp_path / "run", settings) as run:
        assert run.rater is None
        learn_for_a_minute(run)
        assert run.model.fitted
        assert FIRST <= len(run.bank) == run.asking.labels_used <= 60
        assert {x.rater for x in run.store.labels(after=0)} == {"ann"}
    assert first_fit(tmp_path / "run")["feedback/labels"] >= FIRST


def test_an_answer_that_has_not_been_taken_in_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    with running(tmp_path / "run", people()) as run:
        while_waiting(monkeypatch, lambda n: stop._ask(15, None))
        learn_for_a_minute(run, stop)  # nobody answers
        run.asking.hear_people(run.step)
        assert run.asking.queries_wanted(run.step) == 0
        with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            desk.submit(desk.take(1)[0], Comparison(choice="first"), None)
        assert run.store.open_queries() == FIRST - 1
        run.asking.hear_people(run.step)
        assert run.asking.queries_wanted(run.step) == 0
        assert run.asking.labels_used == 1


def test_nobody_answers_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()
    with running(tmp_path / "run", people()) as run:
        waited = while_waiting(monkeypatch, lambda n: n == 3 and stop._ask(15, None))
        learn_for_a_minute(
            run, stop
        )  # returns, because the wait for the first answers can be stopped
        assert waited == [3]
        assert not run.model.fitted
        assert run.asking.labels_used == 0
        assert run.store.open_queries() == run.asking.labels_due(run.step) == FIRST
        step = run.step
    with running(tmp_path / "run", people()) as run:  # asks for nothing twice when it goes on
        assert run.step == step
        run.asking.hear_people(run.step)
        assert run.asking.queries_wanted(run.step) == 0
        assert run.asking.waits(run.step)


def test_an_async_run_goes_on_and_says_how_far_behind_it_is(tmp_path: Path) -> None:
    with running(tmp_path / "run", people()) as run, FeedbackStore.open(tmp_path / "run") as store:
        answer_all(run, store, then=lambda: learn_for_a_minute(run))
        assert run.step == 12_800
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert (last["feedback/labels"], last["feedback/behind"]) == (FIRST, 60 - FIRST)


def test_a_strict_run_waits_for_what_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, settings = Stop(), people(schedule="strict")
    with running(tmp_path / "run", settings) as run, FeedbackStore.open(tmp_path / "run") as store:
        while_waiting(monkeypatch, lambda n: run.model.fitted and stop._ask(15, None))
        answer_all(run, store, then=lambda: learn_for_a_minute(run, stop))
        assert run.model.fitted
        assert run.step < 12_800
        assert run.asking.waits(run.step)


def test_what_was_undone_is_taken_out_of_the_bank(tmp_path: Path) -> None:
    with running(tmp_path / "run", people(schedule="strict")) as run:
        with person(tmp_path / "run", name="ann", undoes=True):
            learn_for_a_minute(run)
        run.asking.take_in_labels(run.step)  # what came after the last look
        trainable = [x for x in run.store.labels(after=0) if x.trainable]
        assert len(run.bank) == run.asking.labels_used == len(trainable)
        assert any(x.reply == Comparison(choice="cannot") for x in run.store.labels(after=0))


def ask_first(run: Run) -> None:
    """The first session, without anybody to wait for."""
    while not run.asking.session_due(run.step):
        run.recorder.add(run.collector.collect(run.rollout_steps), policy_step=run.step)
        run.step += 640
    ask(run)


def test_for_one_of_the_first_answers_that_says_nothing_another_is_asked_at_once(
    tmp_path: Path,
) -> None:
    settings = people()
    settings = replace(settings, queries=replace(settings.queries, every=6_400))
    with running(tmp_path, settings) as run:
        ask_first(run)
        with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            for i, one in enumerate(desk.take(FIRST)):
                desk.submit(one, Comparison(choice="first" if i else "cannot"), None)
        run.asking.hear_people(run.step)
        run.recorder.add(run.collector.collect(run.rollout_steps), policy_step=run.step)
        run.step += 640
        assert run.asking.session_due(run.step)


def test_who_passes_over_everything_is_asked_again_a_session_later(tmp_path: Path) -> None:
    settings = people()
    settings = replace(settings, queries=replace(settings.queries, every=1_920))
    with running(tmp_path, settings) as run:
        ask_first(run)
        with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            for one in desk.take(FIRST):
                desk.submit(one, Comparison(choice="skip"), None)
        run.asking.hear_people(run.step)
        assert run.asking.queries_wanted(run.step) == run.asking.labels_due(run.step)
        sessions = []
        for _ in range(3):
            run.recorder.add(run.collector.collect(run.rollout_steps), policy_step=run.step)
            run.step += 640
            sessions.append(run.asking.session_due(run.step))
        assert sessions == [False, False, True]


@pytest.mark.parametrize("keep", [3000, 2])
def test_an_undone_answer_counts_neither_as_used_nor_as_unfitted(tmp_path: Path, keep: int) -> None:
    model = RewardConfig(dropout=0.0, lr=1e-2, keep=keep)
    with running(tmp_path, people(model=model)) as run:
        ask_first(run)
        with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            for one in desk.take(3):
                desk.submit(one, Comparison(choice="first"), None)
                run.asking.hear_people(run.step)
            assert (run.asking.labels_used, run.asking.unfitted) == (3, 3)
            for left in (2, 1, 0):
                desk.undo()
                run.asking.hear_people(run.step)
                assert (run.asking.labels_used, run.asking.unfitted) == (left, left)


def test_undoing_what_was_fitted_leaves_as_many_unfitted(tmp_path: Path) -> None:
    with running(tmp_path, people()) as run:
        ask_first(run)
        with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            desk.submit(desk.take(1)[0], Comparison(choice="first"), None)
            run.asking.hear_people(run.step)
            run.asking.unfitted = 0  # as after a fit
            with Desk(run.store, rater="bob", config=DeskConfig(repeat_share=0.0)) as other:
                other.submit(other.take(1)[0], Comparison(choice="first"), None)
            run.asking.hear_people(run.step)
            assert (run.asking.labels_used, run.asking.unfitted) == (2, 1)
            desk.undo()
            run.asking.hear_people(run.step)
            assert (run.asking.labels_used, run.asking.unfitted) == (1, 1)


def test_what_a_forgotten_person_said_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, people()) as run:
        ask_first(run)
        with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            for one in desk.take(5):
                desk.submit(one, Comparison(choice="first"), None)
        run.asking.hear_people(run.step)
        assert (run.asking.labels_used, len(run.bank)) == (5, 5)
        run.checkpoint(restart=False)
        run.store.forget("ann")
        run.asking.hear_people(run.step)
        assert (run.asking.labels_used, len(run.bank)) == (0, 0)
    with running(tmp_path, people()) as run:  # as before they were forgotten
        assert (run.asking.labels_used, len(run.bank)) == (5, 5)
        run.asking.hear_people(run.step)
        assert (run.asking.labels_used, len(run.bank)) == (0, 0)


def test_old_queries_are_asked_no_more(tmp_path: Path) -> None:
    with running(tmp_path / "run", people()) as run:
        ask_first(run)
        assert run.store.open_queries() > 0
        run.step += 4_000
        run.asking.tell_people(run.step)
        assert run.store.open_queries() > 0
        run.step += 1
        run.asking.tell_people(run.step)
        assert run.store.open_queries() == 0


def while_waiting(monkeypatch: pytest.MonkeyPatch, do: Callable[[int], object]) -> list[int]:
    """Call `do` with the number of looks for answers so far, in place of half a second's sleep."""
    looks = [0]

    def sleep(seconds: float) -> None:
        looks[0] += 1
        do(looks[0])
        PAUSE(0.005)

    monkeypatch.setattr("prefrl.loop.train.time.sleep", sleep)
    return looks


def answer_all(run: Run, store: FeedbackStore, *, then: Callable[[], None]) -> None:
    """Bob answers the first session, and leaves."""

    def rate() -> None:
        with Desk(store2(store), rater="bob", config=DeskConfig(repeat_share=0.0)) as desk:
            given = 0
            while given < FIRST:
                for assignment in desk.take(1):
                    desk.submit(assignment, Comparison(choice="first"), None)
                    given += 1
                PAUSE(0.005)

    def store2(of: FeedbackStore) -> FeedbackStore:
        return FeedbackStore.open(of.directory)  # SQLite connections stay in their thread

    thread = threading.Thread(target=rate)
    thread.start()
    then()
    thread.join()


def test_queries_that_need_two_answers_are_half_as_many(tmp_path: Path) -> None:
    with running(tmp_path / "run", people(need=2)) as run:
        ask_first(run)
        assert run.store.open_queries() == -(-FIRST // 2)
        run.asking.hear_people(run.step)
        assert run.asking.queries_wanted(run.step) == 0
        for name in ("ann", "bob"):
            with Desk(run.store, rater=name, config=DeskConfig(repeat_share=0.0)) as desk:
                desk.submit(desk.take(1)[0], Comparison(choice="first"), None)
        assert run.store.open_queries() == -(-FIRST // 2) - 1
        run.asking.hear_people(run.step)
        assert run.asking.queries_wanted(run.step) == 0
        assert run.asking.labels_used == 2
    with pytest.raises(UserError, match=r"queries\.need: got 2, with the rater oracle"):
        people(rater="oracle", need=2)


@pytest.mark.parametrize("how", ["skip", "flag"])
def test_what_a_person_passes_over_is_asked_of_nobody_else_in_vain(
    tmp_path: Path, how: str
) -> None:
    """Or a run with one rater would wait for ever for an answer that she cannot give."""
    with running(tmp_path / "run", people(schedule="strict")) as run:
        ask_first(run)
        with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
            for number in range(FIRST):
                assignment = desk.take(1)[0]
                if number > 1:
                    desk.submit(assignment, Comparison(choice="first"), None)
                elif how == "skip":
                    desk.skip(assignment)
                else:
                    desk.flag(assignment, "blank")
            assert desk.take(1) == []
        run.asking.take_in_labels(run.step)
        run.asking.hear_people(run.step)
        assert run.asking.labels_used == FIRST - 2
        assert not run.asking.waits(run.step)
        assert (
            run.asking.queries_wanted(run.step)
            == run.asking.labels_due(run.step) - run.asking.labels_used
        )  # others in their place


def test_the_last_answer_may_come_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "run", people()) as run:
        ask_first(run)
        desk = Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0))
        *most, last = desk.take(FIRST)
        for assignment in most:
            desk.submit(assignment, Comparison(choice="first"), None)
        take_in = run.asking.take_in_labels

        def answered_meanwhile(step: int) -> None:
            take_in(step)
            if run.asking.labels_used == FIRST - 1:
                desk.submit(last, Comparison(choice="first"), None)

        monkeypatch.setattr(run.asking, "take_in_labels", answered_meanwhile)
        wait_for_people(run, Stop(), ProgressLine(run.config.steps, step=run.step))
        assert run.asking.labels_used == FIRST
        assert run.asking.fit_due(run.step)


def test_the_first_fit_waits_for_all_that_is_due_even_if_stopped_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, some = Stop(), FIRST - 2
    settings = people()
    settings = replace(settings, model=replace(settings.model, batch=4))
    with running(tmp_path / "run", settings) as run:

        def answer_some(looks: int) -> None:
            if looks == 1:
                with Desk(run.store, rater="ann", config=DeskConfig(repeat_share=0.0)) as desk:
                    for assignment in desk.take(some):
                        desk.submit(assignment, Comparison(choice="first"), None)
            elif run.asking.labels_used == some:
                stop._ask(15, None)

        while_waiting(monkeypatch, answer_some)
        learn_for_a_minute(run, stop)
        assert run.asking.labels_used == some > settings.model.batch
        assert not run.model.fitted
    with running(tmp_path / "run", settings) as run:
        assert run.asking.labels_used == some
        run.asking.hear_people(run.step)
        assert run.asking.waits(run.step)


def test_a_strict_run_fits_what_it_has_waited_for_and_every_run_the_last_answers(
    tmp_path: Path,
) -> None:
    for schedule in ("strict", "async"):
        settings = people(schedule=schedule)
        with running(tmp_path / schedule, settings) as run:
            run.model.fitted = True
            run.asking.unfitted = run.asking.labels_used = 3
            assert run.asking.labels_due(run.step) > 3
            assert not run.asking.fit_due(run.step)
            run.asking.labels_used = run.asking.labels_due(run.step)
            assert run.asking.fit_due(run.step) == (schedule == "strict")
            run.asking.labels_used, run.step = 3, settings.steps
            assert run.asking.fit_due(run.step)


def test_what_is_out_in_a_pack_is_not_waited_for(tmp_path: Path) -> None:
    with running(tmp_path / "run", people(schedule="strict")) as run:
        ask_first(run)
        run.asking.hear_people(run.step)
        assert run.asking.waits(run.step)
        make_pack(run.store, tmp_path / "p.zip", count=FIRST, rater="", seconds=3600.0)
        run.asking.hear_people(run.step)
        assert not run.asking.waits(run.step)
        assert run.asking.queries_wanted(run.step) == FIRST
