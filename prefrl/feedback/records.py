"""Queries and answers: what is put to a rater, and what came back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prefrl.feedback.replies import FORMS, Comparison, Edit, Reply, fits, plain_text, read_reply

Form = Literal["comparison", "ranking", "rating", "edit"]


def form_of(segments: int) -> Form:
    """What is asked about so many; one may be edited instead."""
    return "rating" if segments == 1 else "comparison" if segments == 2 else "ranking"


Purpose = Literal["normal", "gold", "repeat", "practice"]
Status = Literal["ok", "extra", "stale"]
MAX_NOTE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """K segments put to a rater together; K = 2 is a clip pair."""

    segments: tuple[str, ...]
    """[K] ids; "first" and "second" in an answer count from here, however a screen shows them."""
    policy_step: int
    """Agent steps of the run when it was asked."""
    reason: str
    """The strategy that chose it."""
    priority: float
    """Higher ones are asked first."""
    form: Form = "comparison"
    """What is wanted: K = 2 for a comparison, 3 to 6 for a ranking, 1 for a rating or an edit."""
    need: int = 1
    """Answers wanted, each from another rater. Control items are put to every rater once."""
    purpose: Purpose = "normal"
    """"gold" (the answer is known), "repeat" (asked before, sides swapped) and "practice" are
    control items: about the rater, never trained on."""
    expected: str = ""
    """JSON of the right reply to gold and practice items; not for a rater's eyes before."""
    repeat_of: str = ""
    """The query that a repeat asks again."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"query.form: got {self.form!r}, wanted one of {', '.join(FORMS)}")
        _, fewest, most = FORMS[self.form]
        distinct = len(set(self.segments)) == len(self.segments)
        if not fewest <= len(self.segments) <= most or not distinct:
            raise ValueError(
                f"query.segments: got {self.segments!r}, wanted {fewest} to {most}, distinct"
            )
        for segment in self.segments:
            _check_id("query.segments", segment)
        if type(self.policy_step) is not int or self.policy_step < 0:
            raise ValueError(f"query.policy_step: got {self.policy_step!r}, wanted 0 or more")
        if not math.isfinite(self.priority):
            raise ValueError(f"query.priority: got {self.priority}, wanted a finite number")
        if type(self.need) is not int or self.need < 1:
            raise ValueError(f"query.need: got {self.need!r}, wanted 1 or more")
        self._check_purpose()

    def _check_purpose(self) -> None:
        if self.purpose not in get_args(Purpose):
            raise ValueError(f"query.purpose: got {self.purpose!r}, wanted one of {Purpose}")
        if self.expected and self.purpose not in ("gold", "practice"):
            raise ValueError(f"query.expected: a {self.purpose} query has no right answer")
        if (self.purpose == "repeat") != bool(self.repeat_of):
            raise ValueError("query.repeat_of: repeats have one, others have none")
        if self.repeat_of:
            _check_id("query.repeat_of", self.repeat_of)
        if self.expected and not self.fits(read_reply(self.form, self.expected)):
            raise ValueError(f"query.expected: got {self.expected!r}, which does not answer it")

    @property
    def id(self) -> str:
        """Hex SHA-256 of the segments, in order, and the step: a resumed run repeats it.

        Other forms and purposes enter it too; need and expected answer do not.
        """
        plain = self.form == "comparison" and self.purpose == "normal"
        more = () if plain else (self.form, self.purpose, self.repeat_of)
        return sha256_of("query", list(self.segments), self.policy_step, *more)

    @property
    def right(self) -> Reply | None:
        """The expected reply, if there is one."""
        return read_reply(self.form, self.expected) if self.expected else None

    def fits(self, reply: Reply) -> bool:
        """Can `reply` answer this query?"""
        return fits(reply, self.form, len(self.segments))


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """How a query was seen and answered."""

    order: tuple[int, ...]
    """Place on the screen -> index in `query.segments`; (1, 0): sides were swapped."""
    key: str
    """What was pressed, as it came: tells a left-presser from a taste."""
    seconds: float
    """From the first moment the clips played to the answer."""
    first_frame_seconds: float
    """From asking for the query to its first frame."""
    loops: float
    """How often the clips were played through."""
    speed: float
    """Of playing when the answer was given: 1 is real time."""
    note: str = ""
    """Free text; control characters are stripped, and what goes beyond 4 KB is cut off."""
    instructions: int = 0
    """The version of the instructions that the rater had seen; 0: none."""

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))) or not self.order:
            raise ValueError(f"viewing.order: got {self.order!r}, wanted each place once")
        for name in ("seconds", "first_frame_seconds", "loops", "speed"):
            value = getattr(self, name)
            if not (isinstance(value, float | int) and math.isfinite(value) and value >= 0):
                raise ValueError(f"viewing.{name}: got {value!r}, wanted 0 or more")
        if type(self.instructions) is not int or self.instructions < 0:
            raise ValueError(f"viewing.instructions: got {self.instructions!r}, wanted a version")
        object.__setattr__(self, "order", tuple(self.order))
        object.__setattr__(self, "key", plain_text(self.key)[:64])
        object.__setattr__(self, "note", note_text(self.note))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A query that is leased to a rater."""

    query: Query
    """What to ask. The expected answer of a gold item is left out."""
    token: str
    """Of the lease; the answer's id is made from it, so that sent twice it is stored once."""
    order: tuple[int, ...]
    """Place on the screen -> index in `query.segments`; the same after a restart."""
    expires: float
    """When others may have it, unless a heartbeat comes before; by the desk's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply on its way into the store."""

    id: str
    """Made by whoever answers, before sending: sent twice, it is stored once."""
    query: str
    """The query's id."""
    rater: str
    """The rater's name or pseudonym."""
    reply: Reply
    """What was answered."""
    session: str = ""
    """The rater's sitting; "" for synthetic raters."""
    viewing: Viewing | None = None
    """How; None for synthetic raters."""
    supersedes: str = ""
    """Id of an earlier answer by the same rater to the same query, which this one replaces."""
    time: float | None = None
    """Seconds since 1970 when it was given; None for synthetic raters, so that runs repeat."""

    def __post_init__(self) -> None:
        _check_id("answer.query", self.query)
        check_name("answer.id", self.id)
        check_name("answer.rater", self.rater)
        if self.session:
            check_name("answer.session", self.session)
        if self.time is not None and not math.isfinite(self.time):
            raise ValueError(f"answer.time: got {self.time}, wanted a finite number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A stored answer."""

    seq: int
    """Its place in the order of arrival, from 1; never used twice."""
    id: str
    """The answer's id."""
    query: Query
    """What was asked."""
    rater: str
    """Who answered."""
    reply: Reply
    """What was answered."""
    session: str = ""
    viewing: Viewing | None = None
    supersedes: str = ""
    time: float | None = None
    status: Status = "ok"
    """"extra": the query had all its answers; "stale": it was retired. Kept, not trained on."""
    live: bool = True
    """False once it was undone, replaced or forgotten; skips never live."""
    withdrawn: int = 0
    """`seq` of what undid, replaced or forgot it; 0: nothing did."""
    edited: str = ""
    """Id of the segment made from an edit's text, once there is one."""

    @property
    def comparison(self) -> Comparison:
        """The reply to a comparison."""
        if not isinstance(self.reply, Comparison):
            raise TypeError(f"label {self.seq} is a {self.query.form}: read its reply")
        return self.reply

    @property
    def trainable(self) -> bool:
        """Does it say anything about the reward?"""
        if isinstance(self.reply, Comparison):
            return self.reply.target is not None
        return bool(self.edited) if isinstance(self.reply, Edit) else True

    @property
    def segments(self) -> tuple[str, ...]:
        """Ids of the segments it is about: those of the query, then the edited one."""
        return (*self.query.segments, self.edited) if self.edited else self.query.segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What has happened to the trainable labels since some `seq`, read at one moment."""

    labels: list[Label]
    """New ones, in order of arrival."""
    withdrawn: list[Label]
    """Undone, replaced or forgotten since, whether or not they were ever read."""
    seq: int
    """Where to go on reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something a rater did that is no answer."""

    seq: int
    """Counted together with the answers."""
    kind: Literal["skip", "flag", "undo", "forget"]
    query: str
    """The query's id."""
    rater: str
    time: float | None
    note: str
    """Of a flag: what is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """What raters are told to prefer."""

    version: int
    """From 1; 0 where nobody has written any."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """A rater has agreed to take part, knowing these instructions."""

    session: str
    """The sitting, which names the rater."""
    version: int
    """Of the instructions; 0 where only the task's own line was shown."""
    text_sha: str
    """SHA-256 of what they said."""
    time: float
    """Seconds since 1970."""


def asked_again(query: Query) -> Query:
    """The repeat that tells whether a rater answers a query as before."""
    about: dict[str, Any] = {"purpose": "repeat", "repeat_of": query.id, "reason": "repeat"}
    return dataclasses.replace(query, need=1, **about)


def answer_id(query: str, rater: str) -> str:
    """The id of the answer of a rater who answers each query once, such as an oracle."""
    return sha256_of("answer", query, rater)


def sha256_of(*parts: object) -> str:
    """Hex SHA-256 of plain values, the same in every process and on every machine."""
    return hashlib.sha256(json.dumps(parts, allow_nan=False).encode()).hexdigest()


def text_sha(text: str) -> str:
    """Hex SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def note_text(text: str) -> str:
    """`text` stripped of control characters and cut at 4 KB, never inside a character."""
    return plain_text(text).encode()[:MAX_NOTE_BYTES].decode(errors="ignore")


def check_name(name: str, value: str) -> None:
    """Ids and raters are short and can be printed.

    Raises:
        ValueError: `value` is not.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or value != value.strip():
        raise ValueError(f"{name}: got {value!r}, wanted 1 to 128 characters")
    if plain_text(value) != value or "\n" in value or "\t" in value:
        raise ValueError(f"{name}: got {value!r}, wanted characters that can be printed")


def is_id(value: object) -> bool:
    """Is it the id of a segment, a query or a pack?"""
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _check_id(name: str, value: str) -> None:
    if not is_id(value):
        raise ValueError(f"{name}: got {value!r}, wanted 64 hexadecimal digits")
