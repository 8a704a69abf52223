"""Rating packs: out, answered elsewhere, and back, with nothing lost and nothing hidden shown."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.feedback import (
    Comparison,
    Desk,
    DeskConfig,
    FeedbackStore,
    Instructions,
    Viewing,
    decode_segment,
)
from prefrl.feedback.desk import screen_order
from prefrl.feedback.packs import answers_path, make_pack, merge
from prefrl.feedback.records import sha256_of
from prefrl.feedback.unpacking import pack_answers, read_note, unpack
from tests.feedback.helpers import filled
from tests.feedback.test_desk import Clock, sit
from tests.feedback.test_store import answer

FIRST = Comparison(choice="first")
DAY = 86_400.0
TOLD = Instructions(version=2, text="nearer is better")


def a_run(directory: Path, queries: int = 6) -> FeedbackStore:
    """Open queries, one gold and one practice item, pictures of one segment."""
    store, asked = filled(directory, queries)
    right = {"expected": '{"choice": "first"}'}
    gold = dataclasses.replace(asked[0], purpose="gold", **right)
    store.add_queries([gold, dataclasses.replace(asked[1], purpose="practice", **right)])
    frames = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    store.add_pictures(asked[0].segments[0], frames, fps=10.0)
    store.set_instructions("closer is better")
    store.set_instructions(TOLD.text)
    return store


def answered(directory: Path, count: int, rater: str = "ann") -> list[str]:
    """Answer so many queries of an unpacked pack; returns their ids."""
    done = []
    config = DeskConfig(gold_share=0.3, repeat_share=0.0)
    with FeedbackStore.open(directory) as store:
        with Desk(store, rater=rater, config=config, agreed=store.instructions()) as desk:
            for _ in range(count):
                (one,) = desk.take(1)
                seen = Viewing(
                    order=one.order, key="Left", seconds=2.0, first_frame_seconds=0.1,
                    loops=1.0, speed=1.0, instructions=2,
                )  # fmt: skip
                assert desk.submit(one, FIRST, seen) == "ok"
                done.append(one.query.id)
        pack_answers(store, answers_path(directory))
    return done


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A pack for ann; its run is `run` beside it."""
    with a_run(tmp_path / "run") as store:
        make_pack(store, tmp_path / "ann.zip", count=100, rater="ann", seconds=DAY)
    return tmp_path / "ann.zip"


def test_a_pack_goes_out_is_answered_and_comes_back(packed: Path) -> None:
    directory = unpack(packed)
    assert directory == packed.parent / "ann"
    done = answered(directory, 5)
    with FeedbackStore.open(packed.parent / "run") as run, FeedbackStore.open(directory) as there:
        assert merge(run, answers_path(directory)).counts == {"ok": 5}
        theirs, ours = list(there.feedback()), list(run.feedback())
        assert [x.query.id for x in ours] == done
        assert [(x.id, x.reply, x.viewing, x.session, x.time) for x in ours] == [
            (x.id, x.reply, x.viewing, x.session, x.time) for x in theirs
        ]
        assert run.sessions() == there.sessions()
        assert [c.version for c in run.consents()] == [2]
        assert run.consents() == there.consents()
        assert len(run.labels(after=0)) == sum(x.query.purpose == "normal" for x in ours) >= 3
        run.check()


def test_what_is_known_is_left_alone_and_what_is_new_is_added(packed: Path) -> None:
    directory = unpack(packed)
    with FeedbackStore.open(packed.parent / "run") as run:
        answered(directory, 2)
        assert merge(run, answers_path(directory)).counts == {"ok": 2}
        assert merge(run, answers_path(directory)).counts == {"dup": 2}
        assert unpack(packed) == directory  # once more: the same, with its answers
        answered(directory, 3)
        assert merge(run, answers_path(directory)).counts == {"dup": 2, "ok": 3}


def test_an_answer_undone_elsewhere_is_withdrawn_here(packed: Path) -> None:
    directory = unpack(packed)
    with FeedbackStore.open(packed.parent / "run") as run:
        with FeedbackStore.open(directory) as there, Desk(there, rater="ann") as desk:
            desk.submit(desk.take(1)[0], FIRST, None)
            pack_answers(there, answers_path(directory))
            merge(run, answers_path(directory))
            desk.undo()
            pack_answers(there, answers_path(directory))
        assert merge(run, answers_path(directory)).counts == {"dup": 1, "withdrawn": 1}
        assert list(run.feedback()) == []


def test_repeats_made_elsewhere_arrive_as_repeats(tmp_path: Path) -> None:
    with a_run(tmp_path / "run", queries=40) as run:
        make_pack(run, tmp_path / "p.zip", count=100, rater="", seconds=DAY)
        directory = unpack(tmp_path / "p.zip")
        config = DeskConfig(gold_share=0.0, repeat_share=0.5)
        with FeedbackStore.open(directory) as there, Desk(there, rater="eve", config=config) as d:
            for _ in range(30):
                d.submit(d.take(1)[0], FIRST, None)
            pack_answers(there, answers_path(directory))
        merge(run, answers_path(directory))
        repeats = [x for x in run.feedback() if x.query.purpose == "repeat"]
        assert len(repeats) > 5
        run.check()


def test_nothing_that_arrives_steers_a_terminal(packed: Path) -> None:
    directory = unpack(packed)
    with FeedbackStore.open(directory) as there:
        with Desk(there, rater="ann", app="viewer\x1b[2J") as desk:
            desk.submit(desk.take(1)[0], FIRST, None)
        pack_answers(there, answers_path(directory))
    with FeedbackStore.open(packed.parent / "run") as run:
        merge(run, answers_path(directory))
        assert [s["app"] for s in run.sessions()] == ["viewer[2J"]


def test_sides_lie_as_they_would_have_at_home(packed: Path) -> None:
    salt = sha256_of("sides", "Dot", 7)
    with FeedbackStore.open(unpack(packed)) as there, Desk(there, rater="ann") as desk:
        for one in desk.take(6):
            assert one.order == screen_order(one.query, salt=salt, rater="ann")


def test_nothing_hidden_goes_out(packed: Path) -> None:
    with FeedbackStore.open(packed.parent / "run") as run:
        originals = {s.id: s for s in run.segments()}
        pictures = [run.pictures(s) for s in originals]
    with FeedbackStore.open(unpack(packed)) as there:
        for segment in there.segments():
            assert not segment.true_reward.any()
            assert segment.clip == originals[segment.id].clip
            assert np.array_equal(segment.observations, originals[segment.id].observations)
        queries = {q.purpose: q for q in there.queries()}
        assert (queries["gold"].expected, queries["practice"].expected) == (
            "", '{"choice": "first"}',
        )  # fmt: skip
        assert there.instructions() == TOLD
        assert sum(there.pictures(s) is not None for s in originals) == 1
        assert sum(p is not None for p in pictures) == 1
        there.check()
    with zipfile.ZipFile(packed) as file:  # unpacking would strip it once more
        names = [name for name in file.namelist() if name.startswith("segments/")]
        assert not any(decode_segment(file.read(name)).true_reward.any() for name in names)
    assert '"choice": "first"' not in file_text(packed, "gold")


def file_text(pack: Path, purpose: str) -> str:
    with zipfile.ZipFile(pack) as file:
        lines = file.read("queries.jsonl").decode().splitlines()
    return "".join(line for line in lines if json.loads(line)["purpose"] == purpose)


def test_the_most_wanted_go_out_first_and_what_the_rater_has_answered_does_not(
    tmp_path: Path,
) -> None:
    with a_run(tmp_path / "run") as store:
        newest = store.queue.upcoming("ann", now=0.0, cap=None, count=3)
        store.submit_many([answer(store.query(newest[0]), "skip", id="s")])
        make_pack(store, tmp_path / "p.zip", count=2, rater="ann", seconds=DAY)
        with FeedbackStore.open(unpack(tmp_path / "p.zip")) as there:
            packed = [q.id for q in there.queries() if q.purpose == "normal"]
        assert packed == newest[1:]


def test_an_answer_that_came_too_late_is_kept_as_extra(packed: Path) -> None:
    directory = unpack(packed)
    done = answered(directory, 4)
    with FeedbackStore.open(packed.parent / "run") as run:
        run.submit_many([answer(run.query(done[-1]), rater="bob", id="home")])
        assert merge(run, answers_path(directory)).counts == {"ok": 3, "extra": 1}


def out(
    directory: Path, *, rater: str = "", count: int = 100, need: int = 1, seconds: float = DAY
) -> tuple[FeedbackStore, Clock]:
    """A run of three queries, some of them out in a pack, and a clock that began just then."""
    store, _ = filled(directory / "run", 3, need=need)
    clock, name = Clock(), directory / "p.zip"
    make_pack(store, name, count=count, rater=rater, seconds=seconds, now=clock.now)
    return store, clock


def test_nobody_is_asked_what_is_out_in_a_pack_until_its_time_is_over(tmp_path: Path) -> None:
    store, clock = out(tmp_path, count=2)
    with store, sit(store, "bob", clock) as bob:
        assert (len(bob.take(3)), bob.progress().waiting) == (1, 0)
        assert store.asked_here(now=clock.now) == 1  # for the trainer: it asks for more
        clock.now += DAY - 1
        bob.heartbeat()
        assert len(bob.take(3)) == 1
        clock.now += 2
        assert store.asked_here(now=clock.now) == 3
        assert len(bob.take(3)) == 3


def test_what_a_pack_left_unanswered_is_asked_at_home_once_it_is_merged(tmp_path: Path) -> None:
    store, clock = out(tmp_path)
    with store, sit(store, "bob", clock) as bob:
        directory = unpack(tmp_path / "p.zip")
        answered(directory, 1)
        assert bob.take(3) == []
        assert merge(store, answers_path(directory)).counts == {"ok": 1}
        assert len(bob.take(3)) == 2
        store.check()


def test_two_packs_never_hold_one_query_that_needs_one_answer(tmp_path: Path) -> None:
    store, clock = out(tmp_path, count=2)
    with store:
        make_pack(store, tmp_path / "q.zip", count=2, rater="", seconds=DAY, now=clock.now)
        packs = [unpack(tmp_path / name) for name in ("p.zip", "q.zip")]
        held = []
        for pack in packs:
            with FeedbackStore.open(pack) as there:
                held += [q.id for q in there.queries()]
        assert sorted(held) == sorted(q.id for q in store.queries())
        with pytest.raises(UserError, match="nothing to pack"):
            make_pack(store, tmp_path / "r.zip", count=1, rater="", seconds=DAY, now=clock.now)


def test_a_rater_is_not_asked_at_home_what_is_in_their_own_pack(tmp_path: Path) -> None:
    store, clock = out(tmp_path, rater="ann", need=2)
    with store, sit(store, "ann", clock) as ann, sit(store, "bob", clock) as bob:
        assert ann.take(3) == []
        assert len(bob.take(3)) == 3
        assert sit(store, "eve", clock).take(3) == []  # ann's answer is to come
        assert store.asked_here(now=clock.now) == 3  # one more of each


def test_a_pack_that_holds_nothing_back_holds_nothing_back(tmp_path: Path) -> None:
    store, clock = out(tmp_path, seconds=0.0)
    with store, sit(store, "bob", clock) as bob:
        assert len(bob.take(3)) == 3


def test_a_pack_that_could_not_be_written_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("prefrl.feedback.packs.write_bundle", full)
    with pytest.raises(OSError, match="disk full"):
        out(tmp_path)
    with FeedbackStore.open(tmp_path / "run") as store, sit(store, "bob") as bob:
        assert len(bob.take(3)) == 3


def test_packs_of_a_person_who_is_forgotten_hold_nothing(tmp_path: Path) -> None:
    store, clock = out(tmp_path, rater="ann")
    with store, sit(store, "bob", clock) as bob:
        assert bob.take(3) == []
        store.forget("ann")
        assert len(bob.take(3)) == 3


def test_what_is_out_can_be_called_back_and_its_answers_still_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, clock = out(tmp_path)
    with store, sit(store, "bob", clock) as bob:
        assert len(answered(unpack(tmp_path / "p.zip"), 3)) == 3
        assert main(["pack", str(tmp_path / "run"), "--recall"]) == 0
        assert "3 queries are asked here again" in capsys.readouterr().out
        bob.submit(bob.take(1)[0], FIRST, None)
        assert merge(store, tmp_path / "p-answers.zip").counts == {"ok": 2, "extra": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recall", "--for", "ann"], "takes back all packs"),
        (["--recall", "--days", "1"], "takes back all packs"),
        (["--for", " ann", "--out", "q.zip"], "' ann'"),
    ],
)
def test_pack_ignores_no_option(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out(tmp_path)[0].close()
    assert main(["pack", str(tmp_path / "run"), *options]) == 2
    assert said in capsys.readouterr().err


def test_inside_an_unpacked_pack_the_answers_go_beside_it(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(unpack(packed), 1)
    monkeypatch.chdir(packed.with_suffix(""))
    assert main(["pack", "."]) == 0
    assert packed.with_name("ann-answers.zip").exists()


def test_a_pack_takes_no_answers_of_somebody_else(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = unpack(packed)
    answered(directory, 2)
    rows, theirs = tmp_path / "ann.csv", tmp_path / "bob.csv"
    assert main(["export", str(directory), "--to", "csv", "--out", str(rows)]) == 0
    assert main(["import", str(directory), str(rows)]) == 0  # known already
    theirs.write_text(rows.read_text().replace(",ann,", ",bob,"))
    assert theirs.read_text() != rows.read_text()
    assert main(["import", str(directory), str(theirs)]) == 2
    assert f"got answers by 'bob', but {directory} is a pack for 'ann'" in capsys.readouterr().err
    with FeedbackStore.open(directory) as store:
        assert {x.rater for x in store.feedback()} == {"ann"}


def test_an_existing_file_or_folder_is_left_alone(packed: Path) -> None:
    directory = packed.parent / "ann"
    directory.mkdir()
    (directory / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not of"):
        unpack(packed)
    assert [p.name for p in directory.iterdir()] == ["thesis.txt"]
    with FeedbackStore.open(packed.parent / "run") as run:
        before = packed.read_bytes()
        with pytest.raises(UserError, match="exists: remove it"):
            make_pack(run, packed, count=1, rater="", seconds=DAY)
        with pytest.raises(UserError, match=r"wanted a name ending in \.zip"):
            make_pack(run, packed.with_name("labels.db"), count=1, rater="", seconds=DAY)
    assert packed.read_bytes() == before


def test_nothing_open_makes_no_pack(tmp_path: Path) -> None:
    store, asked = filled(tmp_path / "run", 1)
    with store:
        store.submit_many([answer(asked[0])])
        with pytest.raises(UserError, match="nothing to pack"):
            make_pack(store, tmp_path / "p.zip", count=1, rater="", seconds=DAY)
    assert not (tmp_path / "p.zip").exists()


def test_a_person_who_is_forgotten_is_forgotten_in_packs_too(packed: Path) -> None:
    pack = read_note(unpack(packed)).id
    with FeedbackStore.open(packed.parent / "run") as run:
        alias = run.forget("ann")
        note = run.register.pack(pack)
        assert note is not None
        assert note.rater == alias
        run.check()


def test_the_commands_pack_and_merge(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(packed.parent)
    assert main(["pack", "run", "--out", "eve.zip"]) == 2  # all that is open is out
    assert "nothing to pack" in capsys.readouterr().err
    assert main(["pack", "run", "--recall"]) == 0
    assert "6 queries are asked here again" in capsys.readouterr().out  # gold is not held back
    assert main(["pack", "run", "--out", "eve.zip", "--queries", "2", "--for", "eve"]) == 0
    assert "eve.zip: 4 queries" in capsys.readouterr().out  # a gold and a practice item on top
    answered(unpack(Path("eve.zip")), 2, rater="eve")
    assert main(["pack", "eve"]) == 0
    assert "eve-answers.zip: 2 answers" in capsys.readouterr().out
    assert main(["merge", "run", "eve-answers.zip"]) == 0
    assert "2 new answers" in capsys.readouterr().out
    for wrong in (["pack", "run"], ["pack", "eve", "--queries", "3"], ["merge", "run", "eve"],
                  ["pack", "run", "--out", "x.zip", "--queries", "0"],
                  ["pack", "run", "--out", "x.zip", "--days", "-1"]):  # fmt: skip
        assert main(wrong) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_rate_opens_a_pack_and_leaves_the_answers_beside_it(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def a_person(opener, *, name, **_):  # type: ignore[no-untyped-def]
        """In the place of the window."""
        with opener() as place:
            desk = place.sit(name)
            desk.submit(desk.take(1)[0], FIRST, None)
            with pytest.raises(UserError, match="this pack is for 'ann'"):
                place.sit("eve")

    monkeypatch.setattr("clip_viewer.rate", a_person)
    for _ in range(2):
        assert main(["rate", str(packed)]) == 0
    assert "ann-answers.zip: 2 answers; send it back" in capsys.readouterr().out
    with FeedbackStore.open(packed.parent / "run") as run:
        assert merge(run, packed.with_name("ann-answers.zip")).counts == {"ok": 2}
        assert {x.rater for x in run.feedback()} == {"ann"}


@pytest.mark.parametrize("named", ["here/..", "..", "."])
def test_answers_are_named_after_the_directory_whatever_it_was_called(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "ann" / "deep" if named == ".." else tmp_path / "ann"
    (home / "here").mkdir(parents=True)
    monkeypatch.chdir(home)
    assert answers_path(Path(named)) == tmp_path / "ann-answers.zip"
