"""What is to be seen: plain records that the window draws, and redraws when they change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .actions import Press
from .material import Material

Mark = Literal["left", "right", "equal", "cannot", "number", "none"]
"""Each has a colour and a shape of its own."""
PageKind = Literal["instructions", "waiting", "break", "pause", "summary", "trouble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """An entry of the legend, which is a button too."""

    cap: str
    """What stands on the key: "Left", "Space", "N"."""
    label: str
    """What it does."""
    press: Press
    """What a click on it means."""
    mark: Mark = "none"
    """The answer it stands for."""
    strong: bool = False
    """One of the answers; the others are drawn smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The quiet line at the top."""

    task: str
    """The task's id."""
    name: str
    """The rater's."""
    answered: int
    """Answers of this rater."""
    per_hour: float | None
    """Pace; None before there is one."""
    minutes_left: int | None
    """Until the labels due are there, at this pace."""
    labels: int
    """Answers of all raters."""
    due: int | None
    """By schedule; None without a trainer."""
    trainer: Literal["alive", "late", "none"]
    """Heartbeat: within the last 30 s; before; never."""
    trainer_age: str
    """"4 s", "3 min", ""."""
    unsaved: bool
    """An answer is on its way to the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """Names the choice for a moment."""

    text: str
    """"Left is better"."""
    mark: Mark
    """Colour and shape."""
    place: int | None = None
    """The clip it is about; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a practice question teaches."""

    right: bool
    """Was it answered as expected?"""
    text: str
    """In words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pane:
    """One clip or text, at its place on the screen."""

    material: Material | None
    """None: not here yet."""
    frame: int = 0
    """Of a clip."""
    mark: Mark = "none"
    """What choosing it means."""
    rank: int | None = None
    """Of a ranking, from 1."""
    aimed: bool = False
    """The cursor is on it."""
    scroll: int = 0
    """Lines of a text above the top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionBody:
    """Clips or texts, and what is asked about them."""

    form: Literal["comparison", "ranking", "rating"]
    """Of the query."""
    question: str
    """"Which is better?"."""
    guide: str
    """What to prefer, in a line."""
    panes: tuple[Pane, ...]
    """[K] in the order of the screen."""
    prompt: str | None
    """What texts complete."""
    prompt_scroll: int
    """Lines of it above the top."""
    position: float | None
    """Of the loop, 0 to 1; None for texts."""
    paused: bool
    """Is the clock stopped?"""
    speed: float
    """Of the clock."""
    practice: bool
    """Not counted."""
    value: int | None
    """Of a rating: the number aimed at."""
    slots: tuple[tuple[int, ...], ...]
    """Of a ranking: rank, from 0 -> the places that have it."""
    flash: Flash | None
    """The choice just made."""
    verdict: Verdict | None
    """After a practice answer."""
    nudge: bool
    """A choice came too early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditBody:
    """A completion that is being corrected."""

    question: str
    """What to do."""
    prompt: str | None
    """What it completes."""
    text: str
    """As it stands."""
    cursor: int
    """Where the next character goes."""
    changed: bool
    """Does it differ from the original?"""
    prompt_scroll: int
    """Lines of the prompt above the top."""
    flash: Flash | None
    """It was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormBody:
    """Sign-in and consent."""

    title: str
    """The program's name."""
    paragraphs: tuple[str, ...]
    """What one agrees to."""
    text: str
    """The name so far."""
    cursor: int
    """Where the next character goes."""
    problem: str
    """What is wrong with it, or ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageBody:
    """A page of text."""

    kind: PageKind
    """Decides the picture on it."""
    title: str
    """In large letters."""
    paragraphs: tuple[str, ...]
    """Below."""
    rows: tuple[tuple[str, str], ...] = ()
    """Figures: name and value."""
    shares: tuple[tuple[Mark, str, float], ...] = ()
    """Of the summary: how often each answer was given, 0 to 1."""
    scroll: int = 0
    """Lines above the top."""
    tick: int = 0
    """Moves a picture that waits, twice a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteBody:
    """A line to be typed, over what lies below."""

    title: str
    """What it is for."""
    hint: str
    """What it does."""
    text: str
    """So far."""
    cursor: int
    """Where the next character goes."""


Body = QuestionBody | EditBody | FormBody | PageBody


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that is on the screen."""

    header: Header | None
    """None before sign-in."""
    body: Body
    """The middle."""
    hints: tuple[Hint, ...]
    """The legend."""
    over: NoteBody | PageBody | None = None
    """Lies over the body, which is dimmed."""
    toast: str = ""
    """A short remark that goes by itself."""
