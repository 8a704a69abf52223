"""`prefrl lm ppo` and `prefrl lm generate`, on very small models."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefrl.cli import main
from prefrl.commands import lm_generate, lm_ppo
from prefrl.commands.lm_policy import draw
from prefrl.commands.lm_ppo import Judgement, LmPPOConfig
from prefrl.errors import UserError
from prefrl.language.models import ScalarModel, load_model, new_model, save_model
from prefrl.language.records import Completion
from prefrl.language.reward import TextRewardConfig, TextRewardModel, score_texts
from prefrl.language.tasks import find_text_task
from prefrl.language.tokenizer import Tokenizer, train_tokenizer
from prefrl.language.trainer import LanguageTrainer
from prefrl.loop.metrics import read_metrics
from tests.language.small import config

QUICK = (
    "--task reviews --batch 8 --threads 1 --lm.updates 3 --lm.max-tokens 6 --lm.ppo.lr 1e-2 "
    "--lm.ppo.epochs 1 --lm.ppo.minibatches 2 --checkpoint-every 1 --offline"
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SFT model and a reward model as their stages leave them, untrained."""
    root = tmp_path_factory.mktemp("ppo")
    tokenizer = find_text_task("reviews").tokenizer()
    policy = new_model("llama", tokenizer, width=16, layers=1, heads=2, positions=32, seed=0)
    save_model(policy, tokenizer, root / "sft" / "model")
    reward = TextRewardModel.from_sft(policy, TextRewardConfig(), seed=0)
    (root / "reward" / "model").mkdir(parents=True)
    reward.save(root / "reward" / "model", tokenizer)
    return root


def run(parts: Path, out: Path, *more: str) -> None:
    lm_ppo.main(
        [*QUICK.split(), "--model", str(parts / "sft"), "--reward", str(parts / "reward"),
         "--out", str(out), *more],
        prog="prefrl lm ppo",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(parts: Path) -> Path:
    run(parts, parts / "whole", "--lm.pretraining", "0.1")
    return parts / "whole"


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def test_a_run_holds_its_settings_figures_checkpoints_picture_and_model(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert {"config.toml", "provenance.json", "metrics.jsonl", "checkpoints", "model"} <= names
    assert (whole / "report" / "learning.png").stat().st_size > 10_000
    rows = read_metrics(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"lm/score", "lm/gold", "lm/kl", "lm/beta", "ppo/pretraining_loss"} <= set(rows[0])
    assert rows[0]["lm/kl"] == pytest.approx(0, abs=1e-6)
    assert rows[0]["ppo/first_ratio_deviation"] < 1e-5


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    parts: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = parts / "stopped"
    update = LanguageTrainer.update

    def once(of: LanguageTrainer, *args: Any) -> dict[str, float]:
        if of.step == 2:
            raise KeyboardInterrupt
        return update(of, *args)

    monkeypatch.setattr(LanguageTrainer, "update", once)
    with pytest.raises(KeyboardInterrupt):
        run(parts, out, "--lm.pretraining", "0.1")
    monkeypatch.undo()
    assert not (out / "model").exists()
    run(parts, out, "--lm.pretraining", "0.1")
    first, second = weights(whole), weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [row["step"] for row in read_metrics(out / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize("what", ["prompts", "pretraining", "model", "reward"])
def test_a_run_does_not_go_on_with_other_inputs(
    parts: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str, *words: str) -> Path:
        rows = [{"prompt": "review :", "completion": word} for word in words]
        (tmp_path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return tmp_path / name

    shutil.copytree(parts / "sft", tmp_path / "sft")
    shutil.copytree(parts / "reward", tmp_path / "reward")
    prompts, texts = write("prompts.jsonl", "good"), write("texts.jsonl", "good", "bad")
    command = [
        *QUICK.split()[2:], "--data", str(prompts), "--pretraining-data", str(texts),
        "--lm.pretraining", ".1", "--model", str(tmp_path / "sft"), "--reward",
        str(tmp_path / "reward"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(LanguageTrainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lm_ppo.main(command, prog="prefrl lm ppo")
    if what == "prompts":
        prompts.write_text('{"prompt": "the review :"}\n')
    elif what == "pretraining":
        write("texts.jsonl", "good", "good")
    else:
        file = next((tmp_path / {"model": "sft"}.get(what, what)).rglob("*.safetensors"))
        save_file({k: v + 1 for k, v in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"began with other inputs than there are now .{what}"):
        lm_ppo.main(command, prog="prefrl lm ppo")


def interrupted(*args: Any) -> dict[str, float]:
    raise KeyboardInterrupt


def test_a_finished_run_has_nothing_left_to_do(parts: Path, whole: Path) -> None:
    before = (whole / "metrics.jsonl").read_text()
    run(parts, whole, "--lm.pretraining", "0.1")
    assert (whole / "metrics.jsonl").read_text() == before


def test_other_settings_in_the_same_directory_are_refused(parts: Path, whole: Path) -> None:
    with pytest.raises(UserError, match=r"lm\.beta was 0\.05, now 0\.2"):
        run(parts, whole, "--lm.pretraining", "0.1", "--lm.beta", "0.2")


def test_groups_of_completions_are_compared_without_a_critic(parts: Path, tmp_path: Path) -> None:
    run(parts, tmp_path / "g", "--lm.advantage", "rloo", "--lm.samples", "4", "--lm.updates", "1")
    names = load_file(next((tmp_path / "g" / "checkpoints").glob("*/policy.safetensors")))
    assert not any(name.startswith(("critic", "value_head")) for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "6", "--lm.samples", "4"], r"batch: got 6 completions, wanted a multiple"),
        (["--reward", "nowhere"], "no tokenizer at 'nowhere'"),
        (["--model", "nowhere"], "no tokenizer at 'nowhere'"),
        (
            ["--reward", "gold", "--lm.max-tokens", "31"],
            r"prompt \d+: got \d tokens, wanted at most 1",
        ),
        (["--seed", "-1"], "seed: got -1, wanted 0 or more"),
        (["--device", "gpu"], "device: got .gpu., wanted auto, cpu, cuda or cuda:N"),
        (["--threads", "-1"], "threads: got -1, wanted 0 or more"),
        (["--batch", "1"], r"lm\.ppo\.minibatches: got 2, wanted at most 1, the batch"),
        (
            ["--lm.advantage", "grpo", "--lm.samples", "2", "--lm.critic", "shared"],
            "critic: got shared, with grpo, which has none",
        ),
        (["--lm.kl-horizon", "9"], "kl_horizon: got 9, with no kl_target"),
        (["--lm.lora-alpha", "9"], "lora_alpha: got 9, with lora_rank 0"),
        (["--lm.lora-alpha", "0", "--lm.lora-rank", "2"], "lora_alpha: got 0, wanted more than 0"),
        (["--lm.pretraining-batch", "9"], "pretraining_batch: got 9, with pretraining 0"),
        (["--lm.missing-eos-value", "1"], "missing_eos_value: got 1.0, wanted 0 or less"),
        (["--lm.missing-eos-value", "nan"], "missing_eos_value: got nan, wanted a number"),
        (
            ["--lm.missing-eos", "keep", "--lm.missing-eos-value", "-2"],
            "missing_eos_value: got -2.0, with missing_eos keep",
        ),
        (["--lm.beta", "nan"], "beta: got nan, wanted 0 or more"),
        (["--lm.temperature", "inf"], "temperature: got inf, wanted more than 0"),
        (["--lm.kl-target", "-1"], r"kl_target: got -1\.0, wanted more than 0"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_created(
    parts: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(parts, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["words", "bytes"])
def test_a_reward_model_with_too_few_positions_is_refused_before_anything_is_created(
    parts: Path, tmp_path: Path, kind: Any
) -> None:
    words = find_text_task("reviews").tokenizer()
    own = words if kind == "words" else train_tokenizer(["the film is :"], kind=kind)
    policy = new_model("gpt2", own, width=16, layers=1, heads=2, positions=16, seed=0)
    made = TextRewardModel.from_sft(policy, TextRewardConfig(), seed=0)
    made.save(tmp_path, own)
    with pytest.raises(UserError, match=r"reward: got 16 positions, wanted \d\d: the longest"):
        run(parts, tmp_path / "out", "--reward", str(tmp_path), "--lm.max-tokens", "20")
    assert not (tmp_path / "out").exists()
    cut = [("film is", Completion(text="good " * 20, ended=False))]  # as another tokenizer's may be
    with pytest.raises(UserError, match="reward: got 16 positions, wanted"):
        score_texts(made, own, cut)


def test_the_gold_reward_can_be_the_baseline(parts: Path, tmp_path: Path) -> None:
    run(parts, tmp_path / "out", "--reward", "gold", "--lm.updates", "1")
    (row,) = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert row["lm/score"] == pytest.approx(row["lm/gold"], rel=1e-5)


def judgement(parts: Path, tokenizer: Tokenizer) -> Judgement:
    settings = LmPPOConfig(model="x", reward=str(parts / "reward"), task="reviews")
    return Judgement.of(settings, None, tokenizer)


def test_a_reward_model_may_have_a_tokenizer_of_its_own(parts: Path) -> None:
    task = find_text_task("reviews")
    same, other = task.tokenizer(), train_tokenizer(["the film is : good bad"], kind="bytes")
    own = judgement(parts, other)
    assert judgement(parts, same).tokenizer is None
    assert own.tokenizer is not None
    assert own.critic() is None
    model = new_model("llama", other, width=16, layers=1, heads=2, positions=64, seed=0)
    trainer = LanguageTrainer(model, other, config(max_tokens=4), seed=0)
    batch = trainer.read(other.completions(["the film is :"] * 2, ["good", "bad"]))
    with torch.no_grad():
        scores = judgement(parts, same).learned.score(  # type: ignore[union-attr]
            same.completions(["the film is :"] * 2, ["good", "bad"])
        )
    torch.testing.assert_close(own.scores(batch), scores)


def test_the_same_words_with_another_end_are_another_tokenizer(parts: Path) -> None:
    same = find_text_task("reviews").tokenizer()
    assert judgement(parts, dataclasses.replace(same, eos=same.bos)).tokenizer is not None
    assert judgement(parts, dataclasses.replace(same, bos=same.eos)).tokenizer is not None


def test_the_critic_begins_on_the_scale_of_the_learned_reward(parts: Path) -> None:
    task = find_text_task("reviews")
    mine = judgement(parts, task.tokenizer())
    assert mine.learned is not None
    mine.learned.mean.fill_(3.0)
    mine.learned.std.fill_(2.0)
    critic = mine.critic()
    assert isinstance(critic, ScalarModel)
    texts = task.tokenizer().completions(["the film is :"], ["good"])
    with torch.no_grad():
        torch.testing.assert_close(critic.at_end(texts), mine.learned.score(texts))


def test_prompts_of_an_update_depend_on_seed_and_step_alone() -> None:
    prompts = [str(i) for i in range(50)]
    settings = LmPPOConfig(batch=20)
    assert draw(prompts, settings, step=3) == draw(prompts, settings, step=3)
    assert draw(prompts, settings, step=3) != draw(prompts, settings, step=4)
    assert len(set(draw(prompts, settings, step=0))) == 20


def test_generate_writes_a_row_for_each_completion(parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "said.jsonl"
    args = ["--model", str(parts / "sft"), "--prompt", "the film is :", "--samples", "3"]
    args += ["--max-tokens", "5", "--offline", "--out", str(out)]
    lm_generate.main(args, prog="prefrl lm generate")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(row) for row in rows] == [{"prompt", "completion", "ended"}] * 3
    assert rows[0]["prompt"] == "the film is :"
    with pytest.raises(UserError, match="nothing is overwritten"):
        lm_generate.main(args, prog="prefrl lm generate")


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_generated(
    parts: Path, tmp_path: Path
) -> None:
    about = ["--model", str(parts / "nowhere"), "--prompt", "the film is :"]
    out = tmp_path / "none" / "x.jsonl"
    with pytest.raises(UserError, match=r"out: got .*x.jsonl, wanted a file in a folder"):
        lm_generate.main([*about, "--out", str(out)], prog="prefrl lm generate")


def test_the_exported_model_speaks_as_the_policy_does(whole: Path) -> None:
    tokenizer = find_text_task("reviews").tokenizer()
    assert load_model(whole / "model", tokenizer, offline=True).config.hidden_size == 16


def test_the_group_lists_its_stages_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lm", "--help"]) == 0
    assert "best-of-n" in capsys.readouterr().out
    assert main(["lm", "pop"]) == 2
    assert "unknown stage 'pop'; did you mean 'ppo'?" in capsys.readouterr().err
