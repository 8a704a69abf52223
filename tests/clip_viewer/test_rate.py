"""`prefrl rate` from the command line to the database, without a display."""

import sqlite3
import sys
import time
from contextlib import closing

import numpy as np
import pygame
import pytest

from clip_viewer.show.window import Window
from envs import make_vec
from prefrl.cli import main
from prefrl.feedback import FeedbackStore, Provenance, Query, Segment

STEPS = 12


def recorded(count):
    """Segments of the toy task, with recipes that can be drawn."""
    venv = make_vec("prefrl/Dot-v0", num_envs=1, seed=0)
    venv.reset_at(0)
    for _ in range(STEPS * count):
        venv.step(np.zeros(1, dtype=np.int64))
    for i in range(count):
        yield Segment(
            observations=np.full((STEPS, 2), i, dtype=np.float32),
            actions=np.zeros(STEPS, dtype=np.int64),
            true_reward=np.zeros(STEPS),
            ended=False,
            provenance=Provenance(
                task="prefrl/Dot-v0", seed=0, policy_step=0, env=0, episode=0, t0=STEPS * i
            ),
            clip=venv.clip_recipe(env=0, start=STEPS * i, steps=STEPS).to_bytes(),
        )
    venv.close()


@pytest.fixture
def run(tmp_path):
    """A run directory with three pairs to compare."""
    segments = list(recorded(6))
    pairs = [(segments[2 * i].id, segments[2 * i + 1].id) for i in range(3)]
    with FeedbackStore.create(tmp_path / "run", task="prefrl/Dot-v0", seed=0) as store:
        store.add_segments(segments)
        store.add_queries(
            [Query(segments=p, policy_step=0, reason="uniform", priority=0.0) for p in pairs]
        )
    return tmp_path / "run"


class Script:
    """What a person does; runs instead of the window's loop."""

    def __init__(self, window):
        self.window, self.controller = window, window.controller

    def until(self, done, seconds=90.0):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.controller.view()
            self.window.turn(wait_ms=5)

    def screen(self, name):
        self.until(lambda: type(self.controller.screen).__name__ == name)

    def press(self, key):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode="", mod=0))
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key, mod=0))
        self.window.turn(wait_ms=5)

    def begin(self):
        self.press(pygame.K_RETURN)
        self.screen("Instructions")
        self.press(pygame.K_RETURN)

    def answer(self, key):
        self.screen("ComparisonQuestion")
        question = self.controller.screen
        self.until(lambda: question.play is not None and question.play.seconds > 0.8)
        self.press(key)
        self.until(lambda: self.controller.screen is not question)


@pytest.fixture
def scripted(monkeypatch):
    """Lets `what(script)` be the person at the window."""

    def use(what):
        monkeypatch.setattr(Window, "run", lambda window: what(Script(window)))

    return use


def test_answers_reach_the_database_and_leases_are_given_back(run, scripted):
    def person(script):
        script.begin()
        script.answer(pygame.K_LEFT)
        script.answer(pygame.K_UP)
        script.press(pygame.K_ESCAPE)
        script.press(pygame.K_RETURN)
        assert script.controller.done

    scripted(person)
    assert main(["rate", str(run), "--name", "ann"]) == 0
    with FeedbackStore.open(run) as store:
        labels = list(store.feedback())
        assert [label.rater for label in labels] == ["ann", "ann"]
        assert labels[1].reply.choice == "tie"
        for label in labels:
            assert label.viewing.seconds >= 0.8
            assert label.viewing.key in ("Left", "Up")
        first = labels[0]
        assert first.reply.choice == ("first", "second")[first.viewing.order[0]]
    rows = sqlite3.connect(run / "labels.db").execute("SELECT count(*) FROM lease").fetchall()
    assert rows == [(0,)]


def test_undo_withdraws_what_was_stored(run, scripted):
    def person(script):
        script.begin()
        script.answer(pygame.K_LEFT)
        script.press(pygame.K_BACKSPACE)
        script.until(lambda: script.controller.session.answers == [])
        script.answer(pygame.K_DOWN)
        script.press(pygame.K_ESCAPE)
        script.press(pygame.K_RETURN)

    scripted(person)
    assert main(["rate", str(run), "--name", "ann"]) == 0
    with FeedbackStore.open(run) as store:
        assert [label.reply.choice for label in store.feedback()] == ["cannot"]
        assert len(store.answers()) == 2


def test_a_clip_whose_recipe_is_damaged_is_flagged_with_the_reason(run, scripted):
    with FeedbackStore.open(run) as store:
        bad = Segment(
            observations=np.zeros((2, 2), dtype=np.float32),
            actions=np.zeros(2, dtype=np.int64),
            true_reward=np.zeros(2),
            ended=False,
            provenance=Provenance(
                task="prefrl/Dot-v0", seed=0, policy_step=0, env=0, episode=9, t0=0
            ),
            clip=b"no recipe",
        )
        store.add_segments([bad])
        other = next(iter(store.queries())).segments[0]
        store.add_queries(
            [Query(segments=(bad.id, other), policy_step=9, reason="uniform", priority=9.0)]
        )

    def person(script):
        script.begin()
        script.until(lambda: getattr(script.controller.screen, "_flagged", False))
        script.press(pygame.K_RETURN)
        script.answer(pygame.K_LEFT)
        script.press(pygame.K_ESCAPE)
        script.press(pygame.K_RETURN)

    scripted(person)
    assert main(["rate", str(run), "--name", "ann"]) == 0
    with FeedbackStore.open(run) as store:
        flags = [act for act in store.acts() if act.kind == "flag"]
        assert len(flags) == 1
        assert "not a clip recipe" in flags[0].note


def test_clips_that_are_not_what_was_written_are_flagged_and_passed(run, scripted):
    with closing(sqlite3.connect(run / "clips.db")) as database, database:
        assert database.execute("UPDATE clip SET recipe = x'00'").rowcount > 0

    def person(script):
        script.begin()
        script.until(lambda: getattr(script.controller.screen, "_flagged", False))
        script.press(pygame.K_RETURN)
        script.press(pygame.K_ESCAPE)
        script.press(pygame.K_RETURN)

    scripted(person)
    assert main(["rate", str(run), "--name", "ann"]) == 0
    with FeedbackStore.open(run) as store:
        assert [act.kind for act in store.acts()].count("flag") >= 1


def overwrite(run):
    (run / "labels.db").write_bytes(b"not a database at all" * 100)


def foreign(run):
    (run / "labels.db").unlink()
    database = sqlite3.connect(run / "labels.db")
    database.execute("CREATE TABLE mine (x)")
    database.close()


def newer(run):
    database = sqlite3.connect(run / "labels.db")
    database.execute("PRAGMA user_version=999")
    database.close()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(overwrite, "labels.db"), (foreign, "is not a labels.db of prefrl"), (newer, "newer prefrl")],
)
def test_a_database_that_cannot_be_used_is_one_screen_and_one_line(
    run, scripted, capsys, spoil, said
):
    spoil(run)

    def person(script):
        script.screen("Trouble")
        assert said in script.controller.view().body.paragraphs[0]
        script.press(pygame.K_ESCAPE)

    scripted(person)
    assert main(["rate", str(run), "--name", "ann"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prefrl:")]
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["gone"], "no labels.db in gone"),
        (["gone", "--scale", "9"], "scale: got 9.0, wanted 0.5 to 4"),
        (["gone", "--name", "a\x07b"], "name: got"),
        (["gone", "--nmae", "ann"], "did you mean '--name'?"),
    ],
)
def test_a_mistake_costs_one_line(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["rate", *argv]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_display_it_says_so(run, monkeypatch, capsys):
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonesuch")
    assert main(["rate", str(run), "--name", "ann"]) == 2
    assert "no window can be opened here" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_a_window_that_nobody_would_see_is_refused(run, monkeypatch, capsys):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["rate", str(run), "--name", "ann"]) == 2
    assert "no window can be opened here (no display)" in capsys.readouterr().err


def test_a_cap_is_kept_by_the_desk(run, monkeypatch):
    taken = []

    def a_person(opener, **_):
        with opener() as place:
            taken.append(len(place.sit("ann").take(3)))

    monkeypatch.setattr("clip_viewer.rate", a_person)
    assert main(["rate", str(run), "--cap", "2"]) == 0
    assert main(["rate", str(run)]) == 0
    assert taken == [2, 3]  # of three, all of one step
    assert main(["rate", str(run), "--cap", "0"]) == 2
