"""What a practice question teaches: the answer that was expected, in words."""

from __future__ import annotations

from prefrl.feedback import Assignment, Comparison, Ranking, Rating, Reply, agrees

from .views import Verdict


def verdict_on(assignment: Assignment, reply: Reply) -> Verdict | None:
    """Compare an answer with the expected one; None where nothing is expected."""
    expected = assignment.query.right
    phrase = None if expected is None else phrased(expected, assignment.order)
    if expected is None or phrase is None:
        return None
    if agrees(reply, expected):
        return Verdict(right=True, text=f"Yes: {phrase}.")
    return Verdict(right=False, text=f"We expected another answer: {phrase}.")


def phrased(expected: Reply, order: tuple[int, ...]) -> str | None:
    """An answer in the words of the screen; None for one that has none.

    >>> phrased(Comparison(choice="first"), (1, 0))
    'right is better'
    """
    if isinstance(expected, Comparison):
        if expected.choice in ("first", "second"):
            index = 0 if expected.choice == "first" else 1
            return f"{('left', 'right')[order.index(index)]} is better"
        tie = expected.choice == "tie"
        return "both are equally good" if tie else "these cannot be compared"
    if isinstance(expected, Ranking):
        places = [sorted(order.index(i) + 1 for i in rank) for rank in expected.order]
        return "the order is " + ", ".join(" = ".join(map(str, rank)) for rank in places)
    return f"about {expected.value} of 9" if isinstance(expected, Rating) else None
