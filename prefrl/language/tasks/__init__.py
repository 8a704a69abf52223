"""Language tasks that need no download."""

from __future__ import annotations

from collections.abc import Callable

from prefrl.errors import UserError, nearest
from prefrl.language.tasks.annotator import Annotator
from prefrl.language.tasks.docstrings import docstrings_task
from prefrl.language.tasks.reviews import reviews_task
from prefrl.language.tasks.task import Gold, TextTask

__all__ = ["TASKS", "Annotator", "Gold", "TextTask", "find_text_task"]

TASKS: dict[str, Callable[[], TextTask]] = {"reviews": reviews_task, "docstrings": docstrings_task}


def find_text_task(name: str) -> TextTask:
    """The task `name`.

    Raises:
        UserError: there is none.
    """
    if name not in TASKS:
        hint = nearest(name, TASKS) or f"known: {', '.join(TASKS)}"
        raise UserError(f"unknown language task {name!r}; {hint}")
    return TASKS[name]()
