"""Tiny reviews: a grammar of short reviews with a gold sentiment, the demonstration task.

    prompt      film is :
    completion  the plot was not very slow but charming      then the end token

A review has one to three clauses, joined by *but* or *and*; a clause is some neutral words,
now and then *not*, some *very*, and one sentiment word. The gold reward reads the meaning by
hand-written rules, and knows four ways of overdoing it, which a learned reward may not:

    every sentiment word          +1 or -1
    every *very* before it        x 1.4, two at most
    *not* before it               x -.7
    every repetition of a word    -.8   (function words may be repeated)
    every token beyond ten        -.25
    no end within the cap         -1
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prefrl.language.records import Demonstration
from prefrl.language.tasks.task import TextTask
from prefrl.language.tokenizer import Tokenizer, train_tokenizer

TOPICS = ("film", "book", "hotel", "meal", "phone", "song")
POSITIVE = ("good", "great", "lovely", "charming", "brilliant", "fresh", "clever", "warm")
NEGATIVE = ("bad", "awful", "dull", "slow", "ugly", "stale", "silly", "cold")
NEUTRAL = ("the", "plot", "was", "really", "staff", "sound", "quite", "overall", "today", "it")
JOINTS = ("but", "and")
FUNCTION = ("is", ":", "not", "very", *JOINTS)
WORDS = (*POSITIVE, *NEGATIVE, *NEUTRAL, *TOPICS, *FUNCTION)

MORE, NOT, VERY = 0.4, 0.25, 0.25  # chances of a neutral word more, of *not*, of a *very* more
MOST_CLAUSES = 3
STRONGER, MOST_VERY, REVERSED = 1.4, 2, -0.7
REPEATED, FREE_TOKENS, TOO_LONG, NO_END = 0.8, 10, 0.25, 1.0
CAP = 20
HELD_OUT_SEED = 1_000_000


def gold(prompt: str, completion: str, ended: bool) -> float:
    """What the review is worth.

    >>> gold("film is :", "very good but not dull", True)  # 1.4 + .7
    2.1
    """
    words = completion.split()
    worth, verys, negated = 0.0, 0, False
    for word in words:
        if word in POSITIVE or word in NEGATIVE:
            sign = 1.0 if word in POSITIVE else -1.0
            worth += sign * STRONGER ** min(verys, MOST_VERY) * (REVERSED if negated else 1.0)
        if word == "very":
            verys += 1
        elif word == "not":
            negated = True
        elif word not in NEUTRAL:
            verys, negated = 0, False
    heavy = [word for word in words if word not in FUNCTION]
    repeated = len(heavy) - len(set(heavy))
    worth -= REPEATED * repeated + TOO_LONG * max(len(words) - FREE_TOKENS, 0)
    return round(worth - (0.0 if ended else NO_END), 6)


def write_review(rng: np.random.Generator) -> str:
    """One review of the grammar, short enough for the cap."""
    while True:
        words = _clause(rng)
        for _ in range(int(rng.integers(MOST_CLAUSES))):
            words += [JOINTS[rng.integers(len(JOINTS))], *_clause(rng)]
        if len(words) < CAP:  # the end token needs a place too
            return " ".join(words)


def _clause(rng: np.random.Generator) -> list[str]:
    words = []
    while rng.random() < MORE:
        words.append(_one_of(NEUTRAL, rng))
    if rng.random() < NOT:
        words.append("not")
    while rng.random() < VERY:
        words.append("very")
    return [*words, _one_of(POSITIVE + NEGATIVE, rng)]


def _one_of(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def demonstrations(count: int, seed: int) -> tuple[Demonstration, ...]:
    """Reviews of random topics."""
    rng = np.random.default_rng(seed)
    return tuple(
        Demonstration(prompt=f"{_one_of(TOPICS, rng)} is :", completion=write_review(rng))
        for _ in range(count)
    )


def tokenizer() -> Tokenizer:
    """One token a word, 42 with the special ones."""
    return train_tokenizer(WORDS, kind="words", size=len(WORDS) + 4)


def reviews_task() -> TextTask:
    """The task."""
    return TextTask(
        name="reviews",
        prompts=tuple(f"{topic} is :" for topic in TOPICS),
        held_out_prompts=tuple(f"{topic} is :" for topic in TOPICS),
        demonstrations=demonstrations,
        held_out=lambda count: demonstrations(count, HELD_OUT_SEED),
        gold=gold,
        tokenizer=tokenizer,
        max_prompt=4,
        max_completion=CAP,
    )
