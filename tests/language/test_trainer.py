"""The step-level trainer: exact accumulation, exact resume, and what it refuses."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.config import LanguageConfig, language_ppo
from prefrl.language.models import ScalarModel, load_model, logprobs, new_model
from prefrl.language.pretraining import pretraining_texts
from prefrl.language.tasks import find_text_task
from prefrl.language.terms import TextExperience
from prefrl.language.trainer import LanguageTrainer
from prefrl.ppo import PPOConfig
from tests.language.small import config, equal, model, texts, tokenizer, weights

PROMPTS = ["a b c", "d", "e f", "g"] * 4
CORPUS = ["a b c d e", "f g h", "i j a b"]


def trainer(seed: int = 0, **changes: Any) -> LanguageTrainer:
    settings = config(**changes)
    corpus = CORPUS if settings.pretraining else ()
    return LanguageTrainer(model(), tokenizer(), settings, seed=seed, pretraining=corpus)


def count_a(batch: TextExperience) -> list[int]:
    """A reward that any Python function may be."""
    return [text.split().count("a") for text in batch.completions]


def run(of: LanguageTrainer, updates: int) -> list[dict[str, float]]:
    figures = []
    for _ in range(updates):
        batch = of.collect(PROMPTS)
        figures.append(of.update(batch, count_a(batch)))
    return figures


def test_any_python_function_can_be_the_reward_and_is_learned() -> None:
    of = trainer(updates=30, beta=0.0, lr=2e-2, minibatches=1)
    figures = run(of, 25)
    assert figures[-1]["lm/score"] > figures[0]["lm/score"] + 1
    assert [f["ppo/first_ratio_deviation"] < 1e-5 for f in figures] == [True] * 25
    assert figures[0]["lm/kl"] == pytest.approx(0, abs=1e-6)
    assert figures[-1]["lm/kl"] > 0.5


def test_what_was_said_is_shown_as_text() -> None:
    batch = trainer(samples=2).collect(["a b", "c"])
    assert batch.prompts == ("a b", "a b", "c", "c")
    assert len(batch.completions) == 4
    said = batch.rollout.inputs
    assert batch.ended.tolist() == (said.completion == tokenizer().eos).any(1).tolist()  # type: ignore[attr-defined]


def test_prompts_are_shown_as_they_were_given_special_tokens_and_all() -> None:
    made = trainer(samples=2, advantage="rloo")
    asked = ["<bos> a b", "c"]
    assert made.collect(asked).prompts == ("<bos> a b", "<bos> a b", "c", "c")
    ids = tokenizer().prompts(asked)
    assert made.collect(ids).prompts == ("a b", "a b", "c", "c")


@pytest.mark.parametrize(
    "changes",
    [
        {"pretraining": 0.5},
        {"critic": "shared"},
        {"advantage": "rloo", "samples": 2},
        {"pretraining": 0.5, "kl_target": 0.1, "kl_horizon": 50},
    ],
)
def test_a_resumed_run_is_the_run_left_alone_bit_for_bit(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    alone = trainer(**changes)
    whole = run(alone, 3)
    first = trainer(**changes)
    run(first, 1)
    first.save(tmp_path)
    second = trainer(**changes)
    assert second.resume(tmp_path)
    assert second.step == 1
    assert run(second, 2) == whole[1:]
    assert equal(weights(second.policy), weights(alone.policy))


def test_checkpoints_hold_tensors_and_json_only(tmp_path: Path) -> None:
    of = trainer()
    run(of, 1)
    names = {path.name for path in of.save(tmp_path).iterdir()}
    assert names == {"policy.safetensors", "trainer.safetensors", "state.json", "manifest.json"}


def test_without_a_checkpoint_nothing_is_resumed(tmp_path: Path) -> None:
    assert not trainer().resume(tmp_path)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    trainer(critic="shared").save(tmp_path)
    with pytest.raises(UserError, match="checkpoint of another model or other settings"):
        trainer(critic="separate").resume(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_number_changes_nothing(bad: float) -> None:
    of = trainer()
    batch, before = of.collect(PROMPTS), weights(of.policy)
    with pytest.raises(UserError, match="for completion 3"):
        of.update(batch, [0.0] * 3 + [bad] + [0.0] * 12)
    assert equal(weights(of.policy), before)
    assert of.step == 0
    of.update(batch, [1.0] * 16)  # and it goes on


@pytest.mark.parametrize("changes", [{}, {"critic": "shared"}, {"pretraining": 0.5}])
def test_one_chunk_of_eight_is_eight_chunks_of_one(changes: dict[str, Any]) -> None:
    # 16 completions of unequal length in 2 minibatches of 8
    def gradients(chunk: int | None) -> list[Tensor]:
        of = trainer(chunk=chunk, epochs=1, lr=1e-9, **changes)
        batch = of.collect(PROMPTS)
        assert len(set(batch.rollout.mask.sum(1).tolist())) > 1
        of.update(batch, count_a(batch))
        return [p.grad for p in of.ppo.gradient.parameters if p.grad is not None]

    whole, pieces = gradients(None), gradients(1)
    assert sum(g.abs().sum() for g in whole) > 0
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)


def test_the_pretraining_term_keeps_the_loss_on_its_texts_low() -> None:
    def loss(gamma: float) -> float:
        of = trainer(pretraining=gamma, updates=12, lr=1e-2)
        run(of, 8)
        said = tokenizer().completions([""], ["a b c d e"])
        return -logprobs(of.policy.model, said).sum().item()

    assert loss(1.0) < 0.5 * loss(0.0)


def test_demonstrations_become_the_ids_that_sft_makes_of_them() -> None:
    reads = tokenizer()
    prompt, completion = CORPUS[0].split(" ", 1)
    whole = pretraining_texts([(prompt, completion)], reads, limit=99)
    wanted = [*reads.encode_prompt(prompt), *reads.encode_completion(completion)]
    assert [*whole.prompt[0].tolist(), *whole.completion[0].tolist()] == wanted


def test_a_pretraining_term_without_texts_is_refused() -> None:
    with pytest.raises(UserError, match=r"pretraining: got the weight 0\.5 and no texts"):
        LanguageTrainer(model(), tokenizer(), config(pretraining=0.5), seed=0)


def test_a_separate_critic_is_a_copy_of_the_reward_model() -> None:
    reward_model = ScalarModel(model(seed=5), generator=torch.Generator().manual_seed(0))
    before = weights(reward_model)
    of = LanguageTrainer(model(), tokenizer(), config(), seed=0, critic=reward_model)
    batch = of.collect(PROMPTS)
    said = batch.rollout.inputs
    wanted = reward_model.before_each_token(said)  # type: ignore[arg-type]
    torch.testing.assert_close(
        batch.rollout.value, torch.where(batch.rollout.mask, wanted, 0.0).detach()
    )
    of.update(batch, count_a(batch))
    assert equal(weights(reward_model), before)


@pytest.mark.filterwarnings("ignore")
def test_with_lora_only_adapters_learn_and_the_export_has_them_merged(tmp_path: Path) -> None:
    base = model()
    before = weights(base)
    settings = config(lora_rank=2, critic="shared", lr=5e-2)
    of = LanguageTrainer(base, tokenizer(), settings, seed=0)
    run(of, 2)
    kept = [p for n, p in of.policy.named_parameters() if not p.requires_grad]
    assert equal([p.detach() for p in kept], before)
    assert of.collect(PROMPTS).k1.abs().max() > 1e-4
    of.export(tmp_path)
    loaded = load_model(tmp_path, tokenizer(), offline=True)
    mine = logprobs(of.policy.model, texts())
    torch.testing.assert_close(logprobs(loaded, texts()), mine, rtol=1e-4, atol=1e-5)


def test_missing_ends_cost_what_the_rule_says() -> None:
    # the policy is cut off after one token, which is hardly ever the end
    of = trainer(max_tokens=1, missing_eos="replace", missing_eos_value=-3.0, beta=0.0)
    batch = of.collect(PROMPTS)
    figures = of.update(batch, [1.0] * 16)
    share = batch.ended.float().mean().item()
    assert figures["lm/reward"] == pytest.approx(share - 3 * (1 - share), abs=1e-5)
    assert figures["lm/score"] == 1


def test_the_step_size_anneals_over_the_planned_updates() -> None:
    of = trainer(updates=2, lr=1e-2)
    assert [f["ppo/lr"] for f in run(of, 2)] == pytest.approx([1e-2, 5e-3])


def test_a_prompt_too_long_for_the_model_is_refused_before_anything_is_said() -> None:
    with pytest.raises(UserError, match=r"max_tokens: got 32, wanted less than 32, the positions"):
        trainer(max_tokens=32).check_room(["a"])
    few = new_model("gpt2", tokenizer(), width=16, heads=2, positions=8, seed=0)
    critic = ScalarModel(few, generator=torch.Generator())
    of = LanguageTrainer(model(), tokenizer(), config(), seed=0, critic=critic)
    with pytest.raises(UserError, match="critic: got 8 positions, wanted 10: the longest prompt"):
        of.check_room(["a b c d"])  # with <bos> 5, and 5 more
    with pytest.raises(UserError, match=r"wanted at most 32, the positions of the model"):
        trainer().collect(["a " * 40])


def test_one_text_is_not_a_list_of_prompts() -> None:
    with pytest.raises(UserError, match="got the text 'a b', wanted a sequence"):
        trainer().collect("a b")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature: got 0.0, wanted more than 0"),
        ({"advantage": "rloo"}, "samples: got 1, wanted 2 or more: rloo compares"),
        (
            {"advantage": "rloo", "samples": 2, "ppo": replace(language_ppo(), lam=0.9)},
            "ppo.lam: got 0.9, with rloo, which has no critic",
        ),
        (
            {"advantage": "grpo", "samples": 2, "ppo": replace(language_ppo(), value_coef=1.0)},
            "ppo.value_coef: got 1.0, with grpo, which has no critic",
        ),
        ({"max_tokens": 0}, "max_tokens: got 0, wanted 1 or more, or none"),
        (
            {"advantage": "grpo", "samples": 2, "ppo": PPOConfig(normalise="minibatch")},
            "ppo.normalise: got minibatch, with grpo",
        ),
        ({"beta": -1.0}, "beta: got -1.0, wanted 0 or more"),
        ({"kl_target": 0.0}, "kl_target: got 0.0"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"missing_eos": "subtract"}, "missing_eos_value: got -1.0, wanted 0 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        LanguageConfig(**settings)


def test_what_the_doctor_found_is_kept_with_the_run(tmp_path: Path) -> None:
    of = trainer(beta=0.0)
    batch = of.collect(PROMPTS)
    of.policy.sampling = type(of.policy.sampling)(temperature=3.0)
    of.update(batch, count_a(batch))
    assert [finding.name for finding in of.findings] == ["ratio"]
    state = json.loads((of.save(tmp_path) / "state.json").read_text())
    assert state["findings"][0]["name"] == "ratio"


def test_completions_are_as_long_as_those_of_the_task() -> None:
    task, plain = find_text_task("reviews"), LanguageConfig()
    assert (plain.cap, plain.of_task(None).cap, plain.of_task(task).cap) == (48, 48, 20)
    assert LanguageConfig(max_tokens=6).of_task(task).cap == 6
