"""The questions at hand: the one on the screen, and the next ones with their clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from prefrl.feedback import Assignment

from .clerk import Clerks
from .desk import Seat
from .drawing import Drawer
from .material import Broken, Clip, Material, Recipe, read_material, read_prompt

AHEAD = 2  # assignments beside the one on the screen


@dataclass(slots=True)
class Item:
    """An assignment and what has arrived of its segments."""

    assignment: Assignment
    """The query, leased to this rater."""
    materials: dict[str, Material] = field(default_factory=dict)
    """By segment."""
    prompt: str | None = None
    """What texts complete."""

    @property
    def places(self) -> list[Material | None]:
        """As they lie on the screen; None: not here yet."""
        segments = self.assignment.query.segments
        return [self.materials.get(segments[i]) for i in self.assignment.order]

    @property
    def complete(self) -> bool:
        """Has everything arrived?"""
        return len(self.materials) == len(self.assignment.query.segments)

    @property
    def clips(self) -> list[Clip]:
        """Those that can be played, in the order of `places`."""
        return [m for m in self.places if isinstance(m, Clip)]

    @property
    def broken(self) -> list[Broken]:
        """What is wrong with it."""
        return [m for m in self.places if isinstance(m, Broken)]


class Shelf:
    """Takes assignments ahead of time and fetches or draws their clips."""

    def __init__(self, clerk: Clerks, drawer: Drawer) -> None:
        self._clerk, self._drawer = clerk, drawer
        self.items: list[Item] = []
        self._closed: set[str] = set()  # queries answered, skipped or flagged just now
        self._asked = False

    @property
    def front(self) -> Item | None:
        """What is to be answered now."""
        return self.items[0] if self.items else None

    @property
    def wants(self) -> bool:
        """Is there room for more assignments?"""
        return len(self.items) <= AHEAD and not self._asked

    def refill(self) -> None:
        """Ask for as many assignments as are missing."""
        if self.wants:
            self._asked = True
            self._clerk.call(lambda seat: list(seat.at.take(1 + AHEAD)), self._taken)

    def done(self, item: Item) -> None:
        """This one is answered, skipped or flagged."""
        self._closed.add(item.assignment.token)
        self.items = [other for other in self.items if other is not item]

    def put_first(self, assignment: Assignment) -> None:
        """It is to be answered again, before all others."""
        self.items = [i for i in self.items if i.assignment.query != assignment.query]
        self._closed.discard(assignment.token)
        self._add(0, assignment)

    def clear(self) -> None:
        """All assignments were given back."""
        self.items = []
        self._drawer.forget(set())

    def poll(self) -> None:
        """Take in what was drawn."""
        self._drawer.forget({s for item in self.items for s in item.assignment.query.segments})
        for segment, material in self._drawer.poll():
            self._arrived(segment, material)

    def _taken(self, assignments: Sequence[Assignment]) -> None:
        self._asked = False
        known = {item.assignment.query for item in self.items}
        for assignment in assignments:
            if assignment.query not in known and assignment.token not in self._closed:
                self._add(len(self.items), assignment)

    def _add(self, place: int, assignment: Assignment) -> None:
        self.items.insert(place, self._new(assignment))
        for segment in assignment.query.segments:
            self._fetch(segment)

    def _new(self, assignment: Assignment) -> Item:
        item = Item(assignment)
        query = assignment.query

        def prompt_came(prompt: str | None) -> None:
            item.prompt = prompt

        self._clerk.call(lambda seat: read_prompt(seat.library, query.id), prompt_came)
        return item

    def _fetch(self, segment: str) -> None:
        for item in self.items:  # two questions may share a clip
            if segment in item.materials:
                return self._arrived(segment, item.materials[segment])

        def read(seat: Seat) -> Material | Recipe:
            return read_material(seat.library, segment)

        def came(found: Material | Recipe) -> None:
            if isinstance(found, Recipe):
                self._drawer.request(segment, found.data)
            else:
                self._arrived(segment, found)

        self._clerk.call(read, came)

    def _arrived(self, segment: str, material: Material) -> None:
        for item in self.items:
            if segment in item.assignment.query.segments:
                item.materials[segment] = material
