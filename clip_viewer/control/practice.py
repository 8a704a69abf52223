"""What a practice question teaches: the answer that was expected, in words."""

from __future__ import annotations

import json
from typing import Any

from prefrl.feedback import Comparison

from .contract import Assignment, Edit, Ranking, Rating, Reply
from .views import Verdict


def verdict_on(assignment: Assignment, reply: Reply) -> Verdict | None:
    """Compare an answer with the expected one; None where nothing is expected."""
    try:
        expected = json.loads(assignment.query.expected)
    except ValueError:
        return None
    if not isinstance(expected, dict):
        return None
    phrase = _phrase(assignment, expected)
    if phrase is None:
        return None
    if _agrees(expected, reply):
        return Verdict(right=True, text=f"Yes: {phrase}.")
    return Verdict(right=False, text=f"We expected another answer: {phrase}.")


def _agrees(expected: dict[str, Any], reply: Reply) -> bool:
    if isinstance(reply, Comparison):
        return bool(expected.get("choice") == reply.choice)
    if isinstance(reply, Ranking):
        return bool(_ranks(expected) == [sorted(rank) for rank in reply.order])
    if isinstance(reply, Rating):  # a neighbour is as right
        return abs(int(expected["value"]) - reply.value) <= 1
    return isinstance(reply, Edit) and expected.get("text") == reply.text


def _phrase(assignment: Assignment, expected: dict[str, Any]) -> str | None:
    """The expected answer, as it lies on the screen."""
    if expected.get("choice") in ("first", "second"):
        index = 0 if expected["choice"] == "first" else 1
        return f"{('left', 'right')[assignment.order.index(index)]} is better"
    if expected.get("choice") in ("tie", "cannot"):
        tie = expected["choice"] == "tie"
        return "both are equally good" if tie else "these cannot be compared"
    if isinstance(expected.get("order"), list):
        places = [[assignment.order.index(i) + 1 for i in rank] for rank in _ranks(expected)]
        return "the order is " + ", ".join(" = ".join(map(str, sorted(p))) for p in places)
    if isinstance(expected.get("value"), int):
        return f"about {expected['value']} of 9"
    return None


def _ranks(expected: dict[str, Any]) -> list[list[int]]:
    ranks = [[rank] if isinstance(rank, int) else list(rank) for rank in expected["order"]]
    return [sorted(rank) for rank in ranks]
