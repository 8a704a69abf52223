"""Texts from files and datasets, in the columns that the field uses.

    demonstrations   prompt, completion              | messages
    preferences      prompt, chosen, rejected        | chosen, rejected as messages
                     (and `probability` that the chosen one is preferred, above .5: soft labels)
    rankings         prompt, completions, ranking    places of the completions, best first
    ratings          prompt, completion, rating      1 to 9
    thumbs           prompt, completion, label       true: good
    prompts          prompt

A completion that was cut off has no end token: `ended` false beside `completion`, a list of them
beside `completions`, `chosen_ended` and `rejected_ended` beside a pair.

A prompt is a string, or messages that the tokenizer's chat template turns into one. Sources are
JSON lines, Parquet, and anything that gives rows as mappings, such as `datasets.Dataset`. Whatever
is wrong with a source is said before anything is trained, with the row's number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrl.errors import UserError
from prefrl.feedback import Ranking, Rating
from prefrl.language.records import (
    Completion,
    Demonstration,
    Preference,
    TextLabel,
    Thumb,
)
from prefrl.language.rows import Row, Source, by_row, converted
from prefrl.language.tokenizer import Tokenizer

Template = Callable[[Sequence[Mapping[str, str]]], str]
"""Messages -> the text of a prompt, ready for an answer."""

DEMONSTRATIONS = (("prompt", "completion"), ("messages",))
LABELS = (
    ("prompt", "chosen", "rejected"),
    ("chosen", "rejected"),
    ("prompt", "completions", "ranking"),
    ("prompt", "completion", "rating"),
)
THUMBS = (
    ("prompt", "completion", "label"),
    ("prompt", "chosen", "rejected"),
    ("chosen", "rejected"),
)
PROMPTS = (("prompt",), ("messages",))


def read_demonstrations(source: Source, *, template: Template | None = None) -> list[Demonstration]:
    """Completions to imitate.

    Raises:
        UserError: as all readers here: no such file, wrong columns, a row that does not fit.
    """

    def one(row: Row) -> list[Demonstration]:
        if "messages" in row:
            before, answer = _last_answer(row["messages"])
            return [Demonstration(prompt=_prompt(before, template), completion=answer)]
        prompt = _prompt(row["prompt"], template)
        completion, ended = _completion(row, "completion"), _ended(row, "ended")
        return [Demonstration(prompt=prompt, completion=completion, ended=ended)]

    return converted(source, DEMONSTRATIONS, one)


def read_labels(source: Source, *, template: Template | None = None) -> list[TextLabel]:
    """Preferences, rankings and ratings; a source may hold several kinds."""

    def one(row: Row) -> list[TextLabel]:
        rater = str(row.get("rater") or "")
        if {"chosen", "rejected"} <= set(row):
            prompt, both = _pair(row, template)
            verdict = Preference(second=1 - _probability(row))
            return [TextLabel(prompt=prompt, completions=both, verdict=verdict, rater=rater)]
        prompt = _prompt(row["prompt"], template)
        if {"completions", "ranking"} <= set(row):
            return [_ranking(prompt, row, rater)]
        return [_rating(prompt, row, rater)]

    return converted(source, LABELS, one)


def read_thumbs(source: Source, *, template: Template | None = None) -> list[Thumb]:
    """Completions found good or bad; of a pair the chosen one is good, the other bad."""
    return [thumb for row in read_thumb_rows(source, template=template) for thumb in row]


def read_thumb_rows(source: Source, *, template: Template | None = None) -> list[list[Thumb]]:
    """The same row by row: one, those of a pair, or none of a tie."""

    def one(row: Row) -> list[Thumb]:
        if {"chosen", "rejected"} <= set(row):
            prompt, both = _pair(row, template)
            if _probability(row) == 0.5:  # a tie
                return []
            return [
                Thumb(prompt=prompt, completion=completion, good=good)
                for completion, good in zip(both, (True, False), strict=True)
            ]
        if not isinstance(row["label"], bool):
            raise ValueError(f"label: got {row['label']!r}, wanted true or false")
        completion = Completion(text=_completion(row, "completion"), ended=_ended(row, "ended"))
        prompt = _prompt(row["prompt"], template)
        return [Thumb(prompt=prompt, completion=completion, good=row["label"])]

    return by_row(source, THUMBS, one)


def read_completions(
    source: Source, *, template: Template | None = None
) -> list[tuple[str, Completion]]:
    """(prompt, completion): what was said, without any opinion of it."""

    def one(row: Row) -> list[tuple[str, Completion]]:
        text, ended = _completion(row, "completion"), _ended(row, "ended")
        return [(_prompt(row["prompt"], template), Completion(text=text, ended=ended))]

    return converted(source, (("prompt", "completion"),), one)


def read_prompts(source: Source, *, template: Template | None = None) -> list[str]:
    """What to complete."""

    def one(row: Row) -> list[str]:
        if "messages" in row:
            messages = row["messages"]
            return [_prompt(messages[:-1] if _is_answer(messages) else messages, template)]
        return [_prompt(row["prompt"], template)]

    return converted(source, PROMPTS, one)


def chat_template(tokenizer: Tokenizer) -> Template:
    """The template of a tokenizer that has one.

    Raises:
        UserError: when it is used and there is none.
        ValueError: when it refuses the messages.
    """

    def fill(messages: Sequence[Mapping[str, str]]) -> str:
        if not getattr(tokenizer.backend, "chat_template", None):
            raise UserError(
                "the data hold messages, and the tokenizer has no chat template: give prompts as "
                "strings, or a tokenizer with a template"
            )
        from jinja2 import TemplateError

        try:
            text: str = tokenizer.backend.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ValueError(f"messages: the chat template says: {error}") from error
        return text

    return fill


def write_labels(path: Path, labels: Iterable[TextLabel]) -> None:
    """JSON lines that `read_labels` reads; a preference of one half is kept as one."""
    path.write_text("".join(json.dumps(label_row(label)) + "\n" for label in labels))


def label_row(label: TextLabel) -> dict[str, Any]:
    """As `read_labels` reads it."""
    about = {"prompt": label.prompt, **({"rater": label.rater} if label.rater else {})}
    texts = [completion.text for completion in label.completions]
    ended = [completion.ended for completion in label.completions]
    cut = not all(ended)
    if isinstance(label.verdict, Ranking):
        found: dict[str, Any] = {**about, "completions": texts, "ranking": label.verdict.order}
        return {**found, "ended": ended} if cut else found
    if isinstance(label.verdict, Rating):
        found = {**about, "completion": texts[0], "rating": label.verdict.value}
        return {**found, "ended": False} if cut else found
    second = label.verdict.second
    step = -1 if second > 0.5 else 1
    chosen, rejected = texts[::step]
    soft = {"probability": max(second, 1 - second)} if 0 < second < 1 else {}
    ends = dict(zip(("chosen_ended", "rejected_ended"), ended[::step], strict=True)) if cut else {}
    return {**about, "chosen": chosen, "rejected": rejected, **soft, **ends}


def _prompt(value: Any, template: Template | None) -> str:
    if isinstance(value, str):
        return _said(value, "prompt")
    if not _is_messages(value):
        raise ValueError(f"prompt: got {type(value).__name__}, wanted a string or messages")
    if template is None:
        raise ValueError("prompt: got messages, wanted a string, or a tokenizer with a template")
    return _said(template(value), "prompt")


def _completion(row: Row, name: str) -> str:
    return _text(row[name], name)


def _text(value: Any, name: str) -> str:
    if _is_messages(value):
        value = value[-1]["content"]
    if not isinstance(value, str):
        raise ValueError(f"{name}: got {type(value).__name__}, wanted a string")
    return _said(value, name)


def _said(text: str, name: str) -> str:
    """A text that can be read.

    Raises:
        ValueError: it is empty, or holds half a surrogate pair, which is no character.
    """
    if not text.strip():
        raise ValueError(f"{name}: got an empty one, wanted some text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ValueError(f"{name}: got {half!r}, half a character, wanted Unicode text") from error
    return text


def _probability(row: Row) -> float:
    """That the chosen one is better; 1 where nothing is said of it."""
    sure = row.get("probability", 1.0)
    if isinstance(sure, bool) or not isinstance(sure, int | float) or not 0.5 <= sure <= 1:
        raise ValueError(f"probability: got {sure!r}, wanted .5 to 1 that the chosen is better")
    return float(sure)


def _pair(row: Row, template: Template | None) -> tuple[str, tuple[Completion, Completion]]:
    """Chosen and rejected, whose common messages are the prompt where it is not given."""
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" in row:
        before = row["prompt"]
    elif _is_messages(chosen) and _is_messages(rejected):
        before = chosen[:-1]
        if list(before) != list(rejected[:-1]):
            raise ValueError("chosen and rejected: wanted the same messages before the last")
    else:
        raise ValueError("got no prompt; wanted one, or chosen and rejected as messages")
    both = (
        Completion(text=_text(chosen, "chosen"), ended=_ended(row, "chosen_ended")),
        Completion(text=_text(rejected, "rejected"), ended=_ended(row, "rejected_ended")),
    )
    if both[0] == both[1]:
        raise ValueError("chosen and rejected are the same text")
    return _prompt(before, template), both


def _ended(row: Row, name: str) -> bool:
    """Did a completion end by itself? Yes, where nothing is said of it."""
    value = row.get(name, True)
    if not isinstance(value, bool):
        raise ValueError(f"{name}: got {value!r}, wanted true or false")
    return value


def _ranking(prompt: str, row: Row, rater: str) -> TextLabel:
    """`ranking`: places, best first; a list within it is a tie."""
    completions, ranking = row["completions"], row["ranking"]
    ended = row.get("ended", [True] * len(completions))
    if isinstance(ended, str) or len(ended) != len(completions):
        raise ValueError(f"ended: got {ended!r}, wanted true or false for each completion")
    if isinstance(completions, str):
        raise ValueError(f"completions: got {completions[:40]!r}, wanted a list of texts")
    order = tuple(tuple(g) if isinstance(g, list | tuple) else (g,) for g in ranking)
    texts = tuple(
        Completion(text=_text(text, "completions"), ended=_ended({"ended": end}, "ended"))
        for text, end in zip(completions, ended, strict=True)
    )
    verdict = Ranking(order=order)
    return TextLabel(prompt=prompt, completions=texts, verdict=verdict, rater=rater)


def _rating(prompt: str, row: Row, rater: str) -> TextLabel:
    completion = Completion(text=_completion(row, "completion"), ended=_ended(row, "ended"))
    value = row["rating"]
    if isinstance(value, float) and value.is_integer():  # a column with gaps is one of floats
        value = int(value)
    verdict = Rating(value=value)
    return TextLabel(prompt=prompt, completions=(completion,), verdict=verdict, rater=rater)


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in value)
    )


def _is_answer(messages: Any) -> bool:
    return _is_messages(messages) and messages[-1]["role"] == "assistant"


def _last_answer(messages: Any) -> tuple[Any, str]:
    if not _is_answer(messages) or len(messages) < 2:
        raise ValueError("messages: wanted several with role and content, the assistant's last")
    return messages[:-1], _text(messages[-1]["content"], "messages")
