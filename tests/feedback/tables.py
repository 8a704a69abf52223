"""A run in which everything has happened once, and the same run before anybody answered."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from prefrl.feedback import (
    Answer,
    Comparison,
    Edit,
    FeedbackStore,
    Instructions,
    Query,
    Ranking,
    Rating,
    Viewing,
)
from tests.feedback.helpers import ask, segment
from tests.feedback.test_store import answer

SEGMENTS = [segment((float(i), 0.5), t0=i) for i in range(9)]
IDS = [s.id for s in SEGMENTS]
PAIRS = [ask(SEGMENTS[2 * i], SEGMENTS[2 * i + 1], step=100 * i) for i in range(4)]
STEP: Any = {"policy_step": 7, "reason": "test", "priority": -0.5}
THREE = Query(segments=tuple(IDS[:3]), form="ranking", **STEP)
ONE = Query(segments=(IDS[3],), form="rating", **STEP)
TEXT = Query(segments=(IDS[4],), form="edit", **STEP)
GOLD = dataclasses.replace(PAIRS[0], purpose="gold", expected='{"choice": "first"}')
REPEAT = dataclasses.replace(PAIRS[0], purpose="repeat", repeat_of=PAIRS[0].id)
SEEN = Viewing(
    order=(1, 0), key="Left", seconds=2.5, first_frame_seconds=0.1, loops=1.5, speed=0.25,
    note='=SUM(A1), "quoted"\nund Grüße', instructions=1,
)  # fmt: skip
EDITED = segment((9.0, 9.0), t0=77)


def asked(directory: Path) -> FeedbackStore:
    """Queries of every form and purpose, and no answer."""
    store = FeedbackStore.create(directory, task="Dot", seed=7)
    store.add_segments([*SEGMENTS, EDITED])
    store.add_queries([*PAIRS, THREE, ONE, TEXT, GOLD, REPEAT])
    with store.writing():
        store.queue.retire(PAIRS[3].id, "stale")
    return store


def lived(directory: Path) -> FeedbackStore:
    """The same, with an answer of every form, and one of every fate."""
    store = asked(directory)
    told = Instructions(version=1, text="nearer is better")
    store.write_session(id="s1", rater="ann", app="viewer 1", started=90.0, agreed=told)
    full = dataclasses.replace(answer(PAIRS[0], id="a1"), viewing=SEEN, session="s1", time=100.25)
    better = dataclasses.replace(answer(PAIRS[0], "tie", id="a2"), supersedes="a1")
    store.submit_many([full, better, answer(PAIRS[1], id="b1")])
    with store.writing():
        store.ledger.undo("b1", rater="ann", time=5.0)
    replies = [Ranking(order=((2,), (0, 1))), Rating(value=7), Edit(text="=better")]
    sent = [
        Answer(id=f"form {q.form}", query=q.id, rater="-bob", reply=reply)
        for q, reply in zip((THREE, ONE, TEXT), replies, strict=True)
    ]
    cannot = Answer(id="c", query=THREE.id, rater="ann", reply=Comparison(choice="cannot"))
    store.submit_many([*sent, cannot, answer(PAIRS[0], rater="eve"), answer(PAIRS[3])])
    store.submit_many([answer(PAIRS[2], "skip", id="skip"), answer(GOLD), answer(REPEAT)])
    with store.writing():
        store.ledger.flag(PAIRS[2].id, rater="eve", time=9.0, note="@black", session="")
    store.add_edited(store.ledger.replies()[5].seq, EDITED)
    return store


def said(store: FeedbackStore) -> list[Any]:
    """All that raters ever said of it."""
    flags = [(a.query, a.rater, a.time, a.note) for a in store.acts() if a.kind == "flag"]
    return [store.ledger.replies(), flags, store.sessions(), store.consents()]
