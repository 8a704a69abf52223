"""Tiny reviews: the grammar, its gold reward, and annotators that err."""

import math
from collections import Counter

import numpy as np
import pytest

from prefrl.errors import UserError
from prefrl.feedback import Ranking
from prefrl.language.records import Completion, Preference
from prefrl.language.tasks import Annotator, find_text_task
from prefrl.language.tasks.reviews import CAP, WORDS, demonstrations, gold, tokenizer

PROMPT = "film is :"


def said(text: str) -> Completion:
    return Completion(text=text)


@pytest.mark.parametrize(
    ("review", "worth"),
    [
        ("good", 1.0),
        ("bad", -1.0),
        ("very good", 1.4),
        ("very very good", 1.96),
        ("very very very good", 1.96),  # two count
        ("not good", -0.7),
        ("not very bad", 0.98),  # .7 * 1.4
        ("very good but bad", 0.4),  # the joint ends the *very*
        ("very good bad", 0.4),  # so does the sentiment word
        ("not the plot good", -0.7),  # neutral words do not
        ("good good", 2 - 0.8),
        ("the the good", 1 - 0.8),
        ("good and bad and very very very dull", 1 - 1 - 1.96),  # function words may repeat
        ("good the plot was really staff sound quite overall today it", 1 - 0.25),  # 11 words
    ],
)
def test_gold_reads_the_meaning_by_hand_written_rules(review: str, worth: float) -> None:
    assert gold(PROMPT, review, True) == pytest.approx(worth)


def test_a_review_that_does_not_end_costs_one() -> None:
    assert gold(PROMPT, "good", False) == gold(PROMPT, "good", True) - 1


def test_reviews_are_made_of_the_tasks_words_and_fit_the_cap() -> None:
    reviews = demonstrations(500, seed=0)
    assert {w for r in reviews for w in f"{r.prompt} {r.completion}".split()} == set(WORDS)
    assert max(len(r.completion.split()) for r in reviews) < CAP
    assert reviews == demonstrations(500, seed=0)
    assert reviews != demonstrations(500, seed=1)


def test_clauses_have_the_stated_chances() -> None:
    words = Counter(w for r in demonstrations(4000, seed=0) for w in r.completion.split())
    clauses = sum(words[w] for w in WORDS[:16])  # one sentiment word each
    assert words["not"] / clauses == pytest.approx(0.25, abs=0.02)
    assert words["very"] / clauses == pytest.approx(0.25 / 0.75, abs=0.03)
    # reviews beyond the cap are drawn again, hence a little less
    assert sum(words[w] for w in WORDS[16:26]) / clauses == pytest.approx(0.4 / 0.6, abs=0.05)


def test_every_word_is_one_token() -> None:
    made = tokenizer()
    assert made.size == len(WORDS) + 4
    assert len(made.encode("film is : very good")) == 5
    assert len({made.pad, made.eos, made.bos}) == 3


def test_an_annotator_errs_as_stated() -> None:
    plain = Annotator(gold=gold)
    gap = 1 / (1 + math.exp(-2.0))  # good over bad: gold 1 against -1
    assert plain.prob(PROMPT, said("bad"), said("good")) == pytest.approx(gap)
    flipping = Annotator(gold=gold, flips=0.25)
    assert flipping.prob(PROMPT, said("bad"), said("good")) == pytest.approx(0.5 * gap + 0.25)
    patient = Annotator(gold=gold, temperature=2.0)
    assert patient.prob(PROMPT, said("bad"), said("good")) == pytest.approx(
        1 / (1 + math.exp(-1.0))
    )


def test_an_annotator_has_tastes() -> None:
    lengthy = Annotator(gold=gold, length_bias=0.5)
    assert lengthy.appeal(PROMPT, said("the plot was good")) == pytest.approx(1 + 4 * 0.5)
    fond = Annotator(gold=gold, tastes={"warm": 2.0})
    assert fond.appeal(PROMPT, said("warm")) == pytest.approx(3.0)


def test_a_ranking_of_two_follows_the_law_of_a_comparison() -> None:
    annotator, rng = Annotator(gold=gold, flips=0.1), np.random.default_rng(0)
    both = (said("bad"), said("good"))
    wins = 0
    for _ in range(4000):
        verdict = annotator.rank(PROMPT, both, rng).verdict
        assert isinstance(verdict, Ranking)
        wins += verdict.order[0] == (1,)
    assert wins / 4000 == pytest.approx(annotator.prob(PROMPT, *both), abs=0.02)  # sd .006


def test_comparisons_are_drawn_from_the_probability() -> None:
    annotator, rng = Annotator(gold=gold), np.random.default_rng(0)
    drawn = [annotator.compare(PROMPT, said("bad"), said("good"), rng) for _ in range(2000)]
    share = np.mean([d.verdict.second for d in drawn if isinstance(d.verdict, Preference)])
    assert share == pytest.approx(0.881, abs=0.03)  # sigmoid(2)


def test_unknown_tasks_and_impossible_annotators_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'reviews'"):
        find_text_task("review")
    with pytest.raises(UserError, match="flips"):
        Annotator(gold=gold, flips=0.6)
