"""Gold and practice items: queries whose right answer is known, asked to get to know raters.

Gold items tell nobody what they are and measure accuracy; practice items come first and say
what was right. Both are made of queries of the run, never trained on, and never put to a rater
who has answered the same question before. Repeats need no making: every desk asks some again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prefrl.errors import UserError
from prefrl.feedback.records import Query
from prefrl.feedback.replies import (
    Comparison,
    Edit,
    Ranking,
    Rating,
    Reply,
    agrees,
    reply_json,
)
from prefrl.feedback.store import FeedbackStore

CLEAR = 1.0  # least difference of two true returns, in standard deviations of all segments'
Purpose = Literal["gold", "practice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A query and the right answer to it."""

    query: Query
    right: Reply
    surety: float
    """Larger is clearer; 0 where nobody can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of one control item."""

    query: Query
    answers: int
    right: int


def mark(store: FeedbackStore, known: Sequence[Known], *, purpose: Purpose) -> list[Query]:
    """Make control items; the queries they are made of are asked no more.

    What is one already is left alone.

    Returns:
        The new ones.
    """
    taken = _items(store)
    made = []
    with store.writing(answers=False):
        for one in known:
            if one.query.segments in taken:
                continue
            expected = reply_json(one.right)
            item = dataclasses.replace(one.query, purpose=purpose, expected=expected)
            store.queue.add(item)
            store.queue.retire(one.query.id, purpose)
            made.append(item)
            taken.add(one.query.segments)
    return made


def by_hand(store: FeedbackStore, id: str, answer: str) -> Known:
    """What a person says of one query.

    Args:
        id: of the query, or its first digits.
        answer: first, second or tie; 1 to 9; or clips by their places, best first: 3>1=2.

    Raises:
        UserError: there is no such query, or the answer is none to it.
    """
    found = [q for q in store.queries() if q.id.startswith(id) and q.purpose == "normal"]
    if len(found) != 1:
        raise UserError(f"query: got {id!r}, which fits {len(found)} queries, wanted one")
    query = found[0]
    try:
        right = _read(query.form, answer)
    except ValueError as error:
        raise UserError(f"answer: {error}") from None
    if not query.fits(right) or right in (CANNOT, SKIP):
        raise UserError(f"answer: got {answer!r}, which does not answer a {query.form}")
    return Known(query=query, right=right, surety=0.0)


CANNOT, SKIP = Comparison(choice="cannot"), Comparison(choice="skip")


def by_rater(store: FeedbackStore, rater: str) -> list[Known]:
    """What a rater whom you trust has answered; ties and edits are left out.

    Raises:
        UserError: nobody of that name has answered.
    """
    mine = [x for x in store.feedback() if x.rater == rater]
    if not mine:
        raise UserError(f"by: no answer by {rater!r} in {store.directory}")
    return [
        Known(query=x.query, right=x.reply, surety=0.0)
        for x in mine
        if x.query.purpose == "normal" and _decided(x.reply)
    ]


def by_true_reward(store: FeedbackStore) -> list[Known]:
    """Pairs whose true returns differ clearly, where both or neither saw an episode end.

    Raises:
        UserError: the true returns are all the same, as in a pack.
    """
    queries = list(store.queries())  # before what they refer to: beside a live run both grow
    returns = store.archive.returns()
    spread = float(np.std([value for value, _ in returns.values()])) if returns else 0.0
    if spread == 0.0:
        raise UserError(f"true-reward: the true returns in {store.directory} are all the same")
    found = []
    for query in queries:
        if query.purpose != "normal" or query.form != "comparison":
            continue
        (first, first_ended), (second, second_ended) = (returns[s] for s in query.segments)
        surety = abs(second - first) / spread
        if surety >= CLEAR and first_ended == second_ended:
            right = Comparison(choice="second" if second > first else "first")
            found.append(Known(query=query, right=right, surety=surety))
    return found


def chosen(
    store: FeedbackStore, known: Sequence[Known], *, count: int, purpose: Purpose, seed: int
) -> list[Known]:
    """Some of what is known: for practice the clearest, for gold any, so that it looks ordinary.

    Those come first whose question nobody is waiting for; what is an item already is left out.
    """
    taken = _items(store)
    known = [one for one in known if one.query.segments not in taken]
    coins = np.random.default_rng(seed).random(len(known))
    clearest = purpose == "practice"
    order = sorted(
        range(len(known)),
        key=lambda i: (
            store.queue.wants(known[i].query.id),
            -known[i].surety if clearest else 0.0,
            coins[i],
        ),
    )
    return [known[i] for i in order[:count]]


def tally(store: FeedbackStore) -> list[Tally]:
    """How raters answered each control item."""
    answers: dict[str, list[Reply]] = {}
    for label in store.feedback():
        answers.setdefault(label.query.id, []).append(label.reply)
    found = []
    for query in store.queries():
        if query.purpose in ("gold", "practice") and query.right is not None:
            given = answers.get(query.id, [])
            right = sum(agrees(reply, query.right) for reply in given)
            found.append(Tally(query=query, answers=len(given), right=right))
    return found


def shown(reply: Reply) -> str:
    """A reply in the words in which a person gives it.

    >>> shown(Ranking(order=((2,), (0, 1))))
    '3>1=2'
    """
    if isinstance(reply, Comparison):
        return reply.choice
    if isinstance(reply, Ranking):
        return ">".join("=".join(str(i + 1) for i in group) for group in reply.order)
    return str(reply.value) if isinstance(reply, Rating) else "edit"


def _items(store: FeedbackStore) -> set[tuple[str, ...]]:
    """The segments of each control item."""
    return {q.segments for q in store.queries() if q.purpose in ("gold", "practice")}


def _decided(reply: Reply) -> bool:
    if isinstance(reply, Comparison):
        return reply.preferred is not None
    return not isinstance(reply, Edit)


def _read(form: str, text: str) -> Reply:
    if form == "rating":
        return Rating(value=int(text)) if text.isdecimal() else Rating(value=0)
    if form == "ranking":
        groups = [group.split("=") for group in text.split(">")]
        if not all(place.strip().isdecimal() for group in groups for place in group):
            raise ValueError(f"got {text!r}, wanted places, best first: 3>1=2")
        return Ranking(order=tuple(tuple(int(i) - 1 for i in group) for group in groups))
    return Comparison(choice=text)  # type: ignore[arg-type]
