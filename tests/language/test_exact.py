"""*Exact*: the enumeration is right, and PPO with a KL penalty reaches the optimum."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from prefrl.language.config import LanguageConfig
from prefrl.language.models import logprobs
from prefrl.language.policy import Sampling
from prefrl.language.tasks.exact import (
    Exact,
    best_of,
    exact_task,
    expected,
    frontier,
    kl,
    optimum,
    reference_model,
    sequence_logp,
    total_variation,
)
from prefrl.language.tokens import completions_of
from prefrl.language.trainer import LanguageTrainer
from prefrl.ppo import PPOConfig
from tests.language.small import KINDS


@pytest.fixture(scope="module")
def task() -> Exact:
    """3 symbols, at most 3 tokens: 1 + 3 + 9 that end and 27 that are cut off."""
    return exact_task(symbols=3, length=3, seed=0)


def sampling(task: Exact, temperature: float = 1.0) -> Sampling:
    return Sampling(temperature=temperature, never_said=task.tokenizer.never_said)


def reference(task: Exact, **options: Any) -> torch.Tensor:
    return sequence_logp(reference_model(task, seed=0, **options), task, sampling(task))


def test_every_completion_is_there_once(task: Exact) -> None:
    texts = task.completions
    rows = {
        tuple(ids[keep].tolist()) for ids, keep in zip(texts.completion, texts.mask, strict=True)
    }
    assert len(rows) == len(texts) == 40
    assert task.index(texts).tolist() == list(range(40))


def test_a_completion_is_found_however_it_is_padded(task: Exact) -> None:
    a, b, c = task.symbols
    end = task.tokenizer.eos
    said = completions_of([[1]] * 4, [[end], [b, end], [a, c, end], [c, c, c]], pad=0)
    # 1 empty, then 3 of one symbol, 9 of two, 27 of three: 0; 1 + 1; 4 + 2; 13 + 26
    assert task.index(said).tolist() == [0, 2, 6, 39]


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one_and_are_those_of_the_model(task: Exact, kind: Any) -> None:
    network = reference_model(task, kind=kind, seed=0)
    got = sequence_logp(network, task, sampling(task, 0.8))
    assert got.exp().sum().item() == pytest.approx(1, abs=1e-6)
    wanted = logprobs(
        network, task.completions, temperature=0.8, never_said=task.tokenizer.never_said
    )
    torch.testing.assert_close(got, wanted.double().sum(1), rtol=1e-5, atol=1e-5)


def test_the_optimum_has_the_value_beta_log_z_and_nothing_beats_it(task: Exact) -> None:
    start, beta = reference(task), 0.5
    best = optimum(start, task.reward, beta=beta)
    value = expected(best, task.reward) - beta * kl(best, start)
    assert value == pytest.approx(beta * (start + task.reward / beta).logsumexp(0).item())
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = best + 0.3 * torch.randn(40, generator=generator, dtype=torch.float64)
        other = other - other.logsumexp(0)
        assert expected(other, task.reward) - beta * kl(other, start) < value


def test_the_frontier_rises_from_the_reference_and_bounds_best_of_n(task: Exact) -> None:
    start = reference(task)
    divergence, reward = frontier(start, task.reward, betas=torch.tensor([1e6, 2, 1, 0.5, 0.2]))
    assert divergence[0].item() == pytest.approx(0, abs=1e-6)
    assert (divergence.diff() > 0).all()
    assert (reward.diff() > 0).all()
    drawn = best_of(start, task.reward, n=4)
    spent, gained = kl(drawn, start), expected(drawn, task.reward)
    # of the optima that spend no more, none gains as much as the frontier at that KL
    richer = (divergence > spent).nonzero()[0].item()
    assert gained < reward[int(richer)]
    assert spent <= math.log(4) - 3 / 4 + 1e-9  # with few outcomes only a bound


def test_best_of_one_is_the_reference_and_best_of_two_by_hand() -> None:
    # rewards 0, 1, 1 with probabilities .5, .3, .2: best of 2 is 0 with .25, else split 3 : 2
    start = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    reward = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    assert total_variation(best_of(start, reward, n=1), start) == pytest.approx(0, abs=1e-12)
    assert best_of(start, reward, n=2).exp().tolist() == pytest.approx([0.25, 0.45, 0.30])


def test_total_variation_and_kl_by_hand() -> None:
    p = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    q = torch.tensor([0.75, 0.25], dtype=torch.float64).log()
    assert total_variation(p, q) == pytest.approx(0.25)
    assert kl(p, q) == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(2))


def settings(beta: float, updates: int) -> LanguageConfig:
    ppo = PPOConfig(
        gamma=1.0, lr=3e-3, epochs=2, minibatches=2, clip=0.2, entropy_coef=0.0,
        max_grad_norm=1.0, normalise="none",
    )  # fmt: skip
    return LanguageConfig(
        updates=updates, max_tokens=3, beta=beta, critic="shared", missing_eos="keep", ppo=ppo
    )


def trained(task: Exact, *, beta: float, updates: int, batch: int) -> LanguageTrainer:
    of = LanguageTrainer(
        reference_model(task, width=32, seed=0), task.tokenizer, settings(beta, updates), seed=0
    )
    for _ in range(updates):
        said = of.collect(task.prompts(batch))
        of.update(said, task.score(said.rollout.inputs))  # type: ignore[arg-type]
    return of


def test_ppo_with_a_kl_penalty_reaches_the_enumerated_optimum(task: Exact) -> None:
    of = trained(task, beta=0.5, updates=80, batch=192)
    start = reference(task, width=32)
    best = optimum(start, task.reward, beta=0.5)
    now = sequence_logp(of.policy.model, task, of.policy.sampling)
    assert total_variation(start, best) > 0.3
    assert total_variation(now, best) < 0.03
    # the per-token figures the trainer logs sum to the KL of whole sequences
    k1 = of.read(task.completions).k1.double().sum(1)
    assert expected(now, k1) == pytest.approx(kl(now, start), abs=1e-5)


def test_the_expected_gradient_of_an_update_is_that_of_the_exact_objective(task: Exact) -> None:
    # all completions at once, each weighted by its probability, against autograd through the sums
    beta = 0.7
    network = reference_model(task, width=32, seed=0)
    of = LanguageTrainer(network, task.tokenizer, settings(beta, 10), seed=0)
    with torch.no_grad():
        for parameter in of.policy.model.parameters():
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
    texts, never_said = task.completions, of.policy.sampling.never_said
    experience = of.read(texts)
    total = task.reward.float() - beta * experience.k1.sum(1)
    logp = logprobs(of.policy.model, texts, never_said=never_said).sum(1)
    (logp.detach().exp() * logp * total).sum().backward()
    sampled = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    logp = logprobs(of.policy.model, texts, never_said=never_said).sum(1)
    before = torch.where(texts.mask, experience.reference, 0.0).sum(1)
    (logp.exp() * (task.reward.float() - beta * (logp - before))).sum().backward()
    exact = [p.grad for p in network.parameters() if p.grad is not None]
    assert sum(g.abs().sum() for g in exact) > 1
    torch.testing.assert_close(sampled, exact, rtol=1e-3, atol=1e-5)


def test_a_reward_belongs_to_its_completion_alone(task: Exact) -> None:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = task.completions.rows(order)
    wide = replace(
        shuffled,
        completion=torch.nn.functional.pad(shuffled.completion, (0, 2), value=task.symbols[0]),
        mask=torch.nn.functional.pad(shuffled.mask, (0, 2), value=False),
    )
    assert torch.equal(task.score(wide), task.reward.float()[order])
    assert task.reward.mean().item() == pytest.approx(0, abs=1e-9)
