"""`prefrl pack RUN`: clips and questions for a rater on another machine, or the answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.errors import UserError

MOST = 5000


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

    def __post_init__(self) -> None:
        if not 1 <= self.queries <= MOST:
            raise UserError(f"queries: got {self.queries}, wanted 1 to {MOST}")


def main(args: list[str], *, prog: str) -> None:
    """Write the file and say what is in it."""
    given = parse(PackArgs, args, prog=prog)

    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.packs import answers_path, make_pack
    from prefrl.feedback.unpacking import is_pack, pack_answers

    with FeedbackStore.open(given.run) as store:
        if is_pack(given.run):
            if given.rater or given.queries != MOST:
                raise UserError(f"{given.run} is an unpacked pack: its answers are packed whole")
            out = given.out or answers_path(given.run)
            print(f"{out}: {pack_answers(store, out):,} answers; send it back")
        elif given.out is None:
            raise UserError("--out: wanted a file to write: --out NAME.zip")
        else:
            count = make_pack(store, given.out, count=given.queries, rater=given.rater)
            print(f"{given.out}: {count:,} queries; `prefrl rate {given.out.name}` opens it")
