"""What a person can ask for, whatever key, button or pad it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Action(Enum):
    """An abstract key; what it does depends on the screen."""

    LEFT = auto()
    RIGHT = auto()
    UP = auto()
    DOWN = auto()
    ENTER = auto()
    NUMBER = auto()
    """`Press.number` says which."""
    PICK = auto()
    """A clip or a text was clicked; `Press.number` is its place on the screen, from 0."""
    DROP = auto()
    """The clip at `Press.number` was dragged to the rank `Press.place`, from 0; None: away."""
    SKIP = auto()
    PAUSE = auto()
    FRAME_BACK = auto()
    FRAME_ON = auto()
    SLOWER = auto()
    FASTER = auto()
    RESTART = auto()
    UNDO = auto()
    NOTE = auto()
    FLAG = auto()
    HELP = auto()
    FULL_SCREEN = auto()
    LEAVE = auto()
    SCROLL = auto()
    """`Press.number` lines down, or up if negative; `Press.place` names the pane."""
    DELETE = auto()
    HOME = auto()
    END = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """One key, button or click going down.

    >>> Press(action=Action.NUMBER, key="3", number=3).number
    3
    """

    action: Action
    """What it asks for."""
    key: str
    """The raw input, as it is stored with an answer: "Left", "pad A", "mouse"."""
    number: int = 0
    """Of NUMBER, PICK, DROP and SCROLL."""
    place: int | None = None
    """Of SCROLL: the pane under the mouse; None: all of them. Of DROP: the rank."""
