"""`prefrl pack RUN`: clips and questions for a rater on another machine, or the answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.errors import UserError

MOST, DAYS = 5000, 3.0
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PackArgs:
    """Put what is next to be asked into one file, with its clips and nothing hidden.

    The rater gives it to `prefrl rate FILE` and sends the answers back, for `prefrl merge`. In a
    pack that has been unpacked this command writes the answers once more.
    """

    run: Positional[Path]
    """Run directory, or an unpacked pack."""
    out: Path | None = None
    """File to write, which must not exist: NAME.zip."""
    queries: int = MOST
    """At most so many, the most wanted first; practice and gold items come on top."""
    rater: Annotated[str, tyro.conf.arg(name="for")] = ""
    """For whom: what this rater has answered is left out, and nobody else's answers are taken.
    Default: for anybody."""
    days: float = DAYS
    """For so long nobody else is asked what is in the pack, unless it is merged before. 0: they are
    asked all the same, and an answer that comes too late is kept, but not trained on."""
    recall: bool = False
    """Make no pack: ask here again whatever is out in packs. Their answers can still be merged."""

    def __post_init__(self) -> None:
        if not 0 <= self.days <= 365:
            raise UserError(f"days: got {self.days}, wanted 0 to 365")
        if not 1 <= self.queries <= MOST:
            raise UserError(f"queries: got {self.queries}, wanted 1 to {MOST}")


def main(args: list[str], *, prog: str) -> None:
    """Write the file and say what is in it."""
    given = parse(PackArgs, args, prog=prog)

    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.packs import answers_path, make_pack
    from prefrl.feedback.records import check_name
    from prefrl.feedback.unpacking import is_pack, pack_answers

    if given.rater:
        try:
            check_name("for", given.rater)
        except ValueError as error:
            raise UserError(str(error)) from None
    with FeedbackStore.open(given.run) as store:
        if is_pack(given.run):
            if given.rater or given.recall or (given.queries, given.days) != (MOST, DAYS):
                raise UserError(f"{given.run} is an unpacked pack: its answers are packed whole")
            out = given.out or answers_path(given.run)
            print(f"{out}: {pack_answers(store, out):,} answers; send it back")
        elif given.recall:
            if given.out or given.rater or (given.queries, given.days) != (MOST, DAYS):
                raise UserError("--recall takes back all packs: got other options beside it")
            with store.writing(answers=False):
                print(f"{store.queue.recall():,} queries are asked here again")
        elif given.out is None:
            raise UserError("--out: wanted a file to write: --out NAME.zip")
        else:
            held = DAY_SECONDS * given.days
            count = make_pack(
                store, given.out, count=given.queries, rater=given.rater, seconds=held
            )
            print(f"{given.out}: {count:,} queries; `prefrl rate {given.out.name}` opens it")
