"""`prefrl lm judge`: soft labels by a constitution, begun again where they stopped."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from prefrl.cli import main
from prefrl.feedback import Answer, Comparison, FeedbackStore
from prefrl.language.data import read_labels
from prefrl.language.forms import ask
from prefrl.language.judge import QUESTION, Judge, Pair, read_constitution
from prefrl.language.models import new_model, save_model
from prefrl.language.records import Completion, Preference, TextLabel
from prefrl.language.tokenizer import train_tokenizer

CONSTITUTION = """
[[principle]]
name = "kind"
text = "Prefer what is kind."

[[principle]]
name = "short"
text = "Prefer what is short."
weight = 3
"""
SAID = [
    ("film is", "good"), ("film is", "very bad"), ("book is", "good"), ("book is", "good"),
    ("film is", "kind"), ("film is", "short"), ("book is", "bad"), ("film is", "left alone"),
    ("book is", "kind"),
]  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Path:
    words = " ".join(text for pair in SAID for text in pair)
    tokenizer = train_tokenizer([QUESTION + CONSTITUTION + words + " 1 2"], kind="words")
    model = new_model("llama", tokenizer, width=16, layers=1, heads=2, positions=96, seed=0)
    save_model(model, tokenizer, tmp_path / "lm")
    (tmp_path / "rules.toml").write_text(CONSTITUTION)
    rows = [{"prompt": p, "completion": c, "ended": c != "short"} for p, c in SAID]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(room: Path, *more: str, out: str = "labels.jsonl") -> int:
    about = {"model": "lm", "constitution": "rules.toml", "data": "said.jsonl", "out": out}
    options = [x for name, file in about.items() for x in (f"--{name}", str(room / file))]
    return main(["lm", "judge", *options, "--offline", "--device", "cpu", *more])


def test_pairs_of_a_prompt_become_soft_labels(room: Path) -> None:
    assert run(room) == 0
    assert not (room / "labels.jsonl.part").exists()
    labels = read_labels(room / "labels.jsonl")
    texts = [{c.text for c in label.completions} for label in labels]
    assert texts == [{"good", "very bad"}, {"kind", "short"}, {"bad", "kind"}]
    assert [label.prompt for label in labels] == ["film is", "film is", "book is"]
    assert {c.text for x in labels for c in x.completions if not c.ended} == {"short"}
    assert all(isinstance(x.verdict, Preference) and 0 < x.verdict.second < 1 for x in labels)
    rows = [json.loads(line) for line in (room / "labels.jsonl").read_text().splitlines()]
    assert all(row["rater"][:3] == "lm-" and row["principle"] in ("kind", "short") for row in rows)


def test_all_principles_may_be_mixed(room: Path) -> None:
    assert run(room, "--mode", "mix") == 0
    assert "principle" not in json.loads((room / "labels.jsonl").read_text().splitlines()[0])


def test_a_stopped_judge_goes_on_to_the_same_bytes(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(room, "--batch", "2", out="whole.jsonl") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "probs", stopping_after(1))
        with pytest.raises(SystemExit, match="143"):
            run(room, "--batch", "2")
    assert "stopped: the same command goes on from" in capsys.readouterr().err
    assert run(room, "--batch", "2") == 0
    assert (room / "labels.jsonl").read_bytes() == (room / "whole.jsonl").read_bytes()
    (room / "labels.jsonl").unlink()
    labels, asked = Judge.labels, []

    def interrupted(of: Judge, pairs: list[Pair]) -> list[TextLabel]:
        asked.append(len(pairs))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return labels(of, pairs)

    monkeypatch.setattr(Judge, "labels", interrupted)
    assert run(room, "--batch", "2") != 0
    part = room / "labels.jsonl.part"
    assert len(part.read_text().splitlines()) == 3  # what it was begun with, and one batch
    part.write_text(part.read_text() + (room / "whole.jsonl").read_text().splitlines()[0] + "\n")
    part.write_text(part.read_text() + '{"prompt": "torn')  # half a batch, half a line
    (room / "rules.toml").write_text(CONSTITUTION.replace("weight = 3", "weight = 4"))
    assert run(room, "--batch", "2") == 2
    assert "was begun with another model, constitution, batch or data" in capsys.readouterr().err
    (room / "rules.toml").write_text(CONSTITUTION)
    assert run(room, "--batch", "1") == 2
    assert "was begun with another model, constitution, batch or data" in capsys.readouterr().err
    assert run(room, "--batch", "2") == 0
    assert asked == [2, 1, 1]
    assert (room / "labels.jsonl").read_bytes() == (room / "whole.jsonl").read_bytes()
    assert run(room) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_a_store_is_judged_and_goes_on_where_it_stopped(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = [x for name, file in (("model", "lm"), ("constitution", "rules.toml"))
             for x in (f"--{name}", str(room / file))]  # fmt: skip
    command = ["lm", "judge", *about, "--store", str(room / "run"), "--offline", "--device", "cpu"]
    command += ["--batch", "1"]
    pairs = [("film is", "good", "very bad"), ("book is", "bad", "kind"), ("film is", "x", "y")]
    asked = [(p, (Completion(text=a), Completion(text=b))) for p, a, b in pairs]
    with FeedbackStore.create(room / "run", task="mine", seed=0) as store:
        queries = ask(store, asked, step=0)
        person = Answer(id="1", query=queries[2].id, rater="ann", reply=Comparison(choice="first"))
        store.submit_many([person])
        with monkeypatch.context() as patch:
            patch.setattr(Judge, "probs", stopping_after(1))
            with pytest.raises(SystemExit, match="143"):
                main(command)
        assert len(store.labels(after=0)) == 2
        assert main(command) == 0
        assert main([*command, "--answered"]) == 0
        assert main([*command, "--answered"]) == 0
        answers = {x.query.id: x for x in store.feedback() if x.rater[:3] == "lm-"}
        assert set(answers) == {query.id for query in queries}
        assert [answers[q.id].status for q in queries] == ["ok", "ok", "extra"]
        assert all(0 < x.comparison.target < 1 for x in answers.values())  # type: ignore[operator]
    said = capsys.readouterr().err
    assert "was asked 2 comparisons: 1 ok\n" in said
    assert "no comparison that lm-" in said
    (room / "rules.toml").write_text(CONSTITUTION.replace("weight = 3", "weight = 4"))
    assert main([*command, "--answered", "--batch", "2"]) == 0
    assert "was asked 3 comparisons: 3 extra\n" in capsys.readouterr().err
    assert main(["raters", str(room / "run")]) == 0
    assert "lm" in capsys.readouterr().out


def stopping_after(count: int) -> Any:
    """A judge's answer, after so many of which a signal comes."""
    original, said = Judge.probs, []

    def judged(of: Judge, pairs: list[Pair]) -> list[float]:
        said.append(pairs)
        if len(said) == count:
            signal.raise_signal(signal.SIGTERM)
        return original(of, pairs)

    return judged


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--store", "run", "--data", "said.jsonl"), "store: got it with --data or --out, wanted"),
        (("--answered",), "answered: got it without --store, wanted a run"),
        ((), "wanted --data FILE and --out FILE, or --store RUN"),
        (("--data", "x.jsonl"), "out: wanted --out"),
    ],
)
def test_a_judge_of_a_file_or_of_a_store(
    options: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lm", "judge", "--model", "lm", "--constitution", "rules.toml", *options]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "got nothing, wanted tables [[principle]] and nothing else"),
        ("[[principal]]\nname = 'a'", "got principal, wanted tables [[principle]]"),
        ("[[principle]]\nname = 'a'", "principle 0: got name, wanted name, text"),
        ("[[principle]]\nname = 'a'\ntext = 3", "principle 0: wanted name and text in quotes"),
        ("[[principle]]\nname = 'a'\ntext = 'b'\nweight = '1'", "got the weight '1', wanted a num"),
        ("[[principle]]\nname = 'a'\ntext = 'b'\nweight = 0", "got weight 0.0, wanted above 0"),
        ("[[principle]", "is not valid TOML"),
    ],
)
def test_a_constitution_that_is_none_is_refused(
    room: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (room / "rules.toml").write_text(text)
    assert run(room) == 2
    assert complaint in capsys.readouterr().err
    assert not (room / "labels.jsonl.part").exists()


def test_a_question_beyond_the_model_s_positions_is_refused_before_any_is_asked(
    room: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [*SAID, ("the end", "good " * 90), ("the end", "bad")]
    rows = [{"prompt": p, "completion": c} for p, c in said]
    (room / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(room, "--batch", "1") == 2
    assert "question about 'the end' has" in capsys.readouterr().err
    assert not (room / "labels.jsonl.part").exists()


def test_nothing_to_compare_is_refused(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (room / "said.jsonl").write_text('{"prompt": "p", "completion": "a"}\n' * 2)
    assert run(room) == 2
    assert "no prompt with two different completions" in capsys.readouterr().err


def test_principles_are_read_with_their_weights(room: Path) -> None:
    kind, short = read_constitution(room / "rules.toml")
    assert (kind.name, kind.weight, short.text, short.weight) == (
        "kind", 1.0, "Prefer what is short.", 3.0,
    )  # fmt: skip
