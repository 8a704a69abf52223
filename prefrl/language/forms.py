"""Feedback on text through the same store as clips: pairs, rankings, ratings, edits, notes.

    completions -> segments -> queries -> raters at `prefrl rate` -> labels -> reward model

Everything that a rater can say about clips can be said about texts; an edit becomes a segment of
its own, preferred over what it corrects. Notes stay with the answers, for people to read.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from itertools import count

from prefrl.errors import UserError
from prefrl.feedback import (
    Answer,
    Comparison,
    Edit,
    FeedbackStore,
    Label,
    Outcome,
    Provenance,
    Query,
    Segment,
    Text,
    answer_id,
    form_of,
    read_text,
    text_segment,
)
from prefrl.feedback.queue import Lease
from prefrl.language.judge import Judge, Pair, Principle
from prefrl.language.records import Completion, Preference, TextLabel
from prefrl.language.tasks.task import Gold

LEASE_SECONDS = 1800.0  # for the answers of a slow model, and those that were killed


def ask(
    store: FeedbackStore,
    questions: Iterable[tuple[str, Sequence[Completion]]],
    *,
    step: int,
    gold: Gold | None = None,
    edit: bool = False,
    reason: str = "sampled",
) -> list[Query]:
    """Put completions of a prompt before raters.

    Args:
        questions: (prompt, completions): one to rate or edit, two to compare, more to rank.
        step: updates of the policy that wrote them.
        gold: the hidden reward, kept for oracles and metrics.
        edit: a single completion is to be corrected, not rated.
    """
    # the segments of queries alone: an attempt that was cut short may have left others
    queries, segments, number = [], [], count(sum(len(q.segments) for q in store.queries()))
    for prompt, completions in questions:
        asked = [
            _segment(store, prompt, c, gold=gold, step=step, number=next(number))
            for c in completions
        ]
        form = form_of(len(asked))
        queries.append(
            Query(
                segments=tuple(segment.id for segment in asked),
                policy_step=step,
                reason=reason,
                priority=0.0,
                form="edit" if edit and len(asked) == 1 else form,
            )
        )
        segments += asked
    store.add_segments(segments)
    store.add_queries(queries)
    return queries


def asked_at(store: FeedbackStore, step: int) -> list[tuple[Query, str, tuple[Completion, ...]]]:
    """Queries of the policy of `step` updates with their prompts and completions, by id."""
    found = sorted((q for q in store.queries() if q.policy_step == step), key=lambda q: q.id)
    return [(query, *_texts(store, query.segments)) for query in found]


def instruct(store: FeedbackStore, constitution: Sequence[Principle]) -> None:
    """Let raters read the constitution as their instructions."""
    store.set_instructions("\n\n".join(principle.text for principle in constitution))


def unjudged(store: FeedbackStore, rater: str, *, answered: bool = False) -> list[Query]:
    """Comparisons that a judge may still answer, in order of arrival.

    Args:
        rater: the judge.
        answered: also those that others have answered; what the judge says of them stands beside
            (status "extra"), to be compared, and is not trained on.
    """
    mine = {label.query.id for label in store.answers() if label.rater == rater}
    asked = [q for q in store.queries() if q.form == "comparison" and q.purpose == "normal"]
    return [q for q in asked if q.id not in mine and _free(store, q, rater, answered=answered)]


def judge_queries(
    store: FeedbackStore, judge: Judge, queries: Sequence[Query], *, answered: bool = False
) -> list[Outcome | None]:
    """Have a judge compare texts, all at once; when this returns the answers are stored.

    Nobody else is asked meanwhile. None: somebody holds it, or has answered it by now.
    """
    with store.writing(answers=False):
        mine = [q for q in queries if _free(store, q, judge.name, answered=answered)]
        now = time.time()
        for query in mine:
            token = secrets.token_hex(16)
            store.queue.grant(
                Lease(query=query.id, rater=judge.name, token=token, place=0, granted=now,
                      expires=now + LEASE_SECONDS)
            )  # fmt: skip
    try:
        probs = judge.probs(pairs_of(store, mine)) if mine else []
        answers = [
            Answer(
                id=answer_id(query.id, judge.name),
                query=query.id,
                rater=judge.name,
                reply=Comparison.of(prob),
            )
            for query, prob in zip(mine, probs, strict=True)
        ]
        outcomes = dict(zip((q.id for q in mine), store.submit_many(answers), strict=True))
        return [outcomes.get(query.id) for query in queries]
    finally:
        with store.writing(answers=False):
            for query in mine:
                store.queue.drop(query.id, judge.name)


def pairs_of(store: FeedbackStore, queries: Sequence[Query]) -> list[Pair]:
    """The texts of comparisons."""
    return [
        (prompt, first, second)
        for prompt, (first, second) in (_texts(store, query.segments) for query in queries)
    ]


def _free(store: FeedbackStore, query: Query, rater: str, *, answered: bool) -> bool:
    """May this rater answer it, and keep it from nobody?"""
    if store.queue.is_retired(query.id):
        return False
    open_here = store.queue.may_hold(query.id, rater, now=time.time())
    return open_here or (answered and store.queue.answered(query.id) >= query.need)


def settle_edits(store: FeedbackStore) -> int:
    """Make a segment of every edit that has none yet, so that it can be learned from."""
    made = 0
    for label in list(store.feedback()):
        if isinstance(label.reply, Edit) and not label.edited:
            original = store.segment(label.query.segments[0])
            text = _text(original)
            if label.reply.text == text.completion:
                continue  # nothing was changed: nothing is preferred
            edited = Text(prompt=text.prompt, completion=label.reply.text, ended=True)
            store.add_edited(
                label.seq, text_segment(edited, gold=0.0, provenance=original.provenance)
            )
            made += 1
    return made


def labels_from(store: FeedbackStore, *, as_of: int | None = None) -> list[TextLabel]:
    """Every trainable label about text, as reward models and direct methods read it.

    Args:
        as_of: as it was when this `seq` was the newest, without those who were forgotten since.

    Raises:
        UserError: the store holds clips.
    """
    settle_edits(store)
    forgotten = {act.rater for act in store.acts() if act.kind == "forget"}  # their new names
    found = [x for x in store.labels(0, as_of=as_of) if x.trainable and x.rater not in forgotten]
    return [_label(store, label) for label in found]


def notes(store: FeedbackStore) -> list[tuple[str, str, str]]:
    """(rater, prompt, note) of every answer that came with one."""
    return [
        (label.rater, _texts(store, label.query.segments)[0], label.viewing.note)
        for label in store.feedback()
        if label.viewing is not None and label.viewing.note
    ]


def _label(store: FeedbackStore, label: Label) -> TextLabel:
    prompt, completions = _texts(store, label.segments)
    reply = label.reply
    if isinstance(reply, Comparison):
        assert reply.target is not None, "not trainable"
        verdict = Preference(second=reply.target)
    elif isinstance(reply, Edit):
        verdict = Preference(second=1.0)
    else:
        return TextLabel(prompt=prompt, completions=completions, verdict=reply, rater=label.rater)
    return TextLabel(prompt=prompt, completions=completions, verdict=verdict, rater=label.rater)


def _texts(store: FeedbackStore, segments: Sequence[str]) -> tuple[str, tuple[Completion, ...]]:
    texts = [_text(store.segment(id)) for id in segments]
    completions = tuple(Completion(text=t.completion, ended=t.ended) for t in texts)
    return texts[0].prompt, completions


def _text(segment: Segment) -> Text:
    text = read_text(segment.clip)
    if text is None:
        raise UserError("the store holds clips, wanted texts: give the run of a language model")
    return text


def _segment(
    store: FeedbackStore,
    prompt: str,
    completion: Completion,
    *,
    gold: Gold | None,
    step: int,
    number: int,
) -> Segment:
    text = Text(prompt=prompt, completion=completion.text, ended=completion.ended)
    worth = gold(prompt, completion.text, completion.ended) if gold else 0.0
    provenance = Provenance(
        task=store.task, seed=store.seed, policy_step=step, env=0, episode=number, t0=0
    )
    return text_segment(text, gold=worth, provenance=provenance)
