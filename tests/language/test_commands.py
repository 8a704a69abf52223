"""`prefrl lm sft|reward|dpo|best-of-n|eval`, one after the other, on very small models."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefrl.cli import main
from prefrl.commands import lm_best_of_n, lm_dpo, lm_eval, lm_reward, lm_sft
from prefrl.commands.lm_raters import AnnotatorConfig, Questions, ask_about
from prefrl.commands.lm_source import model_in
from prefrl.commands.lm_stage import held_out_split
from prefrl.errors import UserError
from prefrl.feedback import (
    Answer,
    Comparison,
    Desk,
    Edit,
    FeedbackStore,
    Query,
    Rating,
    Reply,
    answer_id,
    read_text,
)
from prefrl.language import evaluate
from prefrl.language.forms import ask
from prefrl.language.models import new_model, save_model
from prefrl.language.optimise import Fit
from prefrl.language.records import Completion
from prefrl.language.reward import TextRewardConfig, TextRewardModel, load_text_reward
from prefrl.language.tasks import find_text_task
from prefrl.language.tokenizer import Tokenizer, load_tokenizer
from prefrl.loop.metrics import read_metrics

SMALL = "--new.width 16 --new.layers 1 --new.heads 2 --new.positions 32"
SFT = f"--task reviews --demonstrations 120 --optim.epochs 1 --optim.batch 32 {SMALL}"
LABELS = "--task reviews --annotator.labels 40 --optim.epochs 1 --optim.batch 16"


def run(command, options: str, *more: object) -> None:
    command.main([*options.split(), *map(str, more)], prog="prefrl lm")


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lm") / "sft"
    run(lm_sft, SFT, "--out", out)
    return out


@pytest.fixture(scope="module")
def reward(sft: Path) -> Path:
    out = sft.with_name("reward")
    run(lm_reward, LABELS, "--reward.members", 2, "--model", sft, "--out", out)
    return out


def test_a_run_of_sft_holds_its_settings_figures_picture_and_model(sft: Path) -> None:
    names = {path.name for path in sft.iterdir()}
    assert {"config.toml", "provenance.json", "metrics.jsonl", "checkpoints", "model"} <= names
    assert (sft / "report" / "learning.png").stat().st_size > 10_000
    rows = read_metrics(sft / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1]["fit/held_out_loss"] < rows[0]["fit/held_out_loss"]
    assert load_tokenizer(sft / "model").eos is not None


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    sft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Fit.advance

    def stop(fit: Fit) -> dict[str, float]:
        if fit.step == 1:  # the second step is taken, then it stops
            signal.raise_signal(signal.SIGTERM)
        return advance(fit)

    monkeypatch.setattr(Fit, "advance", stop)
    with pytest.raises(SystemExit) as left:
        run(lm_sft, SFT, "--out", tmp_path / "again")
    assert left.value.code == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert [row["step"] for row in read_metrics(tmp_path / "again" / "metrics.jsonl")] == [0, 1, 2]
    assert not (tmp_path / "again" / "model").exists()
    run(lm_sft, SFT, "--out", tmp_path / "again")
    whole, stopped = weights(sft), weights(tmp_path / "again")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_the_reward_model_is_normalised_and_comes_back(reward: Path) -> None:
    made = load_text_reward(reward / "model")
    assert len(made.members) == 2
    assert made.std.min() > 0
    assert (made.mean != 0).all()
    rows = read_metrics(reward / "metrics.jsonl")
    # 36 labels are fitted on, about as many drawn for each member: some 3 batches of 16
    assert 2 * 2 <= rows[-1]["step"] <= 2 * 4
    assert 0 <= rows[-1]["fit/held_out_accuracy"] <= 1


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_a_direct_method_gives_a_policy(sft: Path, tmp_path: Path, loss: str) -> None:
    run(lm_dpo, LABELS, "--direct.loss", loss, "--model", sft, "--out", tmp_path / loss)
    before, after = weights(sft), weights(tmp_path / loss)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / loss / "report" / "learning.png").exists()


def test_labels_about_the_same_completions_are_held_out_together() -> None:
    about = ["a", "a", "b", "c", "a", "d"]
    for seed in range(10):
        train, aside = held_out_split(about, 0.3, seed=seed)
        assert sorted(train + aside) == list(range(6))
        assert not {about[i] for i in train} & {about[i] for i in aside}
        assert len(aside) == 2  # the three about "a" would be too many
    assert held_out_split(["a"], 0.5, seed=0) == ([0], [])
    assert held_out_split([*"aaaabb"], 0.1, seed=0) == ([0, 1, 2, 3], [4, 5])
    assert held_out_split(range(4), 0.0, seed=0) == ([0, 1, 2, 3], [])


def test_prompts_dropped_as_too_long_are_no_reference(sft: Path, tmp_path: Path) -> None:
    good, bad = "good " * 3, "bad " * 3
    row = {"chosen": good, "rejected": bad}
    rows = [{"prompt": f"food {'good ' * (i % 3)}", **row} for i in range(12)]
    rows.append({"prompt": "bad " * 40, **row})
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    limits = "--limits.max-prompt 8 --limits.max-completion 8 --limits.too-long drop"
    options = f"--optim.epochs 1 --optim.batch 4 --reference-samples 30 {limits}"
    out = tmp_path / "reward"
    run(lm_reward, options, "--model", sft, "--data", tmp_path / "labels.jsonl", "--out", out)
    assert (out / "model").is_dir()


def test_an_annotator_answers_in_the_store_of_the_run(
    sft: Path, reward: Path, tmp_path: Path
) -> None:
    with FeedbackStore.open(reward) as store:
        assert [x.rater for x in store.labels(after=0)] == ["annotator"] * 40
        assert store.instructions().text
    about = ("--model", sft, "--store", reward, "--out", tmp_path / "dpo")
    run(lm_dpo, "--optim.epochs 1 --optim.batch 16", *about)
    assert (tmp_path / "dpo" / "model").is_dir()


@pytest.mark.parametrize("where", ["add_queries", "submit_many"])
def test_an_annotator_who_was_cut_short_says_the_same(
    sft: Path, reward: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*_: object) -> None:
        raise KeyboardInterrupt

    about = (LABELS, "--reward.members", 2, "--model", sft, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(FeedbackStore, where, cut_short)
        with pytest.raises(KeyboardInterrupt):
            run(lm_reward, *about)
    run(lm_reward, *about)
    whole, again = tensors(reward), tensors(tmp_path / "out")
    assert whole
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_rubric_s_probabilities_are_in_the_store(tmp_path: Path) -> None:
    task, how = find_text_task("docstrings"), AnnotatorConfig(rater="rubric")
    better, worse = Completion(text="Return twice the number x."), Completion(text="y " * 20)
    about = Questions.of_task(task)
    with FeedbackStore.create(tmp_path, task=task.name, seed=0) as store:
        ask(store, [("def double(x):", (better, worse))], step=0)
        reads, policy = task.tokenizer(), torch.nn.Identity()  # nothing is left to write
        ask_about(store, how, about, policy, reads, count=1, step=0, seed=(0, 0))
        (label,) = store.labels(after=0)
    assert label.comparison.choice == "first"
    assert 0 < label.comparison.target < 0.5


def stopped_after(steps: int, monkeypatch: pytest.MonkeyPatch, command, *about: object) -> None:
    """Run a fit of one member, and stop it."""
    advance = Fit.advance

    def stop(fit: Fit) -> dict[str, float]:
        if fit.step == steps - 1:
            signal.raise_signal(signal.SIGTERM)
        return advance(fit)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "advance", stop)
        with pytest.raises(SystemExit):
            run(command, *about)


def tensors(out: Path) -> dict[str, torch.Tensor]:
    files = sorted((out / "model").rglob("*.safetensors"))
    return {f"{path.parent.name} {k}": v for path in files for k, v in load_file(path).items()}


def say(store: FeedbackStore, query: Query, choice: Any, *, instead: str = "") -> None:
    id = answer_id(query.id, "ann") + instead[:1]
    reply = Comparison(choice=choice)
    store.submit_many([Answer(id=id, query=query.id, rater="ann", reply=reply, supersedes=instead)])


@pytest.mark.parametrize(
    ("command", "options"),
    [(lm_reward, "--reference-samples 20"), (lm_dpo, ""), (lm_dpo, "--direct.loss kto")],
)
def test_a_fit_goes_on_with_the_answers_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command, options: str
) -> None:
    model, _ = untrained(tmp_path)
    questions = [
        ("food", (Completion(text="good " * (i + 1)), Completion(text="bad " * (i + 1))))
        for i in range(6)
    ]
    options += " --optim.epochs 4 --optim.batch 4 --limits.max-prompt 8 --limits.max-completion 8"
    about = (options, "--model", model, "--store", tmp_path, "--out")
    with FeedbackStore.create(tmp_path, task="reviews", seed=0) as store:
        asked = ask(store, questions, step=0)
        for query in asked[:4]:
            say(store, query, "first")
        say(store, asked[0], "second", instead=answer_id(asked[0].id, "ann"))
        run(command, *about, tmp_path / "whole")
        stopped_after(2, monkeypatch, command, *about, tmp_path / "stopped")
        say(store, asked[1], "second", instead=answer_id(asked[1].id, "ann"))
        for query in asked[4:]:
            say(store, query, "first")
    run(command, *about, tmp_path / "stopped")
    whole, stopped = tensors(tmp_path / "whole"), tensors(tmp_path / "stopped")
    assert whole
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_people_s_answers_are_those_the_fit_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = untrained(tmp_path)
    command = "--task reviews --annotator.rater human --annotator.labels 4 --optim.batch 2"
    out = tmp_path / "people"
    about = (f"{command} --reference-samples 20", "--model", model, "--out", out)
    with pytest.raises(UserError, match="0 of 4 answers are there"):
        run(lm_reward, *about)
    with FeedbackStore.open(out) as store:
        asked = list(store.queries())
        for query in asked:
            say(store, query, "first")
        stopped_after(1, monkeypatch, lm_reward, *about)
        with store.writing():
            store.ledger.undo(answer_id(asked[0].id, "ann"), rater="ann", time=None)
    run(lm_reward, *about)
    assert (out / "model").is_dir()


@pytest.mark.parametrize("command", [lm_sft, lm_reward, lm_dpo])
def test_a_fit_does_not_go_on_with_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    model, _ = untrained(tmp_path)
    texts = [{"prompt": "food", "chosen": "good " * (i + 1), "rejected": "bad"} for i in range(6)]
    texts = [{**text, "completion": text["chosen"]} for text in texts]
    data = rows(tmp_path / "data.jsonl", *texts)
    options = "--optim.epochs 4 --optim.batch 4 --limits.max-prompt 8 --limits.max-completion 8"
    about = (options, "--model", model, "--data", data, "--out", tmp_path / "out")
    stopped_after(2, monkeypatch, command, *about)
    before = (tmp_path / "out" / "metrics.jsonl").read_text()
    rows(data, *texts[::-1])
    with pytest.raises(UserError, match=r"began with other inputs .*examples.* another --out"):
        run(command, *about)
    assert (tmp_path / "out" / "metrics.jsonl").read_text() == before
    rows(data, *texts)
    run(command, *about)
    assert (tmp_path / "out" / "model").is_dir()


PAIRS = [{"prompt": "food", "chosen": "good " * (i % 4 + 1), "rejected": "bad"} for i in range(8)]
SHORT = "--optim.batch 4 --limits.max-prompt 8 --limits.max-completion 8"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("command", "options"),
    [
        (lm_sft, ""),
        (lm_reward, "--reward.members 2 --reference-samples 8"),
        (lm_dpo, ""),
        (lm_dpo, "--direct.loss kto"),
    ],
)
def test_with_lora_adapters_alone_learn_are_merged_and_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command, options: str
) -> None:
    model, _ = untrained(tmp_path)
    data = rows(tmp_path / "data.jsonl", *({**pair, "completion": "good"} for pair in PAIRS))
    options += f" {SHORT} --optim.epochs 2 --optim.lora-rank 2 --optim.lr 1e-2"
    about = (options, "--model", model, "--data", data, "--out")
    run(command, *about, tmp_path / "whole")
    stopped_after(1, monkeypatch, command, *about, tmp_path / "stopped")
    run(command, *about, tmp_path / "stopped")
    whole, stopped = tensors(tmp_path / "whole"), tensors(tmp_path / "stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    before = load_file(model / "model.safetensors")
    for name, learned in whole.items():
        name = name.partition(" ")[2]
        assert "lora" not in name
        base = before.get(name, before.get(f"model.{name}"))
        if base is not None:
            assert torch.equal(learned, base) == ("proj" not in name)


@pytest.mark.parametrize("command", [lm_sft, lm_reward, lm_dpo])
def test_bf16_is_arithmetic_only(tmp_path: Path, command) -> None:
    model, _ = untrained(tmp_path)
    data = rows(tmp_path / "data.jsonl", *({**pair, "completion": "good"} for pair in PAIRS))
    about = (f"{SHORT} --optim.epochs 2", "--model", model, "--data", data)
    for precision in ("fp32", "bf16"):
        run(command, *about, "--optim.precision", precision, "--out", tmp_path / precision)
    exact, rounded = (read_metrics(tmp_path / p / "metrics.jsonl") for p in ("fp32", "bf16"))
    for a, b in zip(exact, rounded, strict=True):
        for name in ("fit/loss", "fit/held_out_loss"):
            assert a.get(name, 0) == pytest.approx(b.get(name, 0), rel=0.02)
    assert exact[-1]["fit/loss"] != rounded[-1]["fit/loss"]
    assert {x.dtype for x in tensors(tmp_path / "bf16").values()} == {torch.float32}


def test_a_fit_does_not_go_on_with_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = untrained(tmp_path)
    data = rows(tmp_path / "data.jsonl", *PAIRS)
    about = (
        f"{SHORT} --optim.epochs 4",
        "--model",
        model,
        "--data",
        data,
        "--out",
        tmp_path / "out",
    )
    stopped_after(2, monkeypatch, lm_dpo, *about)
    began = tmp_path / "out" / "inputs.json"
    began.rename(tmp_path / "inputs.json")
    with pytest.raises(UserError, match="was begun by an older prefrl"):
        run(lm_dpo, *about)
    (tmp_path / "inputs.json").rename(began)
    reads = find_text_task("reviews").tokenizer()
    other = new_model("llama", reads, width=16, layers=1, heads=2, positions=32, seed=1)
    save_model(other, reads, model)
    with pytest.raises(UserError, match=r"began with other inputs .*model.* another --out"):
        run(lm_dpo, *about)


def one_too_long(path: Path) -> tuple[Path, int]:
    """Twelve pairs, the too long one where all that is held out would lie; and its row."""
    row = held_out_split(range(12), 0.01, seed=0)[1][0]
    pairs = [{"prompt": "food", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(12)]
    pairs[row]["chosen"] = "good " * 40
    return rows(path, *pairs), row


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_what_is_too_long_is_left_out_before_the_held_out_part_is_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loss: str
) -> None:
    model, _ = untrained(tmp_path)
    data, row = one_too_long(tmp_path / "labels.jsonl")
    options = f"--direct.loss {loss} --held-out 0.01 --optim.epochs 1 --optim.batch 8 "
    options += "--limits.max-prompt 8 --limits.max-completion 8"
    about = ("--model", model, "--data", data, "--out", tmp_path / "out")
    with pytest.raises(UserError, match=f"example {row}, 'food': the completion"):
        run(lm_dpo, options, *about)
    run(lm_dpo, f"{options} --limits.too-long drop", *about)
    assert "1 of 12 examples are too long" in caplog.text


def test_a_policy_with_another_tokenizer_speaks_with_its_own(
    sft: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoke: list[tuple[int, int]] = []
    sample = evaluate.sample

    def watched(model: Any, prompts: Any, *, tokenizer: Tokenizer, **about: Any) -> Any:
        spoke.append((model.get_input_embeddings().num_embeddings, tokenizer.size))
        return sample(model, prompts, tokenizer=tokenizer, **about)

    monkeypatch.setattr(evaluate, "sample", watched)
    other = tmp_path / "docs"
    small = "--new.width 16 --new.layers 1 --new.heads 2"
    run(lm_sft, f"--task docstrings --demonstrations 40 --optim.epochs 1 {small}", "--out", other)
    out = tmp_path / "eval"
    run(lm_eval, "--task reviews --samples 20", "--model", sft, "--against", other, "--out", out)
    found = json.loads((out / "evaluation.json").read_text())
    (ours, read), (theirs, other_read) = spoke
    assert (ours, theirs) == (read, other_read)
    assert ours != theirs
    assert "kl" not in found
    assert "wins" in found
    assert "another tokenizer" in caplog.text


def test_the_loss_on_texts_of_one_s_own_is_reported(sft: Path, tmp_path: Path) -> None:
    prompts = rows(tmp_path / "prompts.jsonl", {"prompt": "film is :"})
    texts = rows(tmp_path / "texts.jsonl", {"prompt": "film is :", "completion": "very good"})
    about = ("--model", sft, "--data", prompts, "--samples", 4, "--max-completion", 8)
    run(lm_eval, "", *about, "--held-out-data", texts, "--out", tmp_path / "eval")
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["held_out_loss"] > 0
    with pytest.raises(UserError, match="held_out_data: got a file, but a task holds out its own"):
        run(lm_eval, "--task reviews", "--model", sft, "--held-out-data", texts)


def test_best_of_n_and_evaluation_write_what_they_found(
    sft: Path, reward: Path, tmp_path: Path
) -> None:
    about = f"--model {sft} --reward {reward} --task reviews"
    run(lm_best_of_n, about, "--samples", 8, "--prompts", 3, "--out", tmp_path / "best")
    rows = json.loads((tmp_path / "best" / "best_of_n.json").read_text())
    assert [row["n"] for row in rows] == [1, 2, 4, 8]
    learned = [row["learned"] for row in rows]
    assert learned == sorted(learned)
    assert len((tmp_path / "best" / "chosen.jsonl").read_text().splitlines()) == 3

    run(lm_eval, about, "--against", sft, "--samples", 24, "--out", tmp_path / "eval")
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["kl"] == 0  # to itself
    assert {"gold", "learned", "wins", "length", "held_out_loss"} <= set(found)
    low, high = found["gold_interval"]
    assert low < found["gold"] < high


@pytest.mark.parametrize("stage", [lm_reward, lm_dpo])
def test_people_are_asked_about_prompts_of_one_s_own(tmp_path: Path, stage) -> None:
    model, _ = untrained(tmp_path)
    mine = rows(tmp_path / "mine.jsonl", {"prompt": "food is"}, {"prompt": "film " * 20})
    options = f"{SHORT} --limits.too-long drop --annotator.labels 4 --optim.epochs 1"
    about = ("--model", model, "--prompts", mine, "--out", tmp_path / "people")
    with pytest.raises(UserError, match="got annotator, who judges by what a task knows; wanted h"):
        run(stage, options, *about)
    assert not (tmp_path / "people").exists()
    human = f"{options} --annotator.rater human"
    with pytest.raises(UserError, match="0 of 4 answers are there"):
        run(stage, human, *about)
    other = ("--model", tmp_path / "other", *about[2:])
    save_model(new_model("llama", find_text_task("reviews").tokenizer(), width=16, layers=1,
                         heads=2, positions=32, seed=1),
               find_text_task("reviews").tokenizer(), tmp_path / "other")  # fmt: skip
    with pytest.raises(UserError, match=r"belongs to a run with other settings"):
        run(stage, human, *other)
    (tmp_path / "policy").rename(tmp_path / "mine")
    (tmp_path / "other").rename(tmp_path / "policy")
    with pytest.raises(UserError, match=r"began with other inputs .*model"):
        run(stage, human, *about)
    (tmp_path / "policy").rename(tmp_path / "other")
    (tmp_path / "mine").rename(tmp_path / "policy")
    with FeedbackStore.open(tmp_path / "people") as store:
        assert store.instructions().text == "Choose the text that you like better."
        store.set_instructions("Choose what is kind.")
        assert {store.prompt(query.id) for query in store.queries()} == {"food is"}
        assert {segment.true_reward.item() for segment in store.segments()} == {0.0}
        assert store.task == "mine"
        for query in store.queries():
            say(store, query, "first")
    run(stage, human, *about)
    assert (tmp_path / "people" / "model").is_dir()
    with FeedbackStore.open(tmp_path / "people") as store:
        assert store.instructions().text == "Choose what is kind."


@pytest.mark.parametrize("stage", [lm_reward, lm_dpo])
def test_people_are_asked_and_the_same_command_goes_on(sft: Path, tmp_path: Path, stage) -> None:
    command = "--task reviews --annotator.rater human --annotator.labels 4 --optim.epochs 1"
    about = ("--model", sft, "--out", tmp_path / "people")
    with pytest.raises(UserError, match=r"0 of 4 answers are there: `prefrl rate .*people`"):
        run(stage, command, *about)
    with FeedbackStore.open(tmp_path / "people") as store:
        store.submit_many(
            [
                Answer(id=answer_id(q.id, "ann"), query=q.id, rater="ann",
                       reply=Comparison(choice="first"))
                for q in store.queries()
            ]
        )  # fmt: skip
    run(stage, command, *about)
    assert (tmp_path / "people" / "model").is_dir()


def test_what_everybody_has_passed_over_is_not_waited_for_in_vain(
    sft: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "--task reviews --annotator.rater human --annotator.labels 4 --optim.epochs 1"
    about = ("--model", sft, "--out", tmp_path / "people")
    with pytest.raises(UserError, match="0 of 4 answers are there: "):
        run(lm_reward, command, *about)
    with FeedbackStore.open(tmp_path / "people") as store, Desk(store, rater="ann") as desk:
        one, *others = desk.take(4)
        desk.submit(one, Comparison(choice="first"), None)
        for other in others:
            desk.skip(other)
    with pytest.raises(UserError, match=r"1 of 4 answers .* passed over .* --store .*people"):
        run(lm_reward, command, *about)
    assert main(["clips", str(tmp_path / "people")]) == 2
    assert "is about texts, of which there are no films" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "settings", "reply"),
    [("rating", "", Rating(value=7)), ("edit", "--annotator.edit", Edit(text="very good"))],
)
def test_people_rate_and_correct_single_texts(
    sft: Path, tmp_path: Path, form: str, settings: str, reply: Reply
) -> None:
    command = "--task reviews --annotator.rater human --annotator.completions 1 "
    command += f"--annotator.labels 4 --optim.epochs 1 {settings}"
    about = ("--model", sft, "--out", tmp_path / "people")
    with pytest.raises(UserError, match="0 of 4 answers are there"):
        run(lm_reward, command, *about)
    with FeedbackStore.open(tmp_path / "people") as store:
        assert {q.form for q in store.queries()} == {form}
        store.submit_many(
            [
                Answer(id=answer_id(q.id, "ann"), query=q.id, rater="ann", reply=reply)
                for q in store.queries()
            ]
        )
    run(lm_reward, command, *about)
    assert load_text_reward(tmp_path / "people" / "model").std.item() > 0


def test_edits_that_change_nothing_are_said_to_prefer_nothing(sft: Path, tmp_path: Path) -> None:
    command = "--task reviews --annotator.rater human --annotator.completions 1 --annotator.edit "
    about = ("--model", sft, "--out", tmp_path / "people", "--annotator.labels", 2)
    with pytest.raises(UserError, match="0 of 2 answers"):
        run(lm_reward, command, *about)
    with FeedbackStore.open(tmp_path / "people") as store:
        for q in store.queries():
            text = read_text(store.segment(q.segments[0]).clip)
            assert text is not None
            reply = Edit(text=text.completion)
            store.submit_many([Answer(id=q.id, query=q.id, rater="ann", reply=reply)])
    with pytest.raises(UserError, match="all 2 are answered, and no answer prefers anything"):
        run(lm_reward, command, *about)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ("--annotator.completions 1", "annotator.completions: got 1"),
        ("--annotator.edit --annotator.rater human", "annotator.edit: got 2 completions"),
    ],
)
def test_only_people_rate_and_correct_single_texts(
    sft: Path, tmp_path: Path, settings: str, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        run(lm_reward, f"--task reviews {settings}", "--model", sft, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def untrained(root: Path, *, positions: int = 32) -> tuple[Path, Path]:
    """A policy, and a reward model of so many positions, as checkpoints."""
    reads = find_text_task("reviews").tokenizer()
    about: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "seed": 0}
    save_model(new_model("llama", reads, positions=32, **about), reads, root / "policy")
    scores = new_model("gpt2", reads, positions=positions, **about)
    (root / "scores").mkdir()
    TextRewardModel.from_sft(scores, TextRewardConfig(), seed=0).save(root / "scores", reads)
    return root / "policy", root / "scores"


def rows(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("command", "row", "complaint"),
    [
        (lm_reward, {"prompt": "film is :", "winner": "good"}, "got columns prompt, winner"),
        (lm_reward, {"prompt": "p", "chosen": " ", "rejected": "bad"}, "chosen: got an empty one"),
        (lm_dpo, {"prompt": "film " * 600, "chosen": "a", "rejected": "b"}, "has 601 tokens"),
        (lm_sft, {"prompt": "film is :"}, "wanted prompt, completion"),
    ],
)
def test_bad_data_is_refused_before_anything_is_created(
    sft: Path, tmp_path: Path, command, row: dict, complaint: str
) -> None:
    data = rows(tmp_path / "data.jsonl", row)
    limits = ("--limits.max-prompt", 16, "--limits.max-completion", 16)
    with pytest.raises(UserError, match=complaint):
        run(command, "", "--model", sft, "--data", data, *limits, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "options", "complaint"),
    [
        (lm_sft, "--new.width 12", "new.width: got 12, wanted a multiple of 8"),
        (lm_sft, "--new.layers 0", "new.layers: got 0, wanted 1 or more"),
        (lm_sft, "--demonstrations 0", "demonstrations: got 0, wanted 1 or more"),
        (lm_sft, "--demonstrations 9 --held-out 1", "held_out: got 1.0, wanted 0 to below 1"),
        (lm_sft, "--demonstrations 9 --checkpoint-every 0", "checkpoint_every: got 0, wanted 1"),
        (lm_reward, "--model x --held-out 1", "held_out: got 1.0, wanted 0 to below 1"),
        (lm_dpo, "--model x --checkpoint-every 0", "checkpoint_every: got 0, wanted 1 or more"),
        (lm_dpo, "--annotator.rater rubric", "got rubric for 2 completions of reviews, wanted"),
        (lm_dpo, "--annotator.rater human --annotator.completions 1", "got 1, a rating, to which"),
        (lm_reward, "--reward.members 5 --annotator.labels 9", "labels: got 9, wanted 10 or more"),
        (lm_reward, "--model x --annotator.labels 0", "annotator.labels: got 0, wanted 1 or more"),
        (lm_dpo, "--model x --annotator.completions 7", "annotator.completions: got 7, wanted 2"),
        (lm_reward, "--reference-samples 1", "reference_samples: got 1, wanted 2 or more"),
        (lm_reward, "--annotator.rater human --annotator.flips 0.1", "annotator.flips: got 0.1, "),
        (lm_dpo, "--annotator.rater rubric --annotator.temperature 2", "temperature: got 2.0, "),
        (
            lm_dpo,
            "--model x --limits.max-prompt 9",
            "max_prompt: got 9, with the task reviews",
        ),
        (
            lm_reward,
            "--reward.no-normalise --reference-samples 9",
            "got 9, with reward.norm",
        ),
        (lm_dpo, "--direct.noise .2", "noise: got 0.2, with dpo, not cdpo or robust: it has"),
        (
            lm_dpo,
            "--direct.bad-weight 2",
            "bad_weight: got 2.0, with dpo, not kto: it has no effect",
        ),
        (lm_dpo, "--direct.loss kto --direct.bad-weight -1", "bad_weight: got -1.0, wanted 0 or"),
        (lm_sft, "--optim.lora-alpha 8", "lora_alpha: got 8, with lora_rank 0: it has no effect"),
        (lm_sft, "--optim.epochs inf", "epochs: got inf, wanted a finite number"),
        (lm_sft, "--device gpu", "device: got 'gpu', wanted auto, cpu, cuda or cuda:N"),
        (lm_reward, "--model x --device gpu", "device: got 'gpu', wanted auto, cpu"),
        (lm_dpo, "--model x --device gpu", "device: got 'gpu', wanted auto, cpu"),
        (lm_eval, "--model x --device gpu", "device: got 'gpu', wanted auto, cpu"),
        (lm_best_of_n, "--model x --reward y --device gpu", "device: got 'gpu', wanted auto"),
        (lm_reward, "", "no model: wanted --model RUN"),
        (lm_dpo, "", "no model: wanted --model RUN"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_created(
    tmp_path: Path, command, options: str, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        run(command, f"--task reviews {options}", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["{here}/sft", "./sft", "runs/sft", "a/b/c", "sft/"])
def test_a_folder_that_is_not_there_is_named_without_asking_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    path = path.format(here=tmp_path)
    with pytest.raises(UserError, match=f"no folder {path}: wanted a run directory"):
        model_in(path)


@pytest.mark.parametrize("name", ["gpt2", "owner/model"])
def test_a_name_that_may_be_a_hub_s_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_in(name) == name


@pytest.mark.parametrize("command", [lm_best_of_n, lm_eval])
def test_texts_beyond_the_positions_of_a_model_are_refused_before_anything_is_created(
    tmp_path: Path, command
) -> None:
    model, scores = untrained(tmp_path, positions=16)
    about = ("--samples 2 --max-completion", 31, "--model", model, "--reward", scores)
    data = rows(tmp_path / "p.jsonl", {"prompt": "food"})
    to = ("--out", tmp_path / "out")
    with pytest.raises(UserError, match=r"model: got 32 positions, wanted 33: the longest"):
        run(command, about[0], *about[1:], "--data", data, *to)
    with pytest.raises(UserError, match=r"reward: got 16 positions, wanted 24: the longest"):
        run(command, "--task reviews --samples 2", *about[2:], *to)
    assert not (tmp_path / "out").exists()


def test_one_sample_has_no_interval(tmp_path: Path) -> None:
    model, scores = untrained(tmp_path)
    about = ("--model", model, "--reward", scores, "--out", tmp_path / "out")
    run(lm_eval, "--task reviews --samples 1", *about)
    text = (tmp_path / "out" / "evaluation.json").read_text()
    assert "Infinity" not in text
    assert json.loads(text)["learned_interval"] is None


def test_what_does_not_fit_is_said(sft: Path, tmp_path: Path) -> None:
    for other in ("--store", "--prompts"):
        with pytest.raises(UserError, match="wanted one source of labels"):
            run(lm_reward, "--task reviews", "--model", sft, other, tmp_path)
    with pytest.raises(UserError, match="a new one, which knows nothing"):
        run(lm_dpo, "--task reviews --model llama")
    data = rows(tmp_path / "d.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"})
    with pytest.raises(UserError, match="the model has 32 positions"):
        run(lm_reward, "", "--model", sft, "--data", data)
    with pytest.raises(UserError, match="exists and is not empty"):
        run(lm_eval, "--task reviews", "--model", sft, "--out", sft)


@pytest.mark.parametrize(
    ("command", "options", "complaint"),
    [
        (lm_reward, "--annotator.rater human", "annotator.rater: got human, with data or a store"),
        (lm_dpo, "--annotator.labels 3", "annotator.labels: got 3, with data or a store, whose"),
        (lm_sft, "--demonstrations 3", "demonstrations: got 3, with data, of which all are"),
        (lm_sft, "--new.width 16", r"new.width: got 16, with .*, which is there already"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(
    sft: Path, tmp_path: Path, command, options: str, complaint: str
) -> None:
    row = {"prompt": "film is :", "chosen": "good", "rejected": "bad", "completion": "good"}
    about = ("--model", sft, "--data", rows(tmp_path / "data.jsonl", row))
    with pytest.raises(UserError, match=complaint):
        run(command, options, *about, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
