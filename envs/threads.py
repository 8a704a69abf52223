"""Where the emulators' threads run, so that they take turns with whoever waits for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OURS = Path("/proc/self/task")  # Linux: a folder for each thread of this process


@contextmanager
def one_to_a_core() -> Iterator[None]:
    """Threads that begin inside stay on one core each, where they are enough for all cores.

    A thread that wakes others one by one is set aside for the first of them that lands on its core,
    and the second sleeps on: two threads of emulators take as long as one, where the caller has
    been busy in between (docs/log.md, 2026-11-30). A batch thread (Linux, sched(7)) waits until
    its core is free.
    Fewer threads than cores are left alone, and so are all where this is not Linux or not allowed.
    """
    before = _threads()
    yield
    begun = sorted(_threads() - before)
    cores = sorted(os.sched_getaffinity(0)) if begun else []
    if len(begun) < len(cores) or len(cores) == 1:
        return
    with suppress(OSError):
        for place, thread in enumerate(begun):
            os.sched_setaffinity(thread, {cores[place % len(cores)]})
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _threads() -> set[int]:
    return {int(folder.name) for folder in OURS.iterdir()} if OURS.is_dir() else set()
