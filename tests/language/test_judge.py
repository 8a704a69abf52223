"""Judges: principles, orders, soft labels, and language models that are asked."""

import numpy as np
import pytest
import torch

from prefrl.errors import UserError
from prefrl.language.judge import (
    Judge,
    LanguageModelBackend,
    Principle,
    Question,
    rule_backend,
)
from prefrl.language.models import new_model
from prefrl.language.optimise import OptimConfig
from prefrl.language.records import Completion, Preference, TextLabel
from prefrl.language.reward import TextRewardConfig, TextRewardModel, encode_labels, fit_reward
from prefrl.language.tasks import Annotator
from prefrl.language.tasks.annotator import sigmoid
from prefrl.language.tasks.docstrings import RUBRIC
from prefrl.language.tokenizer import train_tokenizer
from tests.language.texts import LIMITS, model, tokenizer

A, B = Completion(text="bad"), Completion(text="good")
KIND = Principle(name="kind", text="Prefer what is kind.")
SHORT = Principle(name="short", text="Prefer what is short.", weight=3.0)
RULES = {
    "kind": lambda prompt, c: 2.0 * ("good" in c.text),
    "short": lambda prompt, c: -len(c.text) / 4,
}


def judge(*principles: Principle, **settings) -> Judge:
    return Judge(backend=rule_backend(RULES), constitution=principles, **settings)


def test_exchanging_the_texts_exchanges_the_answer() -> None:
    for mode in ("sample", "mix"):
        one = judge(KIND, SHORT, mode=mode)
        for prompt in ("p", "q", "r", "s"):
            assert one(prompt, A, B) + one(prompt, B, A) == pytest.approx(1)


def test_a_judge_that_always_takes_the_first_is_indifferent() -> None:
    one = Judge(backend=lambda questions: [0.1] * len(questions), constitution=(KIND,))
    assert one("p", A, B) == pytest.approx(0.5)


def test_disagreeing_principles_mix_to_the_weighted_mean() -> None:
    kind, short = sigmoid(2.0), sigmoid(-0.25)  # one letter more
    assert judge(KIND)("p", A, B) == pytest.approx(kind)
    mixed = judge(KIND, SHORT, mode="mix")
    assert mixed("p", A, B) == pytest.approx((kind + 3 * short) / 4)


def test_principles_are_sampled_by_their_weight_and_repeatably() -> None:
    one = judge(KIND, SHORT, seed=1)
    says = [one(f"p{i}", A, B) for i in range(2000)]
    assert np.mean(np.isclose(says, sigmoid(2.0))) == pytest.approx(0.25, abs=0.03)  # sd .01
    assert says == [one(f"p{i}", A, B) for i in range(2000)]
    assert says != [judge(KIND, SHORT, seed=2)(f"p{i}", A, B) for i in range(2000)]


def gold(prompt: str, text: str, ended: bool) -> float:
    return 1.0 if "good" in text else -0.5 * len(text.split())


def test_a_rule_judge_equal_to_the_gold_gives_the_annotators_reward_model_bit_for_bit() -> None:
    annotator = Annotator(gold=gold)
    rule = {"gold": lambda prompt, c: annotator.appeal(prompt, c)}
    one = Judge(backend=rule_backend(rule), constitution=(Principle(name="gold", text="?"),))
    pairs = [("film is", A, B), ("book is", Completion(text="very bad"), A)]
    by_judge = one.labels(pairs)
    by_annotator = [
        TextLabel(
            prompt=pair[0],
            completions=pair[1:],
            verdict=Preference(second=annotator.prob(*pair)),
        )
        for pair in pairs
    ]
    weights = []
    for labels in (by_judge, by_annotator):
        made = TextRewardModel.from_sft(model(), TextRewardConfig(), seed=0)
        data = encode_labels(labels, tokenizer(), limits=LIMITS)
        fit_reward(made, data, OptimConfig(lr=1e-2, batch=2, epochs=3))
        weights.append(made.members[0].head.weight)
    assert torch.equal(*weights)


def test_a_rubric_is_a_constitution() -> None:
    rules = {
        name: lambda prompt, c, rule=rule: 4.0 * rule(prompt, c.text)
        for name, rule in RUBRIC.items()
    }
    constitution = tuple(Principle(name=name, text=name) for name in rules)
    one = Judge(backend=rule_backend(rules), constitution=constitution, mode="mix")
    p = one("def f(x):", Completion(text="no"), Completion(text="Return the value of x."))
    assert p > 0.85  # better on four principles of five, equal on the fifth


WORDS = "Which of two answers follows the principle better? Principle: Prefer good bad p"


def test_a_language_model_answers_by_the_probabilities_of_its_answer_tokens() -> None:
    words = train_tokenizer([WORDS + " 1 2"], kind="words")
    lm = model_for(words)
    backend = LanguageModelBackend(lm, words, template="{principle} {first} {second}")
    got, turned = backend([question(A, B), question(B, A)])
    ids = torch.tensor([words.encode_prompt("Prefer what is kind. bad good")])
    logits = lm(input_ids=ids).logits[0, -1]
    one, two = words.encode("1")[0], words.encode("2")[0]
    by_hand = logits[[one, two]].softmax(0)[1].item()
    assert got == pytest.approx(by_hand, abs=1e-6)
    p = Judge(backend=backend, constitution=(KIND,))("p", A, B)
    assert p == pytest.approx((got + 1 - turned) / 2)


def question(first: Completion, second: Completion) -> Question:
    return Question(prompt="p", first=first, second=second, principle=KIND)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_questions_of_different_lengths_are_answered_together_as_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = train_tokenizer([WORDS + " 1 2"], kind="words")
    lm = new_model(kind, words, width=16, layers=1, heads=2, positions=64, seed=0)
    backend = LanguageModelBackend(lm, words, template="{principle} {first} {second}")
    long = Completion(text="bad good bad good bad")
    asked = [question(long, A), question(A, B), question(long, long), question(B, A)]
    alone = [backend([one])[0] for one in asked]
    assert len({round(p, 4) for p in alone}) >= 3
    assert backend(asked) == pytest.approx(alone, abs=1e-6)
    monkeypatch.setattr("prefrl.language.judge.AT_ONCE", 3)
    assert backend(asked) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("mode", ["sample", "mix"])
def test_pairs_are_judged_together_as_alone(mode: str) -> None:
    asked: list[int] = []
    rules = rule_backend(RULES)

    def counting(questions: list[Question]) -> list[float]:
        asked.append(len(questions))
        return list(rules(questions))

    one = Judge(backend=counting, constitution=(KIND, SHORT), mode=mode)
    pairs = [(f"p{i}", *texts) for i in range(8) for texts in ((A, B), (B, A), (A, A))]
    together = one.probs(pairs)
    assert asked == [24 * 2 * (2 if mode == "mix" else 1)]
    assert together == [one(*pair) for pair in pairs]
    assert len(set(together)) == (5 if mode == "sample" else 3)


def model_for(words):
    return new_model("llama", words, width=16, layers=1, heads=2, positions=64, seed=0)


def test_answers_that_one_token_cannot_tell_apart_are_refused() -> None:
    words = train_tokenizer([WORDS], kind="words")  # knows neither 1 nor 2
    with pytest.raises(UserError, match="differ in their first token"):
        LanguageModelBackend(model_for(words), words)


def test_a_constitution_needs_principles_and_rules_that_exist() -> None:
    with pytest.raises(UserError, match="no principle"):
        judge()
    with pytest.raises(UserError, match="no rule 'brave'"):
        judge(Principle(name="brave", text="?"))("p", A, B)
    with pytest.raises(UserError, match=r"got 2\.0, wanted a probability"):
        Judge(backend=lambda asked: [2.0] * len(asked), constitution=(KIND,))("p", A, B)
    with pytest.raises(UserError, match="got 1 answers, wanted 2"):
        Judge(backend=lambda _: [0.5], constitution=(KIND,))("p", A, B)
