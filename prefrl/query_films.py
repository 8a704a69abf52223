"""Films of queries: the clips side by side, the answers, and what the reward model thinks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from envs import find_task, render_clip
from prefrl.errors import UserError, nearest
from prefrl.feedback import (
    Comparison,
    FeedbackStore,
    Label,
    Query,
    Ranking,
    Rating,
    Reply,
    Segment,
)
from prefrl.loop.mistakes import Judged, judge
from prefrl.loop.storyboard import Shown, Story, film
from prefrl.loop.video import write_video
from prefrl.rewards import RewardModel

NOTE_LETTERS = 100  # of a note: pictures are as wide as their longest line
RANKS = ("1st", "2nd", "3rd", "4th", "5th", "6th")
SIDES = {"first": "left", "second": "right"}
SAID = {
    "first": "the left one is better",
    "second": "the right one is better",
    "tie": "equally good",
    "cannot": "cannot be compared",
}


def newest_queries(store: FeedbackStore, count: int) -> list[Query]:
    """Those answered last, newest first."""
    answered = {label.query.id: label.query for label in reversed(list(store.feedback()))}
    return list(answered.values())[:count]


def named_queries(store: FeedbackStore, ids: Sequence[str]) -> list[Query]:
    """Queries by their ids, or by how they begin.

    Raises:
        UserError: there is none of that name, or several.
    """
    known = {query.id: query for query in store.queries()}
    found = []
    for id in ids:
        fitting = [x for x in known if x.startswith(id)]
        if len(fitting) != 1:
            hint = nearest(id, [x[: len(id)] for x in known]) if not fitting else ""
            raise UserError(
                f"query: got {id!r}, which {len(fitting)} queries of {store.directory} begin with; "
                f"wanted one{'; ' if hint else ''}{hint}"
            )
        found.append(known[fitting[0]])
    return found


def write_film(story: Story, path: Path) -> Path:
    """An MP4 of a story."""
    return write_video(film(story), path, fps=story.fps)


def tell(
    store: FeedbackStore,
    query: Query,
    model: RewardModel | None,
    *,
    about: Label | None = None,
    learned: Collection[int] = (),
) -> Story:
    """Draw the clips of `query`, and write down what is known about it.

    Args:
        learned: `seq` of the answers that the model was fitted to.
        about: the answer to mark on the clips and to judge, of several; None: the first.

    Raises:
        UserError: it is about texts.
    """
    if store.text(query.segments[0]) is not None:
        raise UserError(f"query {query.id[:12]} is about texts, of which there is no film")
    labels = [label for label in store.feedback() if label.query.id == query.id]
    marked = about or next(iter(labels), None)
    judged = []
    if model is not None and marked is not None:
        judged = judge(model, store, [marked], learned=learned)
    segments = [store.segment(i) for i in query.segments]
    by = judged[0].members if judged else None
    clips = [
        _shown(store, segment, place, marked.reply if marked else None, model, by)
        for place, segment in enumerate(segments)
    ]
    return Story(
        id=query.id,
        title=f"{store.task}   step {query.policy_step:,}   query {query.id[:12]}",
        lines=(*(_said(x) for x in labels), *(_thought(x) for x in judged))
        or ("nobody has answered yet",),
        clips=tuple(clips),
        fps=float(find_task(store.task).fps),
    )


def _shown(
    store: FeedbackStore,
    segment: Segment,
    place: int,
    reply: Reply | None,
    model: RewardModel | None,
    by: Sequence[int] | None,
) -> Shown:
    pictures = store.pictures(segment.id)
    mark, best = _mark(reply, place)
    learned = None
    if model is not None and model.fitted:
        with torch.no_grad():
            learned = model.score([segment], members=by)[0].cpu().numpy()
    return Shown(
        frames=render_clip(segment.clip) if pictures is None else pictures.frames,
        mark=mark,
        best=best,
        learned=learned,
        true=float(segment.true_reward.sum()),
    )


def _mark(reply: Reply | None, place: int) -> tuple[str, bool]:
    """What an answer says of the clip at `place`, and whether it is the best."""
    if isinstance(reply, Comparison):
        if reply.choice == "tie":
            return "as good", False
        best = reply.preferred == place
        return ("preferred" if best else ""), best
    if isinstance(reply, Ranking):
        rank = next(i for i, group in enumerate(reply.order) if place in group)
        return RANKS[rank], rank == 0
    if isinstance(reply, Rating):
        return f"{reply.value} of 9", False
    return "", False


def _said(label: Label) -> str:
    """One line: who said what.

    >>> from types import SimpleNamespace
    >>> _said(SimpleNamespace(rater="ann", reply=Rating(value=7), viewing=None))
    'ann: 7 of 9'
    """
    reply = label.reply
    if isinstance(reply, Comparison):
        text = SAID.get(reply.choice, reply.choice)
    elif isinstance(reply, Ranking):
        groups = (" = ".join(str(i + 1) for i in group) for group in reply.order)
        text = f"clips {' > '.join(groups)}"
    elif isinstance(reply, Rating):
        text = f"{reply.value} of 9"
    else:
        text = "an edited text"
    note = " ".join(label.viewing.note.split()) if label.viewing else ""
    short = note if len(note) <= NOTE_LETTERS else f"{note[:NOTE_LETTERS]} ..."
    return f"{label.rater}: {text}" + (f'  "{short}"' if short else "")


def _thought(judged: Judged) -> str:
    choice = "second" if judged.second > 0.5 else "first"
    sure = max(judged.second, 1 - judged.second)
    never = "members that never saw this answer, as are the returns below"
    who = never if judged.held_out else "all members, which have seen this answer"
    return f"reward model: {sure:.1%} for the {SIDES[choice]} one ({who})"
