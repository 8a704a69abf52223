"""`prefrl lm online`: labels about the policy as it is, round by round."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefrl.cli import main
from prefrl.commands import lm_online
from prefrl.commands.lm_online import Online, OnlineConfig
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Desk, FeedbackStore
from prefrl.language.models import new_model, save_model
from prefrl.language.reward import load_text_reward
from prefrl.language.tasks import find_text_task
from prefrl.language.trainer import LanguageTrainer
from prefrl.loop.metrics import read_metrics

QUICK = (
    "--task reviews --rounds 3 --annotator.labels 13 --optim.epochs 1 --optim.batch 4 "
    "--reference-samples 8 --batch 8 --threads 1 --device cpu --lm.updates 6 --lm.max-tokens 6 "
    "--lm.ppo.lr 1e-2 --lm.ppo.epochs 1 --lm.ppo.minibatches 2 --checkpoint-every 2 --offline"
)


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("online") / "sft"
    tokenizer = find_text_task("reviews").tokenizer()
    policy = new_model("llama", tokenizer, width=16, layers=1, heads=2, positions=64, seed=0)
    save_model(policy, tokenizer, root / "model")
    return root


def run(sft: Path, out: Path, *more: str) -> None:
    command = [*QUICK.split(), "--model", str(sft), "--out", str(out), *more]
    lm_online.main(command, prog="prefrl lm online")


@pytest.fixture(scope="module")
def whole(sft: Path) -> Path:
    run(sft, sft.parent / "whole")
    return sft.parent / "whole"


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def answers(out: Path) -> list[tuple[str, str]]:
    with FeedbackStore.open(out) as store:
        return [(x.query.id, repr(x.reply)) for x in store.labels(after=0)]


def test_each_round_asks_about_the_policy_as_it_is_and_fits_to_all_answers(whole: Path) -> None:
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["lm/round"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert [row["feedback/labels"] for row in rows] == [4, 4, 8, 8, 13, 13]
    assert {"lm/score", "lm/gold", "lm/kl", "ppo/loss"} <= set(rows[0])
    with FeedbackStore.open(whole) as store:
        steps = [query.policy_step for query in store.queries()]
    assert {step: steps.count(step) for step in steps} == {0: 4, 2: 4, 4: 5}
    heads = [load_text_reward(whole / f"reward-{r}").members[0].head.weight for r in range(3)]
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])
    assert (whole / "report" / "learning.png").stat().st_size > 10_000


@pytest.mark.parametrize("where", ["update", "submit", "fit"])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    sft: Path, whole: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def breaking(of: type, name: str, at: int) -> None:
        original = getattr(of, name)

        def once(*args: Any, **named: Any) -> Any:
            calls.append(0)
            if len(calls) == at:
                raise KeyboardInterrupt
            return original(*args, **named)

        monkeypatch.setattr(of, name, once)

    breaking(*{
        "update": (LanguageTrainer, "update", 4),
        "submit": (FeedbackStore, "submit_many", 2),
        "fit": (Online, "_fit", 3),
    }[where])  # fmt: skip
    out = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        run(sft, out)
    assert not (out / "model").exists()
    run(sft, out)
    assert answers(out) == answers(whole)
    first, second = weights(whole), weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_people_are_waited_for_in_every_round(sft: Path, tmp_path: Path) -> None:
    out, human = tmp_path / "people", ("--annotator.rater", "human", "--rounds", "2")
    for asked in (6, 7):
        with pytest.raises(UserError, match=rf"of 2: {asked} answers are missing: `prefrl rate"):
            run(sft, out, *human)
        with FeedbackStore.open(out) as store, Desk(store, rater="ann") as desk:
            store.set_instructions("Choose what is kind.")
            for one in desk.take(20):
                desk.submit(one, Comparison(choice="first"), None)
    run(sft, out, *human)
    with FeedbackStore.open(out) as store:
        assert store.instructions().version == 2  # the stock sentence was the first
    assert (out / "model").is_dir()
    assert [row["lm/round"] for row in read_metrics(out / "metrics.jsonl")] == [0] * 3 + [1] * 3


def test_people_answer_about_prompts_of_one_s_own(sft: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"prompt": "film is :"}) + "\n")
    options = QUICK.replace("--task reviews", f"--data {mine}").split()
    options += ["--limits.max-prompt", "8", "--limits.max-completion", "20", "--rounds", "1"]
    out = tmp_path / "out"
    command = [*options, "--annotator.rater", "human", "--model", str(sft), "--out", str(out)]
    with pytest.raises(UserError, match=r"max_tokens: got 21, wanted at most 20, limits"):
        lm_online.main([*command, "--lm.max-tokens", "21"], prog="prefrl lm online")
    with pytest.raises(UserError, match="13 answers are missing"):
        lm_online.main(command, prog="prefrl lm online")
    with FeedbackStore.open(out) as store, Desk(store, rater="ann") as desk:
        assert store.task == "mine"
        for one in desk.take(20):
            desk.submit(one, Comparison(choice="first"), None)
    lm_online.main(command, prog="prefrl lm online")
    assert (out / "model").is_dir()
    assert "lm/gold" not in read_metrics(out / "metrics.jsonl")[-1]
    mine.write_text(json.dumps({"prompt": "book is :"}) + "\n")
    (out / "model").rename(tmp_path / "model")
    with pytest.raises(UserError, match=r"began with other inputs .*prompts"):
        lm_online.main(command, prog="prefrl lm online")


def test_rankings_are_asked_for_too(sft: Path, tmp_path: Path) -> None:
    run(sft, tmp_path / "k", "--annotator.completions", "4", "--lm.updates", "3")
    with FeedbackStore.open(tmp_path / "k") as store:
        assert {query.form for query in store.queries()} == {"ranking"}


def test_rounds_share_updates_and_labels() -> None:
    config = OnlineConfig(rounds=3)
    assert [config.begins(r) for r in range(3)] == [0, 66, 133]
    assert sum(config.labels(r) for r in range(3)) == config.annotator.labels


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--rounds 7", "rounds: got 7, wanted at most one for each of the 6 updates and 13"),
        ("--annotator.labels 2", "rounds: got 3, wanted at most"),
        ("--batch 9 --lm.samples 2", "batch: got 9 completions, wanted a multiple"),
        ("--annotator.rater rubric", "annotator.rater: got rubric for 2 completions of reviews"),
        ("--reward.no-normalise", "reference_samples: got 8, with reward.normalise off"),
        ("--lm.shard", "lm.shard: got it, but this stage is of one process"),
        ("--lm.pretraining .1", "lm.pretraining: got a weight"),
        ("--lm.max-tokens 63", "model: got 64 positions, wanted"),
        ("--reward.members 2", "annotator.labels: got 4, wanted 10 or more for 2 members"),
        ("--seed -1", "seed: got -1, wanted 0 or more"),
        ("--device gpu", "device: got 'gpu', wanted auto"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_created(
    sft: Path, tmp_path: Path, options: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*QUICK.split(), "--model", str(sft), "--out", str(tmp_path / "out"), *options.split()]
    assert main(["lm", "online", *argv]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_store_says_who_answered(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(whole), "--to", "jsonl", "--out", str(whole / "a.jsonl")]) == 0
    rows = [json.loads(line) for line in (whole / "a.jsonl").read_text().splitlines()]
    assert {row["rater"] for row in rows} == {"annotator"}
    assert len(rows) == 13
