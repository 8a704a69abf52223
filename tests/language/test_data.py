"""Texts from files and datasets: the field's columns, and what is wrong with a source."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.feedback import Ranking, Rating
from prefrl.language.data import (
    chat_template,
    read_demonstrations,
    read_labels,
    read_prompts,
    read_thumbs,
    write_labels,
)
from prefrl.language.records import Completion, Demonstration, Preference, TextLabel
from tests.language.texts import tokenizer

ASKED = {"role": "user", "content": "hi"}
CHAT = [ASKED, {"role": "assistant", "content": "hello"}]


def template(messages) -> str:
    return "|".join(message["content"] for message in messages)


def lines(path: Path, *rows: dict) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_demonstrations_from_lines_and_from_messages(tmp_path: Path) -> None:
    cut = {"prompt": "p", "completion": "cut", "ended": False}
    path = lines(tmp_path / "d.jsonl", {"prompt": "p", "completion": "c"}, cut, {"messages": CHAT})
    assert read_demonstrations(path, template=template) == [
        Demonstration(prompt="p", completion="c"),
        Demonstration(prompt="p", completion="cut", ended=False),
        Demonstration(prompt="hi", completion="hello"),
    ]


def test_labels_of_all_kinds_from_one_source() -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "probability": 0.75, "rater": "judge"},
        {"prompt": "p", "completions": ["a", "b", "c"], "ranking": [2, [0, 1]]},
        {"prompt": "p", "completion": "a", "rating": 7},
    ]
    found = read_labels(rows)
    assert [label.verdict for label in found] == [
        Preference(second=0.0),
        Preference(second=0.25),
        Ranking(order=((2,), (0, 1))),
        Rating(value=7),
    ]
    assert found[1].rater == "judge"
    assert [len(label.completions) for label in found] == [2, 2, 3, 1]


def test_chosen_and_rejected_chats_share_their_prompt() -> None:
    rejected = [ASKED, {"role": "assistant", "content": "go away"}]
    (label,) = read_labels([{"chosen": CHAT, "rejected": rejected}], template=template)
    assert label.prompt == "hi"
    assert [c.text for c in label.completions] == ["hello", "go away"]
    other = [{"role": "user", "content": "ho"}, rejected[1]]
    with pytest.raises(UserError, match="same messages before the last"):
        read_labels([{"chosen": CHAT, "rejected": other}], template=template)


def test_thumbs_are_labels_or_the_sides_of_a_pair() -> None:
    rows = [
        {"prompt": "p", "completion": "c", "label": False},
        {"prompt": "p", "chosen": "a", "rejected": "b"},
    ]
    found = [(thumb.completion.text, thumb.good) for thumb in read_thumbs(rows)]
    assert found == [("c", False), ("a", True), ("b", False)]


def test_a_tie_is_no_thumb() -> None:
    tie = {"prompt": "p", "chosen": "a", "rejected": "b", "probability": 0.5}
    sure = {"prompt": "p", "chosen": "c", "rejected": "d", "probability": 0.9}
    assert [t.completion.text for t in read_thumbs([tie, sure])] == ["c", "d"]


@pytest.mark.parametrize("sure", [0.2, "0.5", True])
def test_thumbs_want_the_probability_of_labels(sure: object) -> None:
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "probability": sure}
    with pytest.raises(UserError, match=r"row 0: probability: got .*, wanted .5 to 1"):
        read_thumbs([pair])


def test_columns_that_are_whole_say_what_a_row_is_pairs_before_others() -> None:
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    for more in ({"rating": 7}, {"ranking": [1, 0]}, {"completion": "c", "rating": 7}):
        (label,) = read_labels([{**pair, **more}])
        assert label.completions == (Completion(text="a"), Completion(text="b"))
    (rated,) = read_labels([{"prompt": "p", "completion": "c", "rating": 7, "ranking": [0]}])
    assert rated.verdict == Rating(value=7)
    assert len(read_thumbs([{**pair, "label": 1}])) == 2


def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    path = tmp_path / "demos.jsonl"
    path.write_text('{"prompt": "a", "completion": "x\u2028y\x85z"}\r\n', encoding="utf-8")
    assert [d.completion for d in read_demonstrations(path)] == ["x\u2028y\x85z"]


def test_prompts_are_texts_or_chats_without_their_answer() -> None:
    assert read_prompts([{"prompt": "p"}, {"messages": CHAT}], template=template) == ["p", "hi"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    texts = tuple(Completion(text=t) for t in "abc")
    labels = [
        TextLabel(prompt="p", completions=texts[:2], verdict=Preference(second=0.0)),
        TextLabel(prompt="q", completions=texts[:2], verdict=Preference(second=0.5)),
        TextLabel(prompt="q", completions=texts, verdict=Ranking(order=((1,), (0, 2)))),
        TextLabel(prompt="r", completions=texts[:1], verdict=Rating(value=2), rater="ann"),
    ]
    write_labels(tmp_path / "l.jsonl", labels)
    assert read_labels(tmp_path / "l.jsonl") == labels
    turned = TextLabel(prompt="p", completions=texts[:2], verdict=Preference(second=0.9))
    write_labels(tmp_path / "l.jsonl", [turned])
    (back,) = read_labels(tmp_path / "l.jsonl")  # the likelier one is the chosen one
    assert back.completions == texts[1::-1]
    assert back.verdict.second == pytest.approx(0.1)  # type: ignore[union-attr]


def test_parquet_is_read_like_lines(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "messages": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "l.parquet")
    (label,) = read_labels(tmp_path / "l.parquet")
    assert label.completions == (Completion(text="a"), Completion(text="b"))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "l.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow"):
        read_labels(tmp_path / "l.parquet")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "p", "chosen": "a", "rejected": "b"}, "row 1: got no prompt; wanted one"),
        ({"prompt": "p", "choosen": "a", "rejected": "b"}, "chosen: did you mean 'choosen'"),
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "row 1: chosen: got an empty one"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "prompt: got an empty one"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "are the same text"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "prompt: got int, wanted a string"),
        ({"prompt": "p", "chosen": 3, "rejected": "b"}, "chosen: got int, wanted a string"),
        ({"prompt": CHAT[:1], "chosen": "a", "rejected": "b"}, "tokenizer with a template"),
        ({"prompt": "p", "completions": ["a", "b"], "ranking": [0, 0]}, "each of 2 to 9 places"),
        ({"prompt": "p", "completion": "a", "rating": 11}, "wanted 1 to 9"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "probability": 0.2}, "wanted .5 to 1"),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b", "probability": "0.5"},
            "got '0.5', wanted",
        ),
        ({"prompt": "p", "completions": "ab", "ranking": [1, 0]}, "completions: got 'ab', wanted"),
        (
            {"prompt": "p\ud800", "chosen": "a", "rejected": "b"},
            "row 1: prompt: got '.ud800', half",
        ),
        ({"prompt": "p", "chosen": "a", "rejected": "\ud800"}, "row 1: rejected: got '.ud800'"),
    ],
)
def test_a_row_that_does_not_fit_is_named(row: dict, complaint: str) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(UserError, match=complaint):
        read_labels([good, row])


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("none.jsonl", None, "no such file"),
        ("data.csv", "prompt,chosen", r"got .csv, wanted .jsonl or .parquet"),
        ("data.jsonl", "", "got no rows"),
        ("data.jsonl", '{"prompt": "p"', "line 1: not JSON"),
        ("data.jsonl", "[1, 2]", "wanted a JSON object"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, name: str, text: str | None, complaint: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_labels(tmp_path / name)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes('{"prompt": "a"}\n{"prompt": "sch\xf6n"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 2: got the byte 0xf6, wanted UTF-8"):
        read_prompts(path)


def test_messages_that_a_chat_template_refuses_are_named_with_their_row() -> None:
    backend = copy.deepcopy(tokenizer().backend)
    backend.chat_template = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('users first') }}{% endif %}hi"
    )
    chatting = chat_template(dataclasses.replace(tokenizer(), backend=backend))
    with pytest.raises(UserError, match="row 1: messages: the chat template says: users first"):
        read_prompts([{"messages": CHAT}, {"messages": CHAT[1:] * 2}], template=chatting)


def test_messages_need_a_chat_template() -> None:
    with pytest.raises(UserError, match="the tokenizer has no chat template"):
        read_demonstrations([{"messages": CHAT}], template=chat_template(tokenizer()))


def test_a_chat_template_makes_the_prompt_ready_for_an_answer() -> None:
    class Backend:
        chat_template = "some"

        def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
            assert not tokenize
            return "".join(m["content"] for m in messages) + (">" if add_generation_prompt else "")

    chatting = dataclasses.replace(tokenizer(), backend=Backend())
    (found,) = read_demonstrations([{"messages": CHAT}], template=chat_template(chatting))
    assert found == Demonstration(prompt="hi>", completion="hello")


def test_chats_are_pairs_of_thumbs_without_a_prompt_too() -> None:
    def chat(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer}]

    found = read_thumbs(
        [{"chosen": chat("good"), "rejected": chat("bad")}], template=lambda _: "user: hi"
    )
    assert [(x.prompt, x.completion.text, x.good) for x in found] == [
        ("user: hi", "good", True), ("user: hi", "bad", False),
    ]  # fmt: skip


def test_a_dataset_in_parts_and_rows_without_names_are_refused() -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(UserError, match="got a mapping of train, test; wanted one of its parts"):
        read_labels({"train": [row], "test": [row]})
    with pytest.raises(UserError, match="row 0: got str, wanted columns by name"):
        read_labels(["x"])  # type: ignore[list-item]


def test_a_rating_in_a_column_with_gaps_is_a_whole_float() -> None:
    row = {"prompt": "p", "completion": "a", "rating": 7.0}
    assert read_labels([row])[0].verdict == Rating(value=7)
    with pytest.raises(UserError, match=r"got 7\.5"):
        read_labels([row | {"rating": 7.5}])


@pytest.mark.parametrize(
    "verdict",
    [Preference(second=1.0), Preference(second=0.2), Ranking(order=((1,), (0,))), Rating(value=3)],
)
def test_what_was_cut_off_is_still_cut_off_when_read_again(
    tmp_path: Path, verdict: Preference | Ranking | Rating
) -> None:
    texts = (Completion(text="cut", ended=False), Completion(text="whole"))
    texts = texts[:1] if isinstance(verdict, Rating) else texts
    label = TextLabel(prompt="p", completions=texts, verdict=verdict)
    write_labels(tmp_path / "labels.jsonl", [label])
    (read,) = read_labels(tmp_path / "labels.jsonl")
    assert {c.text: c.ended for c in read.completions} == {c.text: c.ended for c in texts}


def test_an_end_that_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(UserError, match="chosen_ended: got 'no', wanted true or false"):
        read_labels([{"prompt": "p", "chosen": "a", "rejected": "b", "chosen_ended": "no"}])
    ranked = {"prompt": "p", "completions": ["a", "b"], "ranking": [0, 1], "ended": [True]}
    with pytest.raises(UserError, match=r"ended: got \[True\], wanted true or false for each"):
        read_labels([ranked])
