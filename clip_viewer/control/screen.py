"""What all screens have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .actions import Action, Press
from .views import Body, Hint, Mark

if TYPE_CHECKING:
    from .controller import Controller


class Screen:
    """One state of the program: takes keys, knows what is to be seen.

    Args:
        controller: whom to ask for the next screen.
    """

    typing = False
    """Do letters go into a text?"""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def press(self, press: Press) -> None:
        """A key went down."""

    def type(self, text: str) -> None:
        """Letters were typed."""

    def tick(self, seconds: float) -> None:
        """That much time has passed while this screen was in front."""

    def put_aside(self) -> None:
        """The rater has gone away: keep what is half written."""

    def scroll_limit(self, place: int, most: int) -> None:
        """The window knows how many lines of a text lie below; place -1 is the prompt."""

    def body(self) -> Body:
        """The middle of the window."""
        raise NotImplementedError

    def hints(self) -> tuple[Hint, ...]:
        """The legend."""
        return ()


def hint(cap: str, label: str, action: Action, *, mark: Mark = "none", number: int = 0) -> Hint:
    """An entry of the legend; one with a mark is an answer."""
    press = Press(action=action, key="mouse", number=number)
    return Hint(cap=cap, label=label, press=press, mark=mark, strong=mark != "none")


HELP = hint("F1", "help", Action.HELP)
LEAVE = hint("Esc", "leave", Action.LEAVE)
UNDO = hint("Backspace", "undo", Action.UNDO)


def words(count: int, singular: str) -> str:
    """A count and its noun.

    >>> words(1, "answer"), words(3, "answer")
    ('1 answer', '3 answers')
    """
    return f"{count:,} {singular}{'' if count == 1 else 's'}"


def span(seconds: float) -> str:
    """A time in the unit that fits.

    >>> span(4.2), span(200), span(8000)
    ('4 s', '3 min', '2 h 13 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
