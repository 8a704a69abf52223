"""`prefrl merge RUN FILE`: the answers to a rating pack into the run that it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from prefrl.commands.parse import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeArgs:
    """Store what came back of a rating pack: all of it or, if anything is wrong, nothing.

    A file may be merged again, also a later one of the same pack: what is known is left alone.
    What came back unanswered is asked here again.
    """

    run: Positional[Path]
    """Run directory of which the pack was made."""
    file: Positional[Path]
    """What the rater sent: NAME-answers.zip."""


def main(args: list[str], *, prog: str) -> None:
    """Check, store, and say what was new."""
    given = parse(MergeArgs, args, prog=prog)

    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.packs import merge

    with FeedbackStore.open(given.run) as store:
        print(merge(store, given.file).text)
