"""Replies: what a rater may say of a query, and how it is written down."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Self, get_args

Choice = Literal["first", "second", "tie", "cannot", "skip"]
CHOICES: tuple[str, ...] = get_args(Choice)
TARGETS = {"first": 0.0, "second": 1.0, "tie": 0.5}
SIDES = {"first": 0, "second": 1}
MAX_RANKED = 6  # on a screen
MAX_PLACES = 9  # of rankings from elsewhere: the most that Ouyang et al. 2022 had ranked
MAX_EDIT_BYTES = 64 * 2**10
WORST, BEST = 1, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Which of two segments a rater prefers.

    >>> Comparison(choice="second").target
    1.0
    """

    choice: Choice
    """A preference, a tie ("equally good"), "cannot" (cannot be compared: final, not trained
    on), or "skip" (passed over: recorded and counted, the query stays open). The last two
    answer a query of any form."""
    second: float | None = None
    """Probability that the second is better, of a rater who gives one, as judges do."""

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"choice: got {self.choice!r}, wanted one of {', '.join(CHOICES)}")
        if self.second is not None and self.choice != likelier(self.second):
            raise ValueError(
                f"second: got {self.second!r} beside {self.choice}, wanted the probability of a "
                "choice: below .5 with first, above it with second, .5 with tie"
            )

    @classmethod
    def of(cls, second: float) -> Self:
        """The likelier of the two, and how likely.

        >>> Comparison.of(0.25)
        Comparison(choice='first', second=0.25)
        """
        return cls(choice=likelier(second), second=second)  # type: ignore[arg-type]

    @property
    def target(self) -> float | None:
        """Probability that the second is better, 0.5 for a tie; None: do not train."""
        return TARGETS.get(self.choice) if self.second is None else self.second

    @property
    def preferred(self) -> int | None:
        """Place in the query of the segment that is better; None: neither is."""
        return SIDES.get(self.choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """K segments in order.

    >>> Ranking(order=((2,), (0, 1))).places  # 2 is best, 0 and 1 are equally good
    3
    """

    order: tuple[tuple[int, ...], ...]
    """Indices into `query.segments`, best first; those of one inner tuple are ties."""

    def __post_init__(self) -> None:
        named = [i for group in self.order for i in group]
        whole = all(type(i) is int for i in named) and all(self.order)
        once = whole and sorted(named) == list(range(len(named)))
        if not once or not 2 <= len(named) <= MAX_PLACES:
            raise ValueError(
                f"ranking.order: got {self.order!r}, wanted each of 2 to {MAX_PLACES} places once"
            )

    @property
    def places(self) -> int:
        """K."""
        return sum(len(group) for group in self.order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """How good one segment is, by itself."""

    value: int
    """1 (worst) to 9 (best); 5 is neither."""

    def __post_init__(self) -> None:
        if type(self.value) is not int or not WORST <= self.value <= BEST:
            raise ValueError(f"rating.value: got {self.value!r}, wanted {WORST} to {BEST}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """The one segment of the query, put right; read as edited > original."""

    text: str
    """The whole corrected text; control characters are stripped."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", plain_text(self.text))
        if not 1 <= len(self.text.encode()) <= MAX_EDIT_BYTES:
            raise ValueError(f"edit.text: wanted 1 to {MAX_EDIT_BYTES} bytes of text")


Reply = Comparison | Ranking | Rating | Edit
FORMS: dict[str, tuple[type[Any], int, int]] = {
    "comparison": (Comparison, 2, 2),
    "ranking": (Ranking, 3, MAX_RANKED),
    "rating": (Rating, 1, 1),
    "edit": (Edit, 1, 1),
}
"""Form of a query -> the reply it wants, fewest and most segments."""


def kind_of(reply: Reply) -> str:
    """The form of query it belongs to; "comparison" for "cannot" and "skip"."""
    return next(name for name, (cls, _, _) in FORMS.items() if type(reply) is cls)


def fits(reply: Reply, form: str, places: int) -> bool:
    """Does `reply` answer a query of `form` about so many segments?"""
    if isinstance(reply, Comparison) and reply.choice in ("cannot", "skip"):
        return True
    if isinstance(reply, Ranking) and reply.places != places:
        return False
    return type(reply) is FORMS[form][0]


def likelier(second: float) -> str:
    """Which choice a probability of the second comes to.

    Raises:
        ValueError: it is none.
    """
    if type(second) is not float or not 0 <= second <= 1:
        raise ValueError(f"second: got {second!r}, wanted a probability")
    return "tie" if second == 0.5 else "second" if second > 0.5 else "first"


def reply_json(reply: Reply) -> str:
    """As stored, without what is None; `read_reply` is the inverse.

    >>> reply_json(Ranking(order=((2,), (0, 1))))
    '{"order": [[2], [0, 1]]}'
    """
    said = {name: getattr(reply, name) for name in type(reply).__dataclass_fields__}
    return json.dumps({name: value for name, value in said.items() if value is not None})


def read_reply(kind: str, text: str) -> Reply:
    """A reply from what `reply_json` wrote.

    Raises:
        ValueError: anything else.
    """
    if kind not in FORMS:
        raise ValueError(f"reply: got kind {kind!r}, wanted one of {', '.join(FORMS)}")
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("reply: nested too deeply") from error
    cls = FORMS[kind][0]
    may = {field.name: field.default for field in fields(cls)}
    must = {name for name, default in may.items() if default is MISSING}
    if not isinstance(data, dict) or not must <= set(data) <= set(may):
        raise ValueError(f"reply: got {text[:80]!r}, wanted a {kind}")
    if kind == "ranking":
        data["order"] = _tuples(data["order"])
    words = [data[name] for name in ("choice", "text") if name in data]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"reply: got {text[:80]!r}, wanted a {kind}")
    reply: Reply = cls(**data)
    return reply


def agrees(reply: Reply, expected: Reply) -> bool:
    """Is `reply` as good as the `expected` one? Ratings may be one step off."""
    if isinstance(reply, Rating) and isinstance(expected, Rating):
        return abs(reply.value - expected.value) <= 1
    if isinstance(reply, Comparison) and isinstance(expected, Comparison):
        return reply.choice == expected.choice
    if isinstance(reply, Ranking) and isinstance(expected, Ranking):
        return [set(g) for g in reply.order] == [set(g) for g in expected.order]
    return reply == expected


def plain_text(text: str) -> str:
    """`text` without what can steer a terminal or turn text round; line breaks and tabs stay.

    >>> plain_text("good\\x1b[31m\\u202e!")
    'good[31m!'
    """
    if not isinstance(text, str):
        raise ValueError(f"text: got {type(text).__name__}, wanted a string")
    return "".join(c for c in text if c in ALLOWED or unicodedata.category(c) not in STEERING)


ALLOWED = "\n\t\u200c\u200d"  # the last two join letters in several scripts
STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (bidi), half a pair, line separators


def _tuples(order: Any) -> tuple[tuple[int, ...], ...]:
    if not isinstance(order, list) or not all(isinstance(group, list) for group in order):
        raise ValueError(f"ranking.order: got {str(order)[:80]}, wanted lists of places")
    return tuple(tuple(group) for group in order)
