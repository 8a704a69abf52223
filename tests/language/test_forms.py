"""Feedback on text through the store: from completions to labels and back."""

from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.feedback import (
    Answer,
    Comparison,
    Desk,
    Edit,
    FeedbackStore,
    Ranking,
    Rating,
    Text,
    Viewing,
    answer_id,
    read_text,
)
from prefrl.language.forms import ask, instruct, judge_queries, labels_from, notes, unjudged
from prefrl.language.judge import Judge, Principle, Question, rule_backend
from prefrl.language.records import Completion, Preference
from tests.feedback.helpers import filled


@pytest.fixture
def store(tmp_path: Path):
    with FeedbackStore.create(tmp_path, task="reviews", seed=0) as made:
        yield made


def texts(*words: str) -> tuple[Completion, ...]:
    return tuple(Completion(text=w) for w in words)


def answer(store: FeedbackStore, query, reply, *, note: str = "") -> None:
    viewing = Viewing(
        order=tuple(range(len(query.segments))), key="1", seconds=1.0, first_frame_seconds=0.1,
        loops=1.0, speed=1.0, note=note,
    )  # fmt: skip
    store.submit_many(
        [
            Answer(
                id=answer_id(query.id, "ann"),
                query=query.id,
                rater="ann",
                reply=reply,
                viewing=viewing,
            )
        ]
    )


def test_texts_come_back_from_the_store_as_a_rater_reads_them(store: FeedbackStore) -> None:
    cut = Completion(text="gut\n und schön", ended=False)
    (query,) = ask(store, [("film is :", (cut, Completion(text="")))], step=3)
    assert [store.text(id) for id in query.segments] == ["gut\n und schön", ""]
    assert store.prompt(query.id) == "film is :"
    segment = store.segment(query.segments[0])
    assert read_text(segment.clip) == Text(prompt="film is :", completion=cut.text, ended=False)
    assert segment.provenance.policy_step == 3
    store.check()


def test_the_gold_reward_is_hidden_in_the_segment(store: FeedbackStore) -> None:
    (query,) = ask(store, [("p", texts("ab"))], step=0, gold=lambda p, text, ended: len(text))
    assert store.segment(query.segments[0]).true_reward.tolist() == [2.0]


def test_clips_have_no_text(tmp_path: Path) -> None:
    clips, (query, *_) = filled(tmp_path)
    with clips:
        assert clips.text(query.segments[0]) is None
        assert clips.prompt(query.id) is None


def test_all_forms_of_feedback_become_labels(store: FeedbackStore) -> None:
    pair, three, one = ask(
        store, [("p", texts("a", "b")), ("q", texts("c", "d", "e")), ("r", texts("f"))], step=0
    )
    (wrong,) = ask(store, [("s", texts("teh end"))], step=0, edit=True)
    assert [q.form for q in (pair, three, one, wrong)] == [
        "comparison", "ranking", "rating", "edit",
    ]  # fmt: skip
    answer(store, pair, Comparison(choice="tie"))
    answer(store, three, Ranking(order=((2,), (0, 1))))
    answer(store, one, Rating(value=8))
    answer(store, wrong, Edit(text="the end"), note="spelling")
    found = labels_from(store)
    assert [label.prompt for label in found] == ["p", "q", "r", "s"]
    assert [label.verdict for label in found] == [
        Preference(second=0.5),
        Ranking(order=((2,), (0, 1))),
        Rating(value=8),
        Preference(second=1.0),
    ]
    assert found[3].completions == texts("teh end", "the end")  # edited > original
    assert notes(store) == [("ann", "s", "spelling")]
    assert labels_from(store) == found  # edits are settled once


def test_labels_are_as_they_were_without_those_of_the_forgotten(store: FeedbackStore) -> None:
    first, second = ask(store, [("p", texts("a", "b")), ("q", texts("c", "d"))], step=0)
    answer(store, first, Comparison(choice="first"))
    (before,), seq = labels_from(store), store.changes(0).seq
    answer(store, second, Comparison(choice="first"))
    assert labels_from(store, as_of=seq) == [before]
    store.forget("ann")
    assert labels_from(store, as_of=seq) == []


def test_what_says_nothing_is_no_label(store: FeedbackStore) -> None:
    pair, (same,) = (
        ask(store, [("p", texts("a", "b"))], step=0)[0],
        ask(store, [("s", texts("fine"))], step=0, edit=True),
    )
    answer(store, pair, Comparison(choice="cannot"))
    answer(store, same, Edit(text="fine"))
    assert labels_from(store) == []


def test_a_person_at_the_desk_answers_what_was_asked(store: FeedbackStore) -> None:
    instruct(store, [Principle(name="kind", text="Prefer what is kind."),
                     Principle(name="short", text="Prefer what is short.")])  # fmt: skip
    ask(store, [("p", texts("a", "b"))], step=0)
    with Desk(store, rater="ann") as desk:
        (assignment,) = desk.take()
        shown = [store.text(assignment.query.segments[i]) for i in assignment.order]
        second = assignment.query.segments[1]
        choice = "second" if store.text(second) == "b" else "first"
        desk.submit(assignment, Comparison(choice=choice), None)
    assert sorted(shown) == ["a", "b"]
    assert labels_from(store)[0].verdict == Preference(second=1.0)
    assert store.instructions().text == "Prefer what is kind.\n\nPrefer what is short."


def test_a_judge_answers_open_comparisons_once(store: FeedbackStore) -> None:
    longer = Judge(
        backend=rule_backend({"long": lambda prompt, c: len(c.text)}),
        constitution=(Principle(name="long", text="Prefer what is long."),),
    )
    ask(store, [("p", texts("aaa", "b")), ("q", texts("c", "ddd")), ("r", texts("e", "f"))], step=0)
    asked = unjudged(store, longer.name)
    assert judge_queries(store, longer, asked) == ["ok"] * 3
    assert unjudged(store, longer.name) == []
    verdicts = [label.verdict for label in labels_from(store)]
    assert [verdict.second for verdict in verdicts] == pytest.approx([0.12, 0.88, 0.5], abs=0.01)
    assert verdicts[0] == Preference(second=longer("p", *texts("aaa", "b")))
    assert [label.comparison.choice for label in store.feedback()] == ["first", "second", "tie"]


def test_a_judge_leaves_what_others_hold_or_have_said_unless_it_is_to_be_compared(
    store: FeedbackStore,
) -> None:
    pairs = [(f"p{i}", texts("aaa", "b")) for i in range(3)]
    (old,) = ask(store, [("old", texts("a", "b"))], step=0)
    store.retire(older_than=1)
    asked = ask(store, pairs, step=1)
    said = asked[0]
    answer(store, said, Comparison(choice="second"))
    with Desk(store, rater="bob") as bob, Desk(store, rater="eve") as eve:
        (held,) = bob.take(1)
        ask(store, [("rank", texts("a", "b", "c"))], step=0)
        (free,) = (query for query in asked if query not in (said, held.query))
        assert unjudged(store, "judge") == [free]
        assert unjudged(store, "judge", answered=True) == [q for q in asked if q != held.query]

        def asking(questions: list[Question]) -> list[float]:
            assert len(questions) == 2  # of what is free, in both orders
            assert [one.query.form for one in eve.take(9)] == ["ranking"]
            return [0.4] * len(questions)

        judge = Judge(backend=asking, constitution=(Principle(name="none", text="None."),))
        assert judge_queries(store, judge, [held.query, free, said]) == [None, "ok", None]
        assert judge_queries(store, judge, [said, old], answered=True) == ["extra", None]
        assert judge_queries(store, judge, [held.query, old]) == [None, None]
        bob.submit(held, Comparison(choice="first"), None)
    assert [x.rater for x in store.labels(after=0)] == ["ann", "judge", "bob"]
    assert {x.comparison.choice for x in store.feedback() if x.rater == "judge"} == {"tie"}


def test_a_judge_s_answer_that_failed_leaves_the_query_to_others(store: FeedbackStore) -> None:
    (query,) = ask(store, [("p", texts("a", "b"))], step=0)

    def fail(*_: object) -> float:
        raise RuntimeError("out of memory")

    judge = Judge(backend=fail, constitution=(Principle(name="none", text="None."),))
    with pytest.raises(RuntimeError):
        judge_queries(store, judge, [query])
    with Desk(store, rater="ann") as desk:
        assert [one.query for one in desk.take(1)] == [query]


def test_texts_left_by_an_attempt_that_was_cut_short_change_no_query(
    store: FeedbackStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = ([("p", texts("a", "b")), ("q", texts("a", "b"))],)
    with FeedbackStore.create(tmp_path / "whole", task="reviews", seed=0) as whole:
        asked = [ask(whole, *about, step=step) for step in (0, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(FeedbackStore, "add_queries", cut_short)
        with pytest.raises(KeyboardInterrupt):
            ask(store, *about, step=0)
    assert [ask(store, *about, step=step) for step in (0, 2)] == asked


def cut_short(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_store_of_clips_is_refused(tmp_path: Path) -> None:
    clips, (query, *_) = filled(tmp_path)
    with clips:
        answer(clips, query, Comparison(choice="first"))
        with pytest.raises(UserError, match="holds clips"):
            labels_from(clips)
