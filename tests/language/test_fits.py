"""SFT, reward models and direct methods on texts: padding, accumulation, resuming, learning."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.feedback import Ranking
from prefrl.language.dpo import (
    DirectConfig,
    DirectObjective,
    KtoObjective,
    sequence_logp,
)
from prefrl.language.encoded import Encoded, encode_demonstrations
from prefrl.language.lora import adapted
from prefrl.language.models import ScalarModel
from prefrl.language.optimise import (
    Fit,
    Objective,
    OptimConfig,
    accumulate,
    annealed,
    fit_to_end,
    measure,
)
from prefrl.language.records import Completion, Demonstration, Preference, TextLabel, pair
from prefrl.language.reward import (
    EncodedLabels,
    RewardObjective,
    TextRewardConfig,
    TextRewardModel,
    encode_labels,
    fit_reward,
    load_text_reward,
    member_fits,
    score_texts,
)
from prefrl.language.sft import SftObjective, language_loss
from prefrl.language.tokenizer import load_tokenizer
from prefrl.language.tokens import Completions
from prefrl.rewards import bootstrap_counts
from tests.language.texts import LIMITS, model, pairs, tokenizer

DEMOS = [
    Demonstration(prompt="film is", completion="very very good"),
    Demonstration(prompt="book is", completion="bad"),
    Demonstration(prompt="is", completion="not very good"),
    Demonstration(prompt="book film is", completion="good"),
    Demonstration(prompt="film is", completion="bad bad bad bad"),
]


def demos() -> Encoded:
    return encode_demonstrations(DEMOS, tokenizer(), limits=LIMITS)


def test_what_was_cut_off_is_imitated_without_an_end() -> None:
    cut = [Demonstration(prompt="is", completion="good", ended=ended) for ended in (True, False)]
    whole, part = encode_demonstrations(cut, tokenizer(), limits=LIMITS).completions
    assert whole == [*part, tokenizer().eos]


def labels(given: list[TextLabel] | None = None) -> EncodedLabels:
    return encode_labels(given or pairs(), tokenizer(), limits=LIMITS)


def sft(kind: str) -> Objective:
    return SftObjective(model(kind), demos())


def reward(kind: str) -> Objective:
    made = TextRewardModel.from_sft(model(kind), TextRewardConfig(), seed=0)
    return RewardObjective(made.members[0], labels(), made.config)  # type: ignore[arg-type]


def direct(kind: str) -> Objective:
    policy, data = model(kind), labels()
    return DirectObjective(policy, data, sequence_logp(model(kind, 1), data.texts), DirectConfig())


def kto(kind: str) -> Objective:
    good = torch.tensor([True, False, True, False, True])
    return KtoObjective(model(kind), model(kind, 1), demos(), good, DirectConfig(loss="kto"))


OBJECTIVES = pytest.mark.parametrize("make", [sft, reward, direct, kto])
KINDS = pytest.mark.parametrize("kind", ["llama", "gpt2"])


def gradients(objective: Objective, index: Tensor, *, chunk: int) -> tuple[float, Tensor]:
    objective.model.zero_grad(set_to_none=True)
    figures = accumulate(objective, index, chunk=chunk)
    flat = [p.grad.flatten() for p in objective.model.parameters() if p.grad is not None]
    return figures["loss"], torch.cat(flat)


@OBJECTIVES
@KINDS
def test_one_batch_of_all_equals_as_many_chunks_of_one(
    make: Callable[[str], Objective], kind: str
) -> None:
    objective = make(kind)
    index = torch.arange(len(objective))
    whole, gradient = gradients(objective, index, chunk=0)
    parts, summed = gradients(objective, index, chunk=1)
    assert parts == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(summed, gradient, rtol=1e-4, atol=1e-6)


@OBJECTIVES
def test_a_fit_that_was_stopped_goes_on_bit_for_bit(make: Callable[[str], Objective]) -> None:
    config = OptimConfig(lr=1e-2, batch=3, epochs=3, warmup=0.2, schedule="cosine")
    whole = Fit(make("llama"), config)
    for _ in range(5):
        whole.advance()
    first = Fit(make("llama"), config)
    for _ in range(2):
        first.advance()
    second = Fit(make("llama"), config)  # another process: weights, optimiser and a number
    second.objective.model.load_state_dict(first.objective.model.state_dict())
    second.optimiser.load_state_dict(copy.deepcopy(first.optimiser.state_dict()))
    second.step = first.step
    for _ in range(3):
        second.advance()
    for name, value in whole.objective.model.state_dict().items():
        assert torch.equal(value, second.objective.model.state_dict()[name]), name


@OBJECTIVES
def test_fitting_lowers_the_loss(make: Callable[[str], Objective]) -> None:
    objective = make("llama")
    before = measure(objective)["loss"]
    fit_to_end(objective, OptimConfig(lr=1e-2, batch=4, epochs=8))
    assert measure(objective)["loss"] < 0.9 * before


def test_every_epoch_shows_each_example_once_in_another_order() -> None:
    fit = Fit(sft("llama"), OptimConfig(lr=1e-3, batch=2, epochs=2))
    assert fit.steps == 6  # 5 examples are 3 batches
    epochs = [torch.cat([fit.examples(3 * e + i) for i in range(3)]).tolist() for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [0, 1, 2, 3, 4]
    assert epochs[0] != epochs[1]


def test_step_sizes_by_hand() -> None:
    config = OptimConfig(lr=1.0, warmup=0.5, lr_end=0.2)
    got = [annealed(p, config) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert got == pytest.approx([1e-3, 0.5, 1.0, 0.6, 0.2])
    cosine = OptimConfig(lr=1.0, schedule="cosine")
    assert annealed(0.5, cosine) == pytest.approx(0.5)
    assert annealed(0.25, cosine) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_the_step_size_follows_the_share_of_steps_done() -> None:
    fit = Fit(sft("llama"), OptimConfig(lr=1.0, lr_end=0.2, batch=5, epochs=4))
    sizes = [fit.advance()["lr"] for _ in range(4)]
    assert sizes == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert fit.done


def test_sft_counts_the_end_and_not_the_prompt() -> None:
    trained = model()
    objective = SftObjective(trained, demos())
    tokens = sum(len(d.completion.split()) + 1 for d in DEMOS)  # 3 + 1 + 3 + 1 + 4, and ends
    assert objective.shared(torch.arange(5)).units == tokens == 17
    by_hand = -sequence_logp(trained, demos()).sum() / 17
    assert measure(objective)["loss"] == pytest.approx(float(by_hand), rel=1e-5)
    assert language_loss(trained, demos()) == pytest.approx(float(by_hand), rel=1e-5)


def test_sft_learns_to_end() -> None:
    trained = model()
    fit_to_end(SftObjective(trained, demos()), OptimConfig(lr=2e-2, batch=5, epochs=60))
    assert language_loss(trained, demos()) < 0.35  # "film is" has two continuations


# ---- reward models ----------------------------------------------------------------------


def scorer(kind: str = "llama") -> TextRewardModel:
    return TextRewardModel.from_sft(model(kind), TextRewardConfig(), seed=0)


def wider(texts: Completions, by: int) -> Completions:
    """More padding on both sides, holding what nobody should read."""
    left = torch.full((len(texts), by), 4)
    off = torch.zeros_like(left, dtype=torch.bool)
    return Completions(
        prompt=torch.cat([left, texts.prompt], 1),
        prompt_mask=torch.cat([off, texts.prompt_mask], 1),
        completion=torch.cat([texts.completion, left], 1),
        mask=torch.cat([texts.mask, off], 1),
    )


@KINDS
def test_a_score_depends_neither_on_padding_nor_on_batch_mates(kind: str) -> None:
    made, texts = scorer(kind), demos()
    together = made.score(texts.batch(range(5)))
    alone = torch.cat([made.score(texts.batch([i])) for i in range(5)])
    padded = made.score(wider(texts.batch(range(5)), 3))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, padded, rtol=1e-4, atol=1e-5)
    assert together.std() > 1e-2  # else the above says nothing


def test_the_score_is_read_at_the_end_token() -> None:
    made = scorer()
    texts = demos().batch([0])
    at = texts.prompt.shape[1] + 3  # very very good EOS
    assert texts.ids[0, at] == tokenizer().eos
    torch.testing.assert_close(made.raw(texts)[0, 0], made.members[0](texts)[0, at])  # type: ignore[operator]


def test_heads_start_as_stated_and_members_differ() -> None:
    wide = TextRewardModel.from_sft(model(), TextRewardConfig(members=64), seed=0)
    weights = torch.stack([m.head.weight.squeeze(0) for m in wide.members])  # type: ignore[union-attr, arg-type, operator]
    assert weights.std().item() == pytest.approx(1 / math.sqrt(17), rel=0.1)  # d = 16
    assert all(m.head.bias.item() == 0 for m in wide.members)  # type: ignore[union-attr, operator]
    assert len({tuple(w.tolist()) for w in weights}) == 64


def test_normalising_gives_reference_completions_mean_0_and_deviation_1() -> None:
    texts = demos().batch(range(5))
    made = scorer()
    made.normalise_on(texts)
    assert made.score(texts).mean().item() == pytest.approx(0, abs=1e-5)
    assert made.score(texts).std().item() == pytest.approx(1, rel=1e-4)
    raw = TextRewardModel.from_sft(model(), TextRewardConfig(normalise=False), seed=0)
    raw.normalise_on(texts)
    torch.testing.assert_close(raw.score(texts), raw.raw(texts)[0])


def test_pessimism_takes_off_the_spread_of_the_members() -> None:
    texts = demos().batch(range(5))
    config = TextRewardConfig(members=3, pessimism=2.0)
    made = TextRewardModel.from_sft(model(), config, seed=0)
    made.normalise_on(texts)
    each = (made.raw(texts) - made.mean[:, None]) / made.std[:, None]
    by_hand = each.mean(0) - 2 * each.std(0, correction=0)
    torch.testing.assert_close(made.score(texts), by_hand)
    with pytest.raises(UserError, match="members that can disagree"):
        TextRewardConfig(pessimism=1.0)


def test_a_reward_model_learns_pairs_and_rankings() -> None:
    texts = tuple(Completion(text=t) for t in ("good", "bad", "very good"))
    ranked = TextLabel(
        prompt="film is", completions=texts, verdict=Ranking(order=((2,), (0,), (1,)))
    )
    for rankings in ("pairs", "plackett-luce"):
        config = TextRewardConfig(rankings=rankings)  # type: ignore[arg-type]
        made = TextRewardModel.from_sft(model(), config, seed=0)
        data = labels([*pairs(6), ranked])
        fit_reward(made, data, OptimConfig(lr=1e-2, batch=4, epochs=20))
        good, bad, very_good = made.score(data.part([6]).texts.batch(range(3))).tolist()
        assert very_good > good > bad


def test_members_see_the_bootstraps_of_the_games_and_one_alone_sees_every_label() -> None:
    labels = [pair("film is", " ".join(["good"] * (i + 1)), "bad") for i in range(6)]
    data = encode_labels(labels, tokenizer(), limits=LIMITS)

    def seen(members: int) -> list[list[TextLabel]]:
        made = TextRewardModel.from_sft(model(), TextRewardConfig(members=members), seed=0)
        return [list(fit.objective.data.labels)  # type: ignore[attr-defined]
                for fit in member_fits(made, data, OptimConfig(lr=1e-3))]  # fmt: skip

    assert seen(1) == [labels]
    about = [json.dumps(["film is", *sorted(c.text for c in x.completions)]) for x in labels]
    wanted = [[int(bootstrap_counts(name, 3)[e]) for name in about] for e in range(3)]
    assert len({tuple(counts) for counts in wanted}) == 3
    assert [[drawn.count(x) for x in labels] for drawn in seen(3)] == wanted


def test_both_answers_about_a_pair_are_drawn_together() -> None:
    first, other = Completion(text="film"), Completion(text="book")
    texts = {"prompt": "film is", "verdict": Preference(second=0.0)}
    twice = [
        TextLabel(completions=(first, other), **texts),  # type: ignore[arg-type]
        TextLabel(completions=(other, first), **texts),  # type: ignore[arg-type]
    ]
    data = encode_labels([*twice, *pairs()], tokenizer(), limits=LIMITS)
    made = TextRewardModel.from_sft(model(), TextRewardConfig(members=4), seed=0)
    fits = member_fits(made, data, OptimConfig(lr=1e-3))
    drawn = [list(fit.objective.data.labels) for fit in fits]  # type: ignore[attr-defined]
    assert [d.count(twice[0]) for d in drawn] == [d.count(twice[1]) for d in drawn]


def test_a_member_without_labels_is_refused() -> None:
    made = TextRewardModel.from_sft(model(), TextRewardConfig(members=4), seed=0)
    data = encode_labels(pairs(1), tokenizer(), limits=LIMITS)
    with pytest.raises(UserError, match="members: got 4 and 1 labels"):
        member_fits(made, data, OptimConfig(lr=1e-3))


def test_each_completion_of_a_ranking_is_read_once() -> None:
    class Counted(ScalarModel):
        read: int = 0

        def forward(self, texts: Completions) -> Tensor:
            self.read += len(texts)
            return super().forward(texts)

    texts = tuple(Completion(text=t) for t in ("good", "bad", "very good", "not good"))
    ranked = TextLabel(
        prompt="film is", completions=texts, verdict=Ranking(order=((2,), (0,), (3,), (1,)))
    )
    counted = Counted(model(), generator=torch.Generator())
    objective = RewardObjective(counted, labels([ranked]), TextRewardConfig())
    accumulate(objective, torch.arange(1), chunk=0)
    assert counted.read == 4  # and not 12, twice in each of six pairs


def test_a_reward_model_reads_texts_as_it_reads_ids() -> None:
    made = scorer()
    pairs = [("film is", Completion(text="very good")), ("is", Completion(text="bad"))]
    by_ids = made.score(
        encode_demonstrations(
            [Demonstration(prompt=p, completion=c.text) for p, c in pairs],
            tokenizer(),
            limits=LIMITS,
        ).batch([0, 1])
    )
    torch.testing.assert_close(score_texts(made, tokenizer(), pairs), by_ids)
    cut = [("film is", Completion(text="very good", ended=False))]
    assert score_texts(made, tokenizer(), cut)[0] != by_ids[0]  # read at its last token


def test_a_reward_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    made = TextRewardModel.from_sft(model(), TextRewardConfig(members=2, pessimism=1.0), seed=0)
    texts = demos().batch(range(5))
    made.normalise_on(texts)
    made.save(tmp_path, tokenizer())
    assert torch.equal(load_text_reward(tmp_path).score(texts), made.score(texts))
    assert not list(tmp_path.rglob("*.bin"))


def test_a_classifier_of_one_label_is_a_reward_model(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def classifier(labels: int) -> LlamaForSequenceClassification:
        return LlamaForSequenceClassification(
            LlamaConfig(
                vocab_size=tokenizer().size, hidden_size=16, intermediate_size=32,
                num_hidden_layers=1, num_attention_heads=2, num_labels=labels,
                pad_token_id=tokenizer().pad,
            )
        ).eval()  # fmt: skip

    one = classifier(1)
    one.save_pretrained(tmp_path / "one")
    tokenizer().save(tmp_path / "one")
    texts = demos().batch([0])  # no padding on the right: both read the last token
    expected = one(input_ids=texts.ids, attention_mask=texts.attention.long()).logits[0, 0]
    torch.testing.assert_close(load_text_reward(tmp_path / "one").score(texts)[0], expected)
    classifier(1).bfloat16().save_pretrained(tmp_path / "half")  # as published
    tokenizer().save(tmp_path / "half")
    mixed = demos().batch(range(4))  # of several lengths: padded
    assert load_text_reward(tmp_path / "half").score(mixed).isfinite().all()
    classifier(2).save_pretrained(tmp_path / "two")
    with pytest.raises(UserError, match="got 2 labels, wanted one"):
        load_text_reward(tmp_path / "two")
    with pytest.raises(UserError, match="no reward model in"):
        load_text_reward(tmp_path)
    (tmp_path / "one" / "model.safetensors").rename(tmp_path / "one" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"got pytorch_model.bin, a pickle"):
        load_text_reward(tmp_path / "one")


def test_a_classifier_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    cache = tmp_path / "models--ann--kind"  # as the hub's client keeps what it has fetched
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    small = LlamaConfig(
        vocab_size=tokenizer().size, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_labels=1, pad_token_id=tokenizer().pad,
    )  # fmt: skip
    LlamaForSequenceClassification(small).save_pretrained(snapshot)
    tokenizer().save(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    texts = demos().batch([0])
    found = load_text_reward("ann/kind", offline=True)
    assert torch.equal(found.score(texts), load_text_reward(snapshot).score(texts))
    with pytest.raises(
        UserError, match="no reward model at 'bob/kind': wanted a run of `prefrl lm"
    ):
        load_text_reward("bob/kind", offline=True)


def test_a_language_model_is_no_reward_model_though_its_config_speaks_of_one_label(
    tmp_path: Path,
) -> None:
    network: Any = model()
    network.config.num_labels = 1
    network.save_pretrained(tmp_path)
    tokenizer().save(tmp_path)
    with pytest.raises(UserError, match=r"got no score\.weight, wanted a classifier"):
        load_text_reward(tmp_path)


def test_a_classifier_gets_room_for_a_pad_of_its_own(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    reads = tokenizer()
    backend = copy.deepcopy(reads.backend)
    backend.pad_token = backend.eos_token  # as GPT-2's and many a Llama's
    backend.save_pretrained(tmp_path)
    core = tmp_path / "tokenizer.json"
    core.write_text(core.read_text().replace('"<pad>"', '"word"'))  # nor has it one unused
    small = GPT2Config(vocab_size=reads.size, n_embd=8, n_layer=1, n_head=2, num_labels=1,
                       pad_token_id=reads.eos)  # fmt: skip
    GPT2ForSequenceClassification(small).save_pretrained(tmp_path)
    loaded, own = load_text_reward(tmp_path), load_tokenizer(tmp_path)
    said = [(x.prompt, x.completions[i]) for i, x in enumerate(pairs()[:2])]
    assert own.pad == reads.size
    assert score_texts(loaded, own, said).isfinite().all()


# ---- direct methods ---------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["dpo", "cdpo", "robust", "ipo"])
def test_direct_methods_start_at_the_reference(loss: str) -> None:
    policy, data = model(), labels()
    reference = sequence_logp(policy, data.texts)
    config = DirectConfig(loss=loss)  # type: ignore[arg-type]
    figures = measure(DirectObjective(policy, data, reference, config))
    at_zero = {"ipo": 25.0}.get(loss, math.log(2))  # (1 / (2 * .1))^2
    assert figures["loss"] == pytest.approx(at_zero, rel=1e-4)
    assert figures["margin"] == pytest.approx(0, abs=1e-4)
    assert figures["accuracy"] == pytest.approx(0.5, abs=0.5)


@pytest.mark.parametrize("loss", ["dpo", "cdpo", "robust", "ipo"])
def test_direct_methods_raise_the_chosen_over_the_rejected(loss: str) -> None:
    policy, data = model(), labels()
    reference = sequence_logp(policy, data.texts)
    config = DirectConfig(loss=loss, beta=0.5)  # type: ignore[arg-type]
    objective = DirectObjective(policy, data, reference, config)
    before = measure(objective)
    fit_to_end(objective, OptimConfig(lr=5e-3, batch=4, epochs=10))
    after = measure(objective)
    assert after["accuracy"] == 1
    gap = [f["chosen_logp"] - f["rejected_logp"] for f in (before, after)]
    assert gap[1] > gap[0] + 0.5


def test_implied_rewards_of_kto_are_means_over_the_good_and_over_the_bad() -> None:
    policy, before = model(), model(seed=1)
    texts = demos()
    good = torch.arange(len(texts)) < 2
    config = DirectConfig(loss="kto")
    figures = measure(KtoObjective(policy, before, texts, good, config), chunk=2)
    implied = config.beta * (sequence_logp(policy, texts) - sequence_logp(before, texts))
    assert figures["good_reward"] == pytest.approx(implied[good].mean().item(), abs=1e-5)
    assert figures["bad_reward"] == pytest.approx(implied[~good].mean().item(), abs=1e-5)
    only_bad = measure(KtoObjective(policy, before, texts, good & False, config))
    assert "good_reward" not in only_bad


@pytest.mark.filterwarnings("ignore")
def test_with_adapters_kto_s_reference_is_the_model_without_them() -> None:
    policy, before = adapted(model(), rank=2, alpha=4, seed=0), sequence_logp(model(), demos())
    objective = KtoObjective(policy, None, demos(), torch.ones(5) > 0, DirectConfig(loss="kto"))
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight += 0.5
    assert not torch.allclose(sequence_logp(policy, demos()), before)
    torch.testing.assert_close(objective._before(demos()), before)


def test_one_completion_alone_is_read_after_another_s_prompt() -> None:
    policy, before = model(), model(seed=1)
    objective = KtoObjective(policy, before, demos(), torch.ones(5) > 0, DirectConfig(loss="kto"))
    prompts = objective.texts.prompts
    assert prompts[0] == prompts[4] != prompts[1]
    alone = objective.shared(torch.tensor([4]))
    pair = Encoded(prompts=[prompts[1]], completions=[objective.texts.completions[4]],
                   pad=objective.texts.pad)  # fmt: skip
    gap = sequence_logp(policy, pair) - sequence_logp(before, pair)
    assert gap.item() > 0  # else nothing is compared
    assert alone.baseline.item() == pytest.approx(gap.item(), abs=1e-5)


def test_the_baseline_of_kto_is_the_kl_seen_on_completions_of_other_prompts() -> None:
    policy, before = model(), model(seed=1)
    good = torch.ones(5, dtype=torch.bool)
    objective = KtoObjective(policy, before, demos(), good, DirectConfig(loss="kto"))
    swapped = [
        Demonstration(prompt=DEMOS[other].prompt, completion=DEMOS[i].completion)
        for i, other in enumerate((1, 2, 3, 4, 1))  # the next one that differs: 4 has 0's prompt
    ]
    texts = encode_demonstrations(swapped, tokenizer(), limits=LIMITS)
    gaps = sequence_logp(policy, texts) - sequence_logp(before, texts)
    baseline = objective.shared(torch.arange(5)).baseline
    torch.testing.assert_close(baseline, gaps.mean().clamp_min(0))
    assert baseline > 0  # else nothing was compared
    mirrored = KtoObjective(before, policy, demos(), good, DirectConfig(loss="kto"))
    assert mirrored.shared(torch.arange(5)).baseline == 0


def test_what_a_direct_method_cannot_read_is_refused() -> None:
    from prefrl.feedback import Rating

    rated = TextLabel(
        prompt="film is", completions=(Completion(text="good"),), verdict=Rating(value=7)
    )
    data = labels([rated])
    with pytest.raises(UserError, match="ratings of single ones"):
        DirectObjective(model(), data, torch.zeros(1), DirectConfig())
    with pytest.raises(UserError, match="kto learns from single completions"):
        DirectObjective(model(), labels(), torch.zeros(16), DirectConfig(loss="kto"))
    with pytest.raises(UserError, match="defined on pairs"):
        DirectConfig(loss="ipo", rankings="plackett-luce")


def test_tabular_dpo_finds_the_kl_regularised_optimum() -> None:
    # three outcomes, reward r, population pairs: pi* is proportional to ref e^(r / beta)
    reward, beta = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64), 0.7
    ref = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    logits = ref.clone().requires_grad_()
    from prefrl.language.dpo import direct_loss
    from prefrl.language.records import Preference
    from prefrl.language.verdicts import read_verdicts

    both = list(itertools.combinations(range(3), 2))
    data = [
        TextLabel(
            prompt="p",
            completions=(Completion(text=str(a)), Completion(text=str(b))),
            verdict=Preference(second=torch.sigmoid(reward[b] - reward[a]).item()),
        )
        for a, b in both
    ]
    places = torch.tensor(both).flatten()
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimiser.zero_grad()
        ratio = (logits.log_softmax(0) - ref)[places]
        loss = direct_loss(ratio, read_verdicts(data), DirectConfig(beta=beta)).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    optimum = (ref + reward / beta).softmax(0)
    torch.testing.assert_close(logits.detach().softmax(0), optimum, atol=1e-5, rtol=0)


# ---- bad input --------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_fit() -> None:
    class Broken(SftObjective):
        def sums(self, index: Tensor, shared: Any) -> Any:
            sums = super().sums(index, shared)
            return type(sums)(loss=sums.loss * torch.nan, figures=sums.figures)

    fit = Fit(Broken(model(), demos()), OptimConfig(lr=1e-3))
    with pytest.raises(UserError, match="step 0: the loss is nan"):
        fit.advance()
    assert fit.step == 0


def test_texts_that_are_too_long_are_refused_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    long = pair("film is", "good " * 9, "bad")
    with pytest.raises(UserError, match=r"completion with its end has 10 tokens, wanted at most 8"):
        labels([*pairs(2), long])
    from dataclasses import replace

    kept = encode_labels([*pairs(2), long], tokenizer(), limits=replace(LIMITS, too_long="drop"))
    assert len(kept) == 2
    assert "1 of 3 examples are too long" in caplog.text
    with pytest.raises(UserError, match="prompt has 10 tokens"):
        labels([pair("film " * 9, "good", "bad")])
