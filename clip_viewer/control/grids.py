"""The screens that ask about more or fewer than two clips: a ranking, a rating."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prefrl.feedback import Ranking, Rating

from .actions import Action, Press
from .questions import CANNOT, Given, Question
from .screen import hint
from .shelf import Item
from .views import Flash, Hint, Pane, QuestionBody

if TYPE_CHECKING:
    from .controller import Controller


class RankingQuestion(Question):
    """Clips in a grid, put in order: best first, ties allowed."""

    form = "ranking"
    question = "Put them in order, the best first"

    def __init__(self, controller: Controller, item: Item) -> None:
        super().__init__(controller, item)
        self.slots: list[list[int]] = [[] for _ in item.places]
        """Rank, from 0 -> the places on the screen that have it; two or more are a tie."""
        self.tie = False
        """Does the next one share the rank of the last?"""
        self.aim = 0
        self._placed: list[int] = []  # places in the order in which they got their ranks

    @property
    def ranked(self) -> list[int]:
        """All places that have a rank."""
        return [place for slot in self.slots for place in slot]

    def press(self, press: Press) -> None:
        undoing = press.action is Action.UNDO and self._placed and self.given is None
        if undoing and not self.item.broken:
            self._take_back()
        else:
            super().press(press)

    def choose(self, press: Press) -> None:
        if press.action in (Action.LEFT, Action.RIGHT):
            self._move_aim(1 if press.action is Action.RIGHT else -1)
        elif press.action is Action.NUMBER:
            self._place(press.number - 1)
        elif press.action is Action.PICK:
            self._place(press.number)
        elif press.action is Action.DROP:
            self._drop(press.number, press.place)
        elif press.action is Action.UP:
            self.tie = bool(self._placed) and not self.tie
        elif press.action is Action.DOWN:
            self.give(CANNOT, press)
        elif press.action is Action.ENTER:
            self._enter(press)

    def _move_aim(self, step: int) -> None:
        """To the next place without a rank."""
        count = len(self.item.places)
        for place in (self.aim + step * i for i in range(1, count + 1)):
            if place % count not in self.ranked:
                self.aim = place % count
                return

    def _enter(self, press: Press) -> None:
        if len(self.ranked) < len(self.item.places):
            self._place(self.aim)
            return
        assigned = self.item.assignment.order
        order = tuple(tuple(sorted(assigned[p] for p in slot)) for slot in self.slots if slot)
        flash = Flash(text="Ranked", mark="number")
        self.give(Given(reply=Ranking(order=order), flash=flash), press)

    def _place(self, place: int) -> None:
        """Give it the best free rank, or take its rank away."""
        if not 0 <= place < len(self.slots):
            return
        if place in self.ranked:
            self._lift(place)
            self.aim, self.tie = place, False
            return
        shared = self._rank(self._placed[-1]) if self.tie else None
        self._put(place, self.slots.index([]) if shared is None else shared)
        self.tie = False
        self._place_last()

    def _drop(self, place: int, rank: int | None) -> None:
        """It was dragged to a rank, from which others make way, or away from all of them."""
        if not 0 <= place < len(self.slots):
            return
        self._lift(place)
        self.tie = False
        if rank is not None and 0 <= rank < len(self.slots):
            free = [i for i, slot in enumerate(self.slots) if not slot]
            gap = next((i for i in free if i >= rank), free[-1])
            self.slots.insert(rank, self.slots.pop(gap))
            self._put(place, rank)
            self._place_last()
        else:
            self.aim = place

    def _put(self, place: int, rank: int) -> None:
        self.slots[rank].append(place)
        self._placed.append(place)

    def _lift(self, place: int) -> None:
        """It has no rank any more, if it had one."""
        self.slots = [[p for p in slot if p != place] for slot in self.slots]
        self._placed = [p for p in self._placed if p != place]

    def _place_last(self) -> None:
        """Where one is left there is nothing to choose."""
        left = [p for p in range(len(self.slots)) if p not in self.ranked]
        if len(left) == 1:
            self._put(left[0], self.slots.index([]))
        elif left:
            self.aim = left[0]

    def _rank(self, place: int) -> int | None:
        return next((i for i, slot in enumerate(self.slots) if place in slot), None)

    def _take_back(self) -> None:
        if self.tie:
            self.tie = False
        else:
            self.aim = self._placed[-1]
            self._lift(self.aim)

    def body(self) -> QuestionBody:
        return replace(super().body(), slots=tuple(tuple(slot) for slot in self.slots))

    def pane(self, place: int) -> Pane:
        rank = self._rank(place)
        shown = None if rank is None else rank + 1
        return replace(super().pane(place), mark="number", rank=shown, aimed=place == self.aim)

    def answers(self) -> tuple[Hint, ...]:
        count = len(self.item.places)
        full = len(self.ranked) == count
        equal = "next is as good" if not self.tie else "pick the equal one"
        return (
            hint(f"1-{count}", "best first", Action.NUMBER, mark="number", number=self.aim + 1),
            hint("Up", equal, Action.UP, mark="equal"),
            hint("Enter", "send" if full else "place", Action.ENTER, mark="left"),
            hint("Down", "cannot compare", Action.DOWN, mark="cannot"),
        )


class RatingQuestion(Question):
    """One clip, 1 to 9."""

    form = "rating"
    question = "How good is this?"

    def __init__(self, controller: Controller, item: Item) -> None:
        super().__init__(controller, item)
        self.value = 5

    def choose(self, press: Press) -> None:
        if press.action in (Action.LEFT, Action.RIGHT):
            step = 1 if press.action is Action.RIGHT else -1
            self.value = min(max(self.value + step, 1), 9)
        elif press.action is Action.NUMBER and 1 <= press.number <= 9:
            self._give(press.number, press)
        elif press.action is Action.DOWN:
            self.give(CANNOT, press)
        elif press.action is Action.ENTER:
            self._give(self.value, press)

    def _give(self, value: int, press: Press) -> None:
        if self._watched:
            self.value = value
        flash = Flash(text=f"Rated {value} of 9", mark="number", place=0)
        self.give(Given(reply=Rating(value=value), flash=flash), press)

    def body(self) -> QuestionBody:
        return replace(super().body(), value=self.value)

    def pane(self, place: int) -> Pane:
        return replace(super().pane(place), mark="number")

    def answers(self) -> tuple[Hint, ...]:
        return (
            hint("1-9", "9 is best", Action.NUMBER, mark="number"),
            hint("Enter", "send", Action.ENTER, mark="left"),
            hint("Down", "cannot tell", Action.DOWN, mark="cannot"),
        )
