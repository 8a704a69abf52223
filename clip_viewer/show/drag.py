"""A clip that the mouse drags."""

from __future__ import annotations

from dataclasses import dataclass

from ..control.actions import Action, Press
from ..control.screen import Screen

FAR = 8  # pixels from where the button went down that make a drag of a click


@dataclass(slots=True)
class Drag:
    """From the button's going down on a clip to its going up."""

    place: int
    """The clip's, on the screen."""
    start: tuple[int, int]
    """Where the button went down."""
    screen: Screen
    """On which screen."""
    moved: bool = False
    """Is it a drag by now? It stays one, also if it comes back."""

    def move(self, to: tuple[int, int]) -> None:
        """The mouse has moved."""
        away = max(abs(to[0] - self.start[0]), abs(to[1] - self.start[1]))
        self.moved = self.moved or away >= FAR

    def press(self, rank: int | None) -> Press:
        """What it meant, let go over `rank` or over none: a click where nothing moved."""
        if not self.moved:
            return Press(action=Action.PICK, key="mouse", number=self.place)
        return Press(action=Action.DROP, key="mouse", number=self.place, place=rank)
