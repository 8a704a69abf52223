"""`prefrl rate RUN`: the window in which a person compares clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from prefrl import __version__
from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from prefrl.feedback import Desk, FeedbackStore, Instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class RateArgs:
    """Compare clips or texts of a run, beside its training or after it. F1 explains the keys."""

    run: Positional[Path]
    """Run directory, or a rating pack (NAME.zip), which is unpacked beside itself."""
    name: str = ""
    """Under which your answers are stored: a pseudonym will do. Default: asked for."""
    scale: float = 1.0
    """Size of letters and buttons: 2 is twice as large."""
    cap: int | None = None
    """You are asked at most so many queries of one step of the run, so that one fast rater does not
    speak for one region of behaviour alone. Default: as many as there are."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.scale <= 4:
            raise UserError(f"scale: got {self.scale}, wanted 0.5 to 4")
        if self.cap is not None and self.cap < 1:
            raise UserError(f"cap: got {self.cap}, wanted 1 or more")
        if len(self.name.encode()) > 64 or not (self.name.isprintable()):
            raise UserError(f"name: got {self.name!r}, wanted up to 64 letters")


def main(args: list[str], *, prog: str) -> None:
    """Open the window; returns when it is closed."""
    given = parse(RateArgs, args, prog=prog)
    if given.run.is_file():
        from prefrl.feedback.unpacking import unpack

        given = dataclasses.replace(given, run=unpack(given.run))
    if not (given.run / "labels.db").is_file():
        raise UserError(f"no labels.db in {given.run}: give the directory of a run")

    from clip_viewer import rate

    rate(
        lambda: _opened(given.run, given.cap),
        draw=draw_clip,
        directory=given.run,
        name=given.name or pack_rater(given.run),
        scale=given.scale,
    )
    _give_answers(given.run)


def _give_answers(run: Path) -> None:
    """Of an unpacked pack: into a file that can be sent back."""
    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.packs import answers_path
    from prefrl.feedback.unpacking import is_pack, pack_answers

    if is_pack(run):
        out = answers_path(run)
        with FeedbackStore.open(run) as store:
            print(f"{out}: {pack_answers(store, out):,} answers; send it back")


def pack_rater(run: Path) -> str:
    """For whom an unpacked pack is; "" for anybody, and in a run."""
    from prefrl.feedback.unpacking import is_pack, read_note

    return read_note(run).rater if is_pack(run) else ""


@contextmanager
def _opened(directory: Path, cap: int | None) -> Iterator[RunPlace]:
    """Called in the thread that then talks to the store."""
    from prefrl.feedback import FeedbackStore

    with FeedbackStore.open(directory) as store:
        place = RunPlace(store, cap=cap)
        try:
            yield place
        finally:
            place.close()


class RunPlace:
    """A run directory, as the viewer sees it.

    Args:
        cap: queries of one step of the run that one rater is asked at most; None: no limit.
    """

    def __init__(self, store: FeedbackStore, *, cap: int | None = None) -> None:
        from prefrl.feedback import DeskConfig

        self.library, self.task = store, store.task
        self._config = DeskConfig(per_window_cap=cap)
        self._desk: Desk | None = None

    def instructions(self) -> Instructions:
        """The newest ones, or the task's own line where nobody has written any."""
        from envs import find_task
        from prefrl.feedback import Instructions

        written = self.library.instructions()
        if written.version:
            return written
        return Instructions(version=0, text=find_task(self.task).instructions)

    def sit(self, name: str) -> Desk:
        """The rater's desk; it is left when the place closes."""
        from prefrl.feedback import Desk

        self.close()
        wanted = pack_rater(self.library.directory)
        if wanted not in ("", name):
            raise UserError(f"name: got {name!r}, but this pack is for {wanted!r}")
        app, agreed = f"prefrl {__version__}", self.instructions()
        self._desk = Desk(self.library, rater=name, config=self._config, app=app, agreed=agreed)
        return self._desk

    def close(self) -> None:
        """Give back what the rater holds."""
        if self._desk is not None:
            self._desk.leave()
            self._desk = None


def draw_clip(recipe: bytes) -> tuple[np.ndarray, float]:
    """Frames [T, H, W, 3] and frames per second; runs in a process of its own."""
    from envs import ClipRecipe, find_task, render_clip

    read = ClipRecipe.from_bytes(recipe)
    return render_clip(read), find_task(read.task).fps
