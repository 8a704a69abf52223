"""`prefrl raters RUN`: how well the raters of a run rate, or a person removed from it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.quality import Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class RatersArgs:
    """Pace, agreement, consistency and drift of each rater: a table, a picture and a page.

    Nobody is dropped: what looks wrong is named, and you decide.
    """

    run: Positional[Path]
    """Run directory."""
    forget: str = ""
    """Remove the person of this name: the name goes from this run directory, their answers are
    counted but not trained on any more. It cannot be undone."""
    seed: int = 0
    """Of the bootstrap behind the intervals."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"seed: got {self.seed}, wanted 0 or more")


def main(args: list[str], *, prog: str) -> None:
    """Forget, or measure and draw."""
    given = parse(RatersArgs, args, prog=prog)

    from prefrl.feedback import FeedbackStore

    with FeedbackStore.open(given.run) as store:
        if given.forget:
            _forget(store, given.forget)
            return
        labels, acts = list(store.feedback()), store.acts()

    from prefrl.feedback.portrait import agreement_text, write_page, write_picture
    from prefrl.feedback.quality import measure

    quality = measure(labels, acts, seed=given.seed)
    if not quality.raters:
        print("nobody has answered yet")
        return
    _print_table(quality)
    print(agreement_text(quality))
    report = given.run / "report"
    picture = write_picture(quality, labels, report / "raters.png")
    print(picture)
    print(write_page(quality, picture, report / "raters.html", title=f"Raters of {given.run.name}"))


def _forget(store: FeedbackStore, rater: str) -> None:
    try:
        alias = store.forget(rater)
    except UserError:  # nobody, or a full disk: what an earlier call had to remove and did not
        times = [act.time or 0.0 for act in store.acts() if act.kind == "forget"]
        _remove(store.directory, before=max(times, default=0.0))
        raise
    print(f"forgotten; the answers stay counted under {alias}")
    _remove(store.directory, before=math.inf)


def _remove(run: Path, *, before: float) -> None:
    """The files that may show a name and were written `before`, in seconds since 1970."""
    for path in showing_names(run):
        if path.exists() and path.stat().st_mtime < before:
            path.unlink()
            print(f"removed, for it may show the name: {path}")


def showing_names(run: Path) -> list[Path]:
    """Files that are made of the answers, tell who gave them, and can be made again."""
    pages = ("raters.png", "raters.html", "index.html", "mistakes.png")
    films = [*run.glob("report/mistakes/*.mp4"), *run.glob("videos/queries/*.mp4")]
    files = [run / f"answers.{to}" for to in ("csv", "jsonl", "parquet")]
    return [*(run / "report" / name for name in pages), *films, *files]


def _print_table(quality: Quality) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from prefrl.feedback.portrait import COLUMNS, cells

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for one in quality.raters:
        table.add_row(*(Text(text) for text in cells(one)))
    wide = None if sys.stdout.isatty() else 180
    Console(width=wide).print(table)
