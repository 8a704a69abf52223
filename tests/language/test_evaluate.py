"""Evaluation of a policy: KL, wins, lengths, and what is left out when nothing measures it."""

import dataclasses

import numpy as np
import pytest
import torch

from prefrl.errors import UserError
from prefrl.language.estimates import Estimate
from prefrl.language.evaluate import Samples, evaluate, matches, sample, samples_of, sequence_kl
from prefrl.language.policy import Sampling
from prefrl.language.tasks.exact import exact_task, kl, reference_model, sequence_logp
from prefrl.language.tokens import completions_of
from tests.language.texts import model, tokenizer

SAMPLING = Sampling(temperature=1.0, never_said=tokenizer().never_said)
PROMPTS = ["film is", "book film is", "is"]


def said(*words: str, ended: bool = True) -> Samples:
    """Completions of one prompt, word for word."""
    prompts = ["film is"] * len(words)
    end = [tokenizer().eos] if ended else []
    texts = completions_of(
        [tokenizer().encode_prompt(p) for p in prompts],
        [[*tokenizer().encode(w), *end] for w in words],
        pad=tokenizer().pad,
    )
    return samples_of(prompts, texts, tokenizer())


def gold(prompt: str, text: str, ended: bool) -> float:
    return text.count("good") - (not ended)


def test_samples_say_what_their_ids_say() -> None:
    found = said("very good", "bad")
    assert [c.text for c in found.completions] == ["very good", "bad"]
    assert found.lengths.tolist() == [3, 2]
    assert found.gold(gold).tolist() == [1, 0]
    cut = said("good", ended=False)
    assert not cut.completions[0].ended
    assert cut.gold(gold).tolist() == [0]


def test_sampling_repeats_and_keeps_to_the_cap() -> None:
    def drawn(seed: int) -> Samples:
        return sample(
            model(),
            PROMPTS * 4,
            tokenizer=tokenizer(),
            sampling=SAMPLING,
            max_completion=5,
            generator=torch.Generator().manual_seed(seed),
        )

    one = drawn(0)
    assert one.completions == drawn(0).completions
    assert one.completions != drawn(1).completions
    assert one.lengths.max() <= 5
    assert one.prompts == tuple(PROMPTS * 4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_log_ratio_of_a_sequence_averages_to_the_enumerated_kl(temperature: float) -> None:
    task = exact_task(symbols=3, length=2, seed=0)
    known = (*task.symbols, task.tokenizer.eos)
    never = tuple(i for i in range(task.tokenizer.size) if i not in known)
    sampling = Sampling(temperature=temperature, never_said=never)
    policy = reference_model(task, width=16, seed=0)
    other = reference_model(task, width=16, seed=1)
    p, q = sequence_logp(policy, task, sampling), sequence_logp(other, task, sampling)
    gaps = sequence_kl(policy, other, task.completions, sampling=sampling)
    assert float(p.exp().numpy() @ gaps) == pytest.approx(kl(p, q), abs=1e-5)
    assert kl(p, q) > 0.02


def test_matches_go_to_the_higher_gold_or_to_the_judge() -> None:
    ours, theirs = said("good", "bad", "good"), said("bad", "good", "very good")
    assert matches(ours, theirs, gold=gold, judge=None).tolist() == [1, 0, 0.5]

    def short(prompt, first, second) -> float:
        lengths = len(first.text), len(second.text)
        return 0.5 if lengths[0] == lengths[1] else float(lengths[1] < lengths[0])

    # bad against good, good against bad, very good against good: ours is the second
    assert matches(ours, theirs, gold=None, judge=short).tolist() == [0, 1, 1]


def test_everything_at_once_with_intervals() -> None:
    ours, theirs = said("good", "good", "very good", "bad"), said("bad", "bad", "bad", "good")
    found = evaluate(
        ours,
        model=model(seed=1),
        sampling=SAMPLING,
        reference=model(),
        gold=gold,
        learned=lambda samples: samples.texts.lengths.float(),
        against=theirs,
    )
    assert found.gold is not None
    assert found.wins is not None
    assert found.learned is not None
    assert found.gold.value == 0.75
    assert found.wins.value == 0.75
    assert found.learned.value == found.length.value == 2.25
    assert found.ended.value == 1
    figures = found.figures()
    assert figures["wins_interval"] == [found.wins.low, found.wins.high]
    assert "held_out_loss" not in figures
    assert np.isfinite(figures["kl"])


def test_lengths_are_matched_in_words_where_the_vocabularies_differ() -> None:
    ours, theirs = said("good", "bad bad", "good"), said("bad", "good good", "good")
    one = theirs.texts.completion[:, :1]  # as if each word were four tokens of another tokenizer
    many = completions_of([[1]] * 3, [row * 4 for row in one.tolist()], pad=tokenizer().pad)
    other = dataclasses.replace(theirs, texts=many)
    settings = {"model": model(), "sampling": SAMPLING, "gold": gold}

    def matched(against: Samples, **more: bool) -> Estimate | None:
        return evaluate(ours, against=against, **settings, **more).wins_at_matched_length

    assert ours.words.tolist() == other.words.tolist() == [1, 2, 1]
    assert matched(other, same_tokens=False) == matched(theirs, same_tokens=False)
    assert matched(other) != matched(theirs)


def test_one_sample_has_no_interval() -> None:
    figures = evaluate(said("good"), model=model(), sampling=SAMPLING, gold=gold).figures()
    assert figures["gold"] == 1
    assert figures["gold_interval"] is None


def test_what_cannot_be_measured_is_left_out_or_refused() -> None:
    found = evaluate(said("good", "bad"), model=model(), sampling=SAMPLING)
    assert set(found.figures()) == {"length", "length_interval", "ended", "ended_interval"}
    with pytest.raises(UserError, match="a gold reward or a judge"):
        matches(said("good"), said("bad"), gold=None, judge=None)
    with pytest.raises(UserError, match="no prompts"):
        sample(
            model(), [], tokenizer=tokenizer(), sampling=SAMPLING, max_completion=5,
            generator=torch.Generator(),
        )  # fmt: skip
