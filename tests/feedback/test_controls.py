"""Gold and practice items: where the right answer comes from, and who is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.feedback import Comparison, FeedbackStore, Query, Ranking, Rating
from prefrl.feedback.archive import Archive
from prefrl.feedback.controls import (
    Known,
    by_hand,
    by_rater,
    by_true_reward,
    chosen,
    mark,
    shown,
    tally,
)
from tests.feedback.helpers import ask, segment
from tests.feedback.tables import ONE, PAIRS, THREE, asked, lived
from tests.feedback.test_desk import FIRST, sit
from tests.feedback.test_export import grown_by
from tests.feedback.test_store import answer

SECOND = Comparison(choice="second")


def returns(directory: Path, *pairs: tuple[float, float], ended: int = -1) -> FeedbackStore:
    """A store of pairs with these true returns; in one of them the second segment ends."""
    store = FeedbackStore.create(directory, task="Dot", seed=7)
    for i, both in enumerate(pairs):
        a, b = (segment((value,), t0=2 * i + j, ended=i == ended and j == 1)
                for j, value in enumerate(both))  # fmt: skip
        store.add_segments([a, b])
        store.add_queries([ask(a, b, step=i)])
    return store


def test_the_true_reward_is_asked_only_where_it_differs_clearly(tmp_path: Path) -> None:
    # mean 2.5; squares 6.25 2.25 6.25 30.25 6.25 6.25 0.25 2.25: spread sqrt(60 / 8) = 2.74
    with returns(tmp_path, (0, 1), (0, 8), (5, 0), (2, 4)) as store:
        got = by_true_reward(store)
    assert [(k.query.policy_step, k.right) for k in got] == [(1, SECOND), (2, FIRST)]
    assert got[0].surety == pytest.approx(8 / 7.5**0.5)


def test_an_episodes_end_makes_a_pair_unclear(tmp_path: Path) -> None:
    with returns(tmp_path, (0, 1), (0, 8), (5, 0), ended=1) as store:
        assert [k.query.policy_step for k in by_true_reward(store)] == [2]


def test_equal_returns_are_no_source(tmp_path: Path) -> None:
    with returns(tmp_path, (0, 0), (0, 0)) as store, pytest.raises(UserError, match="all the same"):
        by_true_reward(store)


def test_the_true_reward_may_be_asked_beside_a_live_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with returns(tmp_path, (0, 8)) as store, FeedbackStore.open(tmp_path) as trainer:
        monkeypatch.setattr(Archive, "returns", grown_by(trainer, Archive.returns))
        assert len(by_true_reward(store)) == 1


def test_practice_takes_the_clearest_gold_any_and_open_questions_last(tmp_path: Path) -> None:
    with returns(tmp_path, *[(0, float(i)) for i in range(40)]) as store:
        queries = list(store.queries())
        store.submit_many([answer(q) for q in queries[20:]])  # nobody waits for these
        known = [Known(query=q, right=SECOND, surety=q.policy_step) for q in queries]
        practice = chosen(store, known, count=3, purpose="practice", seed=0)
        assert [k.query.policy_step for k in practice] == [39, 38, 37]
        gold = [k.query.policy_step for k in chosen(store, known, count=21, purpose="gold", seed=0)]
        assert sorted(gold[:20]) == list(range(20, 40))
        assert gold[:20] != sorted(gold[:20])
        assert gold[20] < 20


def test_more_items_can_be_made_later(tmp_path: Path) -> None:
    with returns(tmp_path, *[(0, float(i)) for i in range(20)]) as store:
        known = [Known(query=q, right=SECOND, surety=q.policy_step) for q in store.queries()]
        made = []
        for purpose in ("gold", "practice", "gold"):
            some = chosen(store, known, count=6, purpose=purpose, seed=0)
            made.append(mark(store, some, purpose=purpose))
        assert [len(items) for items in made] == [6, 6, 6]
        assert len({q.segments for items in made for q in items}) == 18


def test_a_gold_item_takes_the_place_of_its_query(tmp_path: Path) -> None:
    with returns(tmp_path, (0, 1), (5, 0)) as store:
        known = [Known(query=q, right=SECOND, surety=0.0) for q in store.queries()]
        (item,) = mark(store, known[:1], purpose="gold")
        assert (item.purpose, item.right) == ("gold", SECOND)
        assert mark(store, known[:1], purpose="gold") == []  # it is one
        assert store.open_queries() == 1
        assert store.queue.controls("ann", "gold", count=9) == [item.id]
        assert [a.query.id for a in sit(store).take(9)] == [known[1].query.id]
        store.check()


def test_who_has_answered_a_question_is_not_asked_it_as_gold(tmp_path: Path) -> None:
    with returns(tmp_path, (0, 1)) as store:
        (query,) = store.queries()
        store.submit_many([answer(query, rater="ann")])
        mark(store, [Known(query=query, right=SECOND, surety=0.0)], purpose="practice")
        assert sit(store, "ann").take() == []
        assert [a.query.purpose for a in sit(store, "bob").take()] == ["practice"]


def test_a_trusted_raters_clear_answers_are_right(tmp_path: Path) -> None:
    with lived(tmp_path) as store:
        bobs = {k.query.id: k.right for k in by_rater(store, "-bob")}
        assert bobs == {THREE.id: Ranking(order=((2,), (0, 1))), ONE.id: Rating(value=7)}
        assert [k.query.id for k in by_rater(store, "ann")] == [PAIRS[3].id]  # no tie, no cannot
        with pytest.raises(UserError, match="no answer by 'nobody'"):
            by_rater(store, "nobody")


@pytest.mark.parametrize(
    ("query", "text", "right"),
    [
        (PAIRS[1], "second", SECOND),
        (PAIRS[1], "tie", Comparison(choice="tie")),
        (ONE, "9", Rating(value=9)),
        (THREE, "3>1=2", Ranking(order=((2,), (0, 1)))),
    ],
)
def test_a_person_says_what_is_right(
    tmp_path: Path, query: Query, text: str, right: object
) -> None:
    with asked(tmp_path) as store:
        known = by_hand(store, query.id[:16], text)
        assert (known.query, known.right) == (query, right)
        assert shown(known.right) == text


@pytest.mark.parametrize(
    ("query", "text", "said"),
    [
        (PAIRS[1], "left", "choice: got 'left'"),
        (PAIRS[1], "cannot", "does not answer a comparison"),
        (ONE, "ten", "wanted 1 to 9"),
        (ONE, "first", "wanted 1 to 9"),
        (THREE, "2>1", "does not answer a ranking"),
        (THREE, "3>1>x", "wanted places, best first"),
        (THREE, "3>1>1", "wanted each of"),
    ],
)
def test_what_is_no_answer_is_refused(tmp_path: Path, query: Query, text: str, said: str) -> None:
    with asked(tmp_path) as store, pytest.raises(UserError, match=said):
        by_hand(store, query.id, text)


def test_a_query_must_be_named_without_doubt(tmp_path: Path) -> None:
    with asked(tmp_path) as store:
        for id in ("", "0" * 64):
            with pytest.raises(UserError, match="wanted one"):
                by_hand(store, id, "first")


def test_the_tally_counts_who_was_right(tmp_path: Path) -> None:
    with returns(tmp_path, (0, 1), (5, 0)) as store:
        known = [Known(query=q, right=SECOND, surety=0.0) for q in store.queries()]
        (item, _) = mark(store, known, purpose="gold")
        for rater, choice in (("ann", "second"), ("bob", "first"), ("eve", "second")):
            store.submit_many([answer(item, choice, rater=rater)])
        assert [(t.answers, t.right) for t in tally(store)] == [(3, 2), (0, 0)]


def test_the_command_makes_items_and_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with returns(tmp_path, (0, 1), (0, 8), (5, 0), (2, 4)) as store:
        open_one = next(iter(store.queries()))
    run = str(tmp_path)
    assert main(["gold", run, "--true-reward", "--count", "1", "--practice"]) == 0
    assert main(["gold", run, "--true-reward"]) == 0
    assert main(["gold", run, "--query", open_one.id, "--answer", "second"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["1 new practice items", "1 new gold items", "1 new gold items"]
    assert main(["gold", run]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(x[1], x[3], x[4:]) for x in listed] == [
        ("practice", "second", ["0", "of", "0", "right"]),
        ("gold", "first", ["0", "of", "0", "right"]),
        ("gold", "second", ["0", "of", "0", "right"]),
    ]
    for wrong in (["--query", "ab"], ["--practice"], ["--by", "x", "--true-reward"],
                  ["--true-reward", "--count", "0"], ["--by", "nobody"]):  # fmt: skip
        assert main(["gold", run, *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_gold_is_never_trained_on(tmp_path: Path) -> None:
    with returns(tmp_path, (0, 8), (5, 0)) as store:
        (item, _) = mark(store, by_true_reward(store), purpose="gold")
        store.submit_many([answer(item)])
        assert store.labels(after=0) == []
        assert [x.query.purpose for x in store.feedback()] == ["gold"]
        late = dataclasses.replace(answer(item, rater="bob"), id="late")
        assert store.submit_many([late]) == ["ok"]
