"""`prefrl gold RUN`: items whose right answer is known, to get to know raters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.controls import Known


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldArgs:
    """Make gold items of queries whose right answer is known; without a source, list them.

    About one in twenty of a rater's questions is a gold item, which looks like any other;
    `prefrl raters RUN` shows how many were right. Practice items come first and say what was
    right. Neither is trained on, and the query that one is made of is asked no more. Repeats
    need no making.
    """

    run: Positional[Path]
    """Run directory."""
    query: str = ""
    """Source: you. Id of a query, or its first digits, as in `prefrl export`; with --answer."""
    answer: str = ""
    """first, second or tie; 1 to 9 for a rating; 3>1=2 for a ranking."""
    by: str = ""
    """Source: what the rater of this name has answered."""
    true_reward: bool = False
    """Source: the true reward, where it differs clearly, by a standard deviation of all clips."""
    practice: bool = False
    """Make practice items: the clearest ones."""
    count: int | None = None
    """At most so many, with --by and --true-reward. Default: 20."""
    seed: int | None = None
    """Of the choice among what is clear, with the same. Default: 0."""

    def __post_init__(self) -> None:
        if self.count is not None and not 1 <= self.count <= 1000:
            raise UserError(f"count: got {self.count}, wanted 1 to 1000")
        if self.seed is not None and self.seed < 0:
            raise UserError(f"seed: got {self.seed}, wanted 0 or more")
        given = [bool(self.query), bool(self.by), self.true_reward]
        if sum(given) > 1:
            raise UserError("source: wanted one of --query, --by and --true-reward")
        if bool(self.query) != bool(self.answer):
            raise UserError("query: wanted together with --answer")
        for name in ("count", "seed"):
            if getattr(self, name) is not None and not (self.by or self.true_reward):
                raise UserError(
                    f"{name}: wanted with --by or --true-reward, where there is a choice"
                )
        if self.practice and not any(given):
            raise UserError("practice: wanted with --query, --by or --true-reward")


def main(args: list[str], *, prog: str) -> None:
    """Make items, or list them."""
    given = parse(GoldArgs, args, prog=prog)

    from prefrl.feedback import FeedbackStore
    from prefrl.feedback.controls import mark

    with FeedbackStore.open(given.run) as store:
        if given.query or given.by or given.true_reward:
            purpose = "practice" if given.practice else "gold"
            known = _known(store, given)
            made = mark(store, known, purpose=purpose)  # type: ignore[arg-type]
            print(f"{len(made)} new {purpose} items")
        else:
            _list(store)


def _known(store: FeedbackStore, given: GoldArgs) -> list[Known]:
    from prefrl.feedback.controls import by_hand, by_rater, by_true_reward, chosen

    if given.query:
        return [by_hand(store, given.query, given.answer)]
    known = by_rater(store, given.by) if given.by else by_true_reward(store)
    if not known:
        raise UserError("nothing is clear enough: wanted answers that are no ties, or other clips")
    purpose = "practice" if given.practice else "gold"
    count = 20 if given.count is None else given.count
    return chosen(store, known, count=count, purpose=purpose, seed=given.seed or 0)  # type: ignore[arg-type]


def _list(store: FeedbackStore) -> None:
    from prefrl.feedback.controls import shown, tally

    for one in tally(store):
        query, right = one.query, one.query.right
        assert right is not None
        print(
            f"{query.id[:12]}  {query.purpose:<8}  {query.form:<10}  {shown(right):<8}  "
            f"{one.right} of {one.answers} right"
        )
