"""The doctor names what is wrong and why, and says nothing about what is right."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from prefrl.language import doctor
from prefrl.language.collect import generate
from prefrl.language.encoded import Limits, encode_demonstrations
from prefrl.language.optimise import OptimConfig, fit_to_end
from prefrl.language.policy import Sampling
from prefrl.language.records import Demonstration
from prefrl.language.sft import SftObjective
from prefrl.language.terms import TextExperience
from prefrl.language.tokens import Completions
from prefrl.language.trainer import LanguageTrainer
from tests.language.small import config, model, tokenizer

WELL = {
    "lm/kl": 1.0,
    "lm/kl_standard_error": 0.1,
    "lm/beta": 0.05,
    "lm/score_std": 1.0,
    "ppo/first_ratio_deviation": 1e-7,
}


def trainer(**changes: Any) -> LanguageTrainer:
    """A policy with opinions: the last layer ten times as large as drawn."""
    network: Any = model()
    with torch.no_grad():
        network.get_output_embeddings().weight *= 10
    return LanguageTrainer(network, tokenizer(), config(max_tokens=8, **changes), seed=0)


def surer(of: LanguageTrainer) -> None:
    """Taught one answer until it says it all but always."""
    demos = [Demonstration(prompt=prompt, completion="e f g a b c") for prompt in ("a b", "c")]
    texts = encode_demonstrations(demos, tokenizer(), limits=Limits())
    config = OptimConfig(lr=3e-2, batch=2, epochs=50)
    fit_to_end(SftObjective(of.policy.model, texts), config)


def said_at(of: LanguageTrainer, temperature: float, *, seed: int = 0, **bent: Any) -> Completions:
    """400 completions from a sampler of another temperature, or bent otherwise."""
    sampling = Sampling(temperature=temperature, never_said=tokenizer().never_said)
    return generate(
        _Bent(of.policy.model, bent),
        tokenizer().prompts(["a b", "c"]).repeat(200),
        sampling=sampling,
        tokenizer=tokenizer(),
        max_tokens=8,
        generator=torch.Generator().manual_seed(seed),
    )


class _Bent:
    """A model whose `generate` changes the settings it is given."""

    def __init__(self, network: Any, bent: dict[str, Any]) -> None:
        self.network, self.bent, self.config = network, bent, network.config

    def generate(self, generation_config: Any, **inputs: Any) -> Any:
        generation_config.update(**self.bent)
        return self.network.generate(generation_config=generation_config, **inputs)


def names(of: LanguageTrainer) -> list[str]:
    return [finding.name for finding in of.findings]


def test_a_healthy_run_is_left_in_peace() -> None:
    of = trainer()
    for _ in range(3):
        batch = of.collect(["a b", "c"] * 100)
        of.update(batch, [text.count("a") for text in batch.completions])
    assert of.findings == []


@pytest.mark.parametrize("at", [0.6, 1.5])
def test_samples_of_another_temperature_are_named_with_that_temperature(at: float) -> None:
    of = trainer()
    of.take(said_at(of, at))
    assert names(of) == ["temperature"]
    found = of.findings[0]
    said = float(found.why.split("temperature ")[1].split()[0])
    assert said == pytest.approx(at, rel=0.15)
    assert "are trained at 1" in found.why
    assert ("likelier" in found.what) == (at < 1)


def test_samples_of_the_same_temperature_are_not_complained_about() -> None:
    of = trainer()
    of.take(said_at(of, 1.0))
    assert of.findings == []


def test_a_policy_that_is_all_but_sure_of_every_token_is_not_complained_about() -> None:
    # what it hardly ever says adds most of the entropy, and may not come up in 400 completions
    of = trainer()
    surer(of)
    deviations = []
    for seed in range(3):
        read = of.take(said_at(of, 1.0, seed=seed))
        rollout = read.rollout
        deviations.append(doctor.surprise(rollout.logp, read.entropy, rollout.mask))
    assert min(deviations) < -doctor.SURE
    assert of.findings == []


def test_an_all_but_sure_policy_that_was_drawn_hotter_is_still_found() -> None:
    of = trainer()
    surer(of)
    of.take(said_at(of, 4.0))
    assert names(of) == ["temperature"]


@pytest.mark.parametrize(
    ("bent", "says"), [({"top_k": 2}, "beyond the 2 likeliest"), ({"top_p": 0.7}, "top_p")]
)
def test_truncated_sampling_is_told_from_another_temperature(bent: Any, says: str) -> None:
    of = trainer()
    of.take(said_at(of, 1.0, **bent))
    assert names(of) == ["truncated"]
    assert says in of.findings[0].why


def test_a_sampler_that_neither_explains_is_named_as_such() -> None:
    # the mirror image: the likelier a token, the less it is drawn
    of = trainer()
    texts = said_at(of, 1.0)
    with torch.no_grad():
        of.policy.model.get_output_embeddings().weight *= -1
    of.take(texts)
    assert names(of) == ["sampler"]


def test_the_surprise_is_the_sum_of_excesses_over_its_root_square_sum() -> None:
    # excesses .5 - 1 and 2 - 1: sum .5, root(.25 + 1) = 1.118
    logp = torch.tensor([[-0.5, -2.0, 9.0]])
    mask = torch.tensor([[True, True, False]])
    got = doctor.surprise(logp, torch.ones(1, 3), mask)
    assert got == pytest.approx(0.5 / 1.25**0.5)


def examine(of: LanguageTrainer, batch: TextExperience, **figures: float) -> list[doctor.Finding]:
    return doctor.examine(of.policy, WELL | figures, target=None)


@pytest.fixture(scope="module")
def one() -> tuple[LanguageTrainer, TextExperience]:
    of = trainer()
    return of, of.collect(["a b", "c"])


Pair = tuple[LanguageTrainer, TextExperience]


def test_nothing_is_found_where_all_is_well(one: Pair) -> None:
    assert examine(*one) == []


def test_a_negative_kl_is_blamed_on_the_sampler(one: Pair) -> None:
    found = examine(*one, **{"lm/kl": -2.0})
    assert [finding.name for finding in found] == ["negative_kl"]
    assert "-2 nats" in found[0].what
    assert "top_k" in found[0].why


def test_a_kl_negative_by_chance_is_not_complained_about(one: Pair) -> None:
    assert examine(*one, **{"lm/kl": -0.2, "lm/kl_standard_error": 0.1}) == []


def test_an_exploding_kl_is_blamed_on_the_spread_of_the_scores_and_beta(one: Pair) -> None:
    found = examine(*one, **{"lm/kl": 500.0, "lm/score_std": 10.0, "lm/beta": 0.05})
    assert [finding.name for finding in found] == ["exploding_kl"]
    assert "spread by 10" in found[0].why
    assert "200 nats" in found[0].why  # 10 / .05
    without = examine(*one, **{"lm/kl": 500.0, "lm/beta": 0.0})
    assert "no KL penalty" in without[0].why


def test_with_a_target_the_kl_explodes_at_ten_times_it(one: Pair) -> None:
    of, _ = one
    for kl, count in ((50.0, 0), (70.0, 1)):
        assert len(doctor.examine(of.policy, WELL | {"lm/kl": kl}, target=6.0)) == count


def test_a_first_ratio_that_is_not_1_is_blamed_on_dropout_where_there_is_some() -> None:
    of = trainer()
    of.policy.model.extra = nn.Dropout(0.1)
    batch = of.collect(["a"])
    of.policy.train()
    (found,) = examine(of, batch, **{"ppo/first_ratio_deviation": 0.01})
    assert found.name == "ratio"
    assert "dropout is on in model.extra" in found.why
    of.policy.eval()
    (found,) = examine(of, batch, **{"ppo/first_ratio_deviation": 0.01})
    assert "another policy, temperature or precision" in found.why


def test_a_policy_that_moved_since_it_spoke_is_noticed_by_the_update() -> None:
    of = trainer()
    batch = of.collect(["a b", "c"] * 8)
    with torch.no_grad():
        of.policy.model.get_output_embeddings().weight *= 1.5
    of.update(batch, [0.0] * 16)
    assert names(of) == ["ratio"]


def test_a_mask_that_goes_on_after_the_end_is_named_with_its_place() -> None:
    of = trainer()
    texts = said_at(of, 1.0)
    eos, stops = of.tokenizer.eos, texts.ended(of.tokenizer.eos) & ~texts.mask[:, -1]
    assert stops.any()
    of.take(replace(texts, mask=torch.ones_like(texts.mask)))
    (found,) = of.findings
    assert found.name == "reward_on_padding"
    row = int(stops.nonzero()[0].item())
    after = int((texts.completion[row] == eos).nonzero()[0].item()) + 1
    assert f"the first of them number {row} at token {after}" in found.what


def test_each_kind_of_trouble_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    of = trainer()
    for _ in range(2):
        of.take(said_at(of, 0.5))
    assert names(of) == ["temperature"]
    assert caplog.text.count("doctor:") == 1
