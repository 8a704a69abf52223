"""`prefrl clips RUN`: films of queries, with the answers and what the reward model thinks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from prefrl.feedback import FeedbackStore
    from prefrl.rewards import RewardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsArgs:
    """Write MP4s of queries: clips side by side, who said what, learned and true returns.

    Without --query or --mistakes, those that were answered last.
    """

    run: Positional[Path]
    """Run directory."""
    query: tuple[str, ...] = ()
    """Ids of queries, or how they begin."""
    last: int | None = None
    """So many: of the newest, or of the mistakes. Default: 8."""
    mistakes: bool = False
    """The comparisons that the reward model gets wrong most confidently, held out from it."""
    reward_model: Path | None = None
    """Directory of the reward model that looks at them. Default: the run's own."""

    def __post_init__(self) -> None:
        if self.last is not None and self.last < 1:
            raise UserError(f"last: got {self.last}, wanted 1 or more")
        if self.query and self.last is not None:
            raise UserError("last: got a number, and --query too; wanted one of the two")
        if self.query and self.mistakes:
            raise UserError("query: got some, and --mistakes too; wanted one of the two")


def main(args: list[str], *, prog: str) -> None:
    """Choose, draw and print where they are."""
    given = parse(ClipsArgs, args, prog=prog)

    from envs import find_task
    from prefrl.feedback import FeedbackStore
    from prefrl.film import check_drawing
    from prefrl.loop.hardware import set_threads
    from prefrl.loop.mistakes import certain_mistakes, learned_from
    from prefrl.query_films import named_queries, newest_queries, tell, write_film

    set_threads(1)
    last = 8 if given.last is None else given.last
    with FeedbackStore.open(given.run) as store:
        _check_shows_clips(store)
        check_drawing(find_task(store.task))
        model = _model(given)
        where = given.reward_model or given.run
        learned = set() if model is None else learned_from(where, store)
        if model is not None:
            _check_reads(model, store)
        if given.query:
            queries = named_queries(store, given.query)
        elif given.mistakes:
            assert model is not None, "`_model` refuses that"
            if not model.fitted:
                raise UserError(f"the reward model in {where} was never fitted to any answer")
            answers = store.labels(after=0)
            wrong = certain_mistakes(model, store, answers, count=last, learned=learned)
            queries = [x.label.query for x in wrong]
        else:
            queries = newest_queries(store, last)
        if not queries:
            why = "nothing was answered yet"
            if given.mistakes:
                why = "no comparison is mistaken by members that never saw its answer"
            print(f"no query to show: {why}")
        for query in queries:
            path = given.run / "videos" / "queries" / f"{query.id[:12]}.mp4"
            print(write_film(tell(store, query, model, learned=learned), path))


def _check_shows_clips(store: FeedbackStore) -> None:
    asked = next(store.queries(), None)
    if asked is not None and store.text(asked.segments[0]) is not None:
        raise UserError(
            f"{store.directory} is about texts, of which there are no films: "
            f"`prefrl export {store.directory}` writes them out"
        )


def _check_reads(model: RewardModel, store: FeedbackStore) -> None:
    asked = next(store.queries(), None)
    if asked is None:
        return
    got = store.segment(asked.segments[0]).observations.shape[1:]
    if tuple(got) != tuple(model.spaces.observation):
        raise UserError(
            f"reward_model: it reads observations {tuple(model.spaces.observation)}, and those of "
            f"{store.task} are {tuple(got)}: wanted a model of this task"
        )


def _model(given: ClipsArgs) -> RewardModel | None:
    """The reward model that was named, or the run's, if it has one already."""
    from prefrl.rewards import RewardModel

    if given.mistakes or given.reward_model is not None:
        return RewardModel.load(given.reward_model or given.run)
    return RewardModel.load_if_any(given.run)
