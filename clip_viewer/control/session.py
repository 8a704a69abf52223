"""What a rater has done since signing in."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field

from .views import Mark

BREAK_ANSWERS = 50
BREAK_SECONDS = 15 * 60.0


@dataclass(slots=True)
class Session:
    """Answers and breaks; nothing here is stored."""

    started: float
    """By the clock."""
    rested: float
    """When the last break ended."""
    since_break: int = 0
    """Answers after it."""
    answers: list[tuple[float, Mark]] = field(default_factory=list)
    """Seconds and kind of each stored answer, without those taken back."""

    def count(self, seconds: float, mark: Mark) -> None:
        """One more answer is stored."""
        self.since_break += 1
        self.answers.append((seconds, mark))

    def take_back(self) -> None:
        """The newest answer will be given again."""
        if self.answers:
            self.answers.pop()
            self.since_break = max(self.since_break - 1, 0)

    def needs_break(self, now: float) -> bool:
        """After 50 answers, or a quarter of an hour in which something was answered."""
        long = now - self.rested >= BREAK_SECONDS and self.since_break > 0
        return self.since_break >= BREAK_ANSWERS or long

    def rest(self, now: float) -> None:
        """A break has ended, or was passed over."""
        self.since_break, self.rested = 0, now

    @property
    def typical_seconds(self) -> float | None:
        """Median time of an answer."""
        return statistics.median(s for s, _ in self.answers) if self.answers else None

    @property
    def shares(self) -> dict[Mark, float]:
        """How often each answer to a comparison was given."""
        counts = Counter(mark for _, mark in self.answers if mark in COMPARED)
        return {mark: counts[mark] / counts.total() for mark in COMPARED if counts.total()}


COMPARED: tuple[Mark, ...] = ("left", "equal", "right", "cannot")
