"""Completions come from the distribution whose log-probabilities are trained."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from prefrl.errors import UserError
from prefrl.language.collect import generate, rollout_of, settings, speak
from prefrl.language.policy import LanguagePolicy, Sampling
from prefrl.language.tokens import Completions, Prompts
from prefrl.ppo import gae
from tests.language.small import KINDS, model, policy, texts, tokenizer, widened

PROMPTS = ["a b c", "d"]


def spoken(of: LanguagePolicy, prompts: Prompts, *, seed: int = 0, max_tokens: int = 6) -> Any:
    return speak(
        of,
        prompts,
        tokenizer=tokenizer(),
        max_tokens=max_tokens,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampler_gives_tokens_the_probability_that_the_trainer_does(kind: str) -> None:
    # the sampler's own scores, token by token, against one pass over the padded whole
    of = policy(kind)
    prompts = tokenizer().prompts(PROMPTS * 8)
    how = settings(of.sampling, tokenizer(), 6)
    how.output_scores, how.return_dict_in_generate = True, True
    torch.manual_seed(0)
    out = of.model.generate(
        input_ids=prompts.ids, attention_mask=prompts.mask.long(), generation_config=how
    )
    logp = torch.stack(out.scores, 1).log_softmax(-1)
    ids = out.sequences[:, prompts.ids.shape[1] :]
    drawn = logp.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    mask = (ids == tokenizer().eos).long().cumsum(1).roll(1, 1)
    mask[:, 0] = 0
    said = Completions(prompt=prompts.ids, prompt_mask=prompts.mask, completion=ids, mask=mask == 0)
    ratio = (of.evaluate(said).logp - drawn)[said.mask].exp()
    assert (ratio - 1).abs().max() < 1e-5
    assert said.mask.sum() > 40


def test_first_tokens_have_the_frequencies_of_the_policy() -> None:
    # 4,000 draws: each frequency within 5 standard errors
    of = policy()
    prompts = tokenizer().prompts(["a b"]).repeat(4000)
    said = spoken(of, prompts, max_tokens=1)
    frequency = torch.bincount(said.completion.flatten(), minlength=tokenizer().size) / 4000
    every = torch.arange(tokenizer().size)
    one = replace(said.rows(every), completion=every.unsqueeze(1))
    wanted = of.evaluate(one).logp.exp().flatten().detach()
    assert ((frequency - wanted).abs() <= 5 * (wanted * (1 - wanted) / 4000).sqrt()).all()


def test_padding_the_beginning_and_the_unknown_are_never_said() -> None:
    said = spoken(policy(), tokenizer().prompts(PROMPTS * 64))
    assert set(tokenizer().never_said) == {0, 1, 3}
    assert not torch.isin(said.completion[said.mask], torch.tensor([0, 1, 3])).any()


def test_padding_of_the_prompts_changes_nothing_that_is_said() -> None:
    of, prompts = policy("gpt2"), tokenizer().prompts(PROMPTS)
    alone = texts().prompts
    wide = widened(texts(), left=4).prompts
    assert torch.equal(prompts.ids, alone.ids)
    greedy = replace(of.sampling, temperature=0.0)

    def said(of_prompts: Prompts) -> torch.Tensor:
        return generate(
            of.model,
            of_prompts,
            sampling=greedy,
            tokenizer=tokenizer(),
            max_tokens=6,
            generator=torch.Generator(),
        ).completion

    assert torch.equal(said(wide), said(alone))


def test_the_generator_alone_decides_what_is_drawn() -> None:
    of, prompts = policy(), tokenizer().prompts(PROMPTS * 8)
    first = spoken(of, prompts, seed=1)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert torch.equal(first.completion, spoken(of, prompts, seed=1).completion)
    assert not torch.equal(first.completion, spoken(of, prompts, seed=2).completion)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_follows_the_end_is_padding() -> None:
    said = spoken(policy(), tokenizer().prompts(PROMPTS * 32))
    for ids, mask in zip(said.completion.tolist(), said.mask.tolist(), strict=True):
        length = ids.index(tokenizer().eos) + 1 if tokenizer().eos in ids else len(ids)
        assert mask == [t < length for t in range(len(ids))]


def test_more_tokens_than_the_model_has_positions_are_refused() -> None:
    with pytest.raises(UserError, match="got up to 44 tokens, wanted at most 32"):
        spoken(policy(), tokenizer().prompts(PROMPTS), max_tokens=40)


def test_a_completion_is_an_episode_that_its_last_token_ends() -> None:
    # values 1, 2, 3 of a text of 3 tokens, of which padding follows; gamma .9
    said = texts().rows(torch.tensor([0]))
    value = torch.tensor([[1.0, 2.0, 3.0, 50.0]])
    rollout = rollout_of(said, torch.full((1, 4), -1.0), value, gamma=0.9)
    assert rollout.next_value[0, :2].tolist() == [2, 3]
    assert rollout.discount.tolist() == [[pytest.approx(0.9), pytest.approx(0.9), 0, 0]]
    assert rollout.trace.tolist() == [[1, 1, 0, 0]]
    assert rollout.logp.tolist() == [[-1, -1, -1, 0]]
    assert rollout.value.tolist() == [[1, 2, 3, 0]]


def test_advantages_of_a_padded_batch_are_those_of_each_completion_alone() -> None:
    said = texts()
    generator = torch.Generator().manual_seed(0)
    value, reward = torch.randn(2, 2, 4, generator=generator)

    def advantage(rows: Completions, v: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        rollout = rollout_of(rows, v, v, gamma=1.0)
        return gae(r, rollout.value, rollout.next_value, rollout.discount, rollout.trace, lam=0.9)

    together = advantage(said, value, torch.where(said.mask, reward, 0.0))
    for i, length in enumerate(said.lengths.tolist()):
        row = said.rows(torch.tensor([i]))
        cut = replace(row, completion=row.completion[:, :length], mask=row.mask[:, :length])
        alone = advantage(cut, value[i : i + 1, :length], reward[i : i + 1, :length])
        torch.testing.assert_close(together[i : i + 1, :length], alone)


def test_greedy_speech_takes_the_likeliest_token() -> None:
    network = model()
    said = generate(
        network,
        tokenizer().prompts(PROMPTS),
        sampling=Sampling(temperature=0.0, never_said=tokenizer().never_said),
        tokenizer=tokenizer(),
        max_tokens=1,
        generator=torch.Generator(),
    )
    prompts = tokenizer().prompts(PROMPTS)
    logits = network(
        input_ids=prompts.ids,
        attention_mask=prompts.mask.long(),
        position_ids=(prompts.mask.long().cumsum(1) - 1).clamp(min=0),
    ).logits[:, -1]
    logits[:, list(tokenizer().never_said)] = -torch.inf
    assert said.completion.flatten().tolist() == logits.argmax(-1).tolist()
