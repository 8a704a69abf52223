"""A stand-in for the progress that the desk of `prefrl.feedback` will report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    answered: int
    answered_today: int
    labels: int
    due: int | None
    per_hour: float | None
    heartbeat_age: float | None
    behind: int | None
    waiting: int
