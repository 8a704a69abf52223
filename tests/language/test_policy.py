"""The language policy is a policy like any other, and padding does not reach it."""

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prefrl.agents.policy import CategoricalPolicy, ControlInputs, PolicyConfig
from prefrl.language.collect import rollout_of
from prefrl.language.lora import adapted
from prefrl.language.models import ScalarModel, logprobs
from prefrl.language.policy import LanguagePolicy, Reference, Sampling, in_chunks
from prefrl.language.tokens import Completions
from prefrl.ppo import PPO, Gradient, PPOConfig, Rollout, ppo_loss
from tests.language.small import KINDS, model, policy, texts, weights, widened

V, B = 6, 32


class Table(nn.Module):
    """Logits of the next token, looked up by the present one: a context and its arms."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits.clone())

    def forward(self, input_ids: Tensor, logits_to_keep: int = 0, **_: Any) -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(logits=nn.functional.embedding(input_ids, self.table))


class TableCritic(ScalarModel):
    """V of the present token."""

    def __init__(self, values: Tensor) -> None:
        nn.Module.__init__(self)
        self.table = nn.Parameter(values.clone())

    def before_each_token(self, said: Completions) -> Tensor:
        return nn.functional.embedding(said.prompt[:, -1:], self.table).squeeze(-1)


class Lookup(nn.Module):
    """The same tables for a control policy, whose observation is the number of the context."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.clone())

    def forward(self, observation: Tensor) -> Tensor:
        return nn.functional.embedding(observation.long().squeeze(-1), self.table)


def bandit_and_language() -> tuple[CategoricalPolicy, LanguagePolicy]:
    """Two policies over V arms in V contexts with equal logits and values."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(V, V, generator=generator)
    values = torch.randn(V, 1, generator=generator)
    bandit = CategoricalPolicy(
        gymnasium.spaces.Box(0, V, (1,), dtype=np.float32),
        V,
        PolicyConfig(normalise_observations=False),
        dtype=torch.float32,
        generator=generator,
    )
    bandit.actor, bandit.critic = Lookup(logits), Lookup(values)
    speaker = LanguagePolicy(
        Table(logits), sampling=Sampling(temperature=1.0), critic=TableCritic(values),
        entropy_gradient=True,
    )  # fmt: skip
    return bandit, speaker


def test_a_one_token_language_model_is_a_contextual_bandit_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(1)
    context = torch.randint(V, (B, 1), generator=generator)
    arm = torch.randint(V, (B, 1), generator=generator)
    reward = torch.randn(B, 1, generator=generator)
    bandit, speaker = bandit_and_language()
    everywhere = torch.ones(B, 1, dtype=torch.bool)
    said = Completions(
        prompt=context, prompt_mask=everywhere, completion=arm, mask=everywhere.clone()
    )
    inputs = ControlInputs(observation=context.float().unsqueeze(-1), action=arm)
    with torch.no_grad():
        at_games, at_text = bandit.evaluate(inputs), speaker.evaluate(said)
    assert torch.equal(at_games.logp, at_text.logp)
    spoken = replace(rollout_of(said, at_text.logp, at_text.value, gamma=1.0), reward=reward)
    zero = torch.zeros_like(reward)
    played = Rollout(
        inputs=inputs, mask=everywhere, logp=at_games.logp, value=at_games.value, reward=reward,
        next_value=zero, discount=zero, trace=zero,
    )  # fmt: skip

    def learn(of: Any, rollout: Rollout, rows: Any) -> tuple[dict[str, float], list[Tensor]]:
        config = PPOConfig(lr=0.01, epochs=3, minibatches=4)
        sampler = torch.Generator().manual_seed(2)
        trainer = PPO(Gradient(of, config), config, generator=sampler, rows=rows)
        figures = trainer.update(rollout, progress=0.25)
        gradients = [p.grad for p in trainer.gradient.parameters if p.grad is not None]
        return figures, gradients

    games, text = learn(bandit, played, "steps"), learn(speaker, spoken, "sequences")
    assert games[0] == text[0]
    for ours, theirs in zip(games[1], text[1], strict=True):
        assert torch.equal(ours, theirs)
        assert ours.abs().sum() > 0
    actor: Any = bandit.actor
    critic: Any = bandit.critic
    assert torch.equal(actor.table, speaker.model.table)
    assert torch.equal(critic.table, speaker.critic.table)  # type: ignore[union-attr]


def loss_and_gradient(of: LanguagePolicy, said: Completions) -> tuple[Tensor, list[Tensor]]:
    """Of PPO, on advantages that grow with the step."""
    for parameter in of.parameters():
        parameter.grad = None
    now = of.evaluate(said)
    rollout = rollout_of(said, now.logp.detach() - 0.1, now.value.detach(), gamma=1.0)
    reward = torch.arange(said.completion.shape[1]).expand(said.completion.shape).float()
    config = PPOConfig(clip=0.5, normalise="rollout", gamma=1.0)
    trainer = PPO(Gradient(of, config), config, generator=torch.Generator(), rows="sequences")
    batch = trainer._batch(replace(rollout, reward=torch.where(said.mask, reward, 0.0)))
    coef = torch.tensor(config.entropy_coef)
    loss = ppo_loss(now, batch, steps=batch.mask.sum(), entropy_coef=coef, config=config)
    loss.total.backward()
    return loss.total.detach(), [p.grad for p in of.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 3)])
def test_more_padding_changes_neither_loss_nor_gradient(kind: str, left: int, right: int) -> None:
    of, said = policy(kind), texts()
    plain, gradients = loss_and_gradient(of, said)
    wide, wider = loss_and_gradient(of, widened(said, left=left, right=right))
    torch.testing.assert_close(wide, plain)
    torch.testing.assert_close(wider, gradients, rtol=1e-4, atol=1e-6)
    assert sum(g.abs().sum() for g in gradients) > 0


def test_log_probabilities_carry_the_temperature_of_sampling() -> None:
    of, said = policy(), texts()
    wanted = logprobs(of.model, said, temperature=0.7, never_said=of.sampling.never_said)
    torch.testing.assert_close(torch.where(said.mask, of.evaluate(said).logp, 0.0), wanted)
    assert not torch.allclose(wanted, logprobs(of.model, said))


def test_entropy_is_that_of_the_distribution_sampled_from() -> None:
    # all logits equal over 13 tokens but <pad>, <bos>, <unk>: log 11
    of = policy()
    nn.init.zeros_(of.model.get_output_embeddings().weight)
    entropy = of.evaluate(texts()).entropy
    assert entropy.flatten().tolist() == pytest.approx([math.log(11)] * 8, rel=1e-5)


def test_a_shared_critic_begins_without_an_opinion_and_reaches_the_trunk() -> None:
    of = policy(critic="shared")
    assert of.evaluate(texts()).value.abs().sum() == 0
    assert of.value_head is not None
    nn.init.ones_(of.value_head.weight)
    of.evaluate(texts()).value.square().sum().backward()
    assert of.model.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_shared_critic_reads_the_state_before_each_token() -> None:
    of, said = policy(critic="shared"), texts()
    assert of.value_head is not None
    nn.init.normal_(of.value_head.weight, generator=torch.Generator().manual_seed(0))
    other = replace(said, completion=torch.full_like(said.completion, 7))
    same, moved = of.evaluate(said).value, of.evaluate(other).value
    torch.testing.assert_close(same[:, 0], moved[:, 0])
    assert not torch.allclose(same[:, 1:], moved[:, 1:])


def test_without_a_critic_values_are_zero() -> None:
    assert policy(critic=None).evaluate(texts()).value.abs().sum() == 0


def test_the_reference_stays_where_the_policy_was() -> None:
    of, said = policy(), texts()
    reference, before = Reference(of), of.evaluate(said).logp.detach()
    with torch.no_grad():
        for parameter in of.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    torch.testing.assert_close(reference.evaluate(said), before)
    assert not torch.allclose(of.evaluate(said).logp, before)


@pytest.mark.filterwarnings("ignore")
def test_with_adapters_the_reference_is_the_model_without_them() -> None:
    base, said = model(), texts()
    sampling = policy().sampling
    before = logprobs(base, said, temperature=0.7, never_said=sampling.never_said)
    lora = adapted(base, rank=2, alpha=4, seed=0)
    of = LanguagePolicy(lora, sampling=sampling, critic=None)
    reference = Reference(of)
    with torch.no_grad():
        for name, parameter in of.named_parameters():
            if "lora_B" in name:
                parameter += 0.5
    after = torch.where(said.mask, of.evaluate(said).logp, 0.0)
    assert not torch.allclose(after, before)
    got = torch.where(said.mask, reference.evaluate(said), 0.0)
    torch.testing.assert_close(got, before)
    trained = [n for n, p in of.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_bf16_is_arithmetic_only() -> None:
    of, said = policy(precision="bf16"), texts()
    exact = replace_precision(of)
    assert all(w.dtype == torch.float32 for w in weights(of))
    got = of.evaluate(said).logp
    assert got.dtype == torch.float32
    assert 0 < (got - exact.evaluate(said).logp).abs().max() < 0.05


def replace_precision(of: LanguagePolicy) -> LanguagePolicy:
    return LanguagePolicy(of.model, sampling=of.sampling, critic="shared")


@pytest.mark.parametrize("size", [None, 1, 2])
def test_chunks_join_to_the_whole(size: int | None) -> None:
    of, said = policy(), texts()
    whole = of.evaluate(said)
    joined = in_chunks(of.evaluate, said, size=size)
    torch.testing.assert_close(joined.logp, whole.logp)
    torch.testing.assert_close(joined.entropy, whole.entropy)
