"""The update: minibatches, chunks, normalisation, annealing, and that it learns."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prefrl.errors import UserError
from prefrl.ppo import PPO, Batch, Evaluation, Gradient, GroupAdvantage, PPOConfig, Rollout
from prefrl.ppo.gradient import normalise_advantage


@dataclass(frozen=True)
class Choices:
    """Inputs of a bandit: which arm was pulled, [B, T]."""

    arm: Tensor

    def rows(self, index: Tensor) -> "Choices":
        return Choices(self.arm[index])

    def by_step(self) -> "Choices":
        return Choices(self.arm.reshape(-1, 1))


class Bandit(nn.Module):
    """Logits of two arms and one value; no state."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.guess = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))

    def evaluate(self, inputs: Any) -> Evaluation:
        logp = self.logits.log_softmax(-1)
        entropy = -(logp.exp() * logp).sum()
        taken = logp[inputs.arm]
        return Evaluation(
            logp=taken, entropy=entropy.expand(taken.shape), value=self.guess.expand(taken.shape)
        )


def rollout_of(bandit: Bandit, arm: Tensor, reward: Tensor) -> Rollout:
    """Pulls that are episodes of one step each."""
    with torch.no_grad():
        now = bandit.evaluate(Choices(arm))
    zero = torch.zeros_like(reward)
    return Rollout(
        inputs=Choices(arm),
        mask=torch.ones_like(arm, dtype=torch.bool),
        logp=now.logp.detach(),
        value=now.value.detach().clone(),
        reward=reward,
        next_value=zero,
        discount=zero,
        trace=zero,
    )


def ppo(policy: Any, *, rows: str = "steps", chunk: int | None = None, **settings: Any) -> PPO:
    config = PPOConfig(**{"lr": 0.01, "epochs": 1, "minibatches": 1, **settings})
    generator = torch.Generator().manual_seed(0)
    gradient = Gradient(policy, config, chunk=chunk)
    return PPO(gradient, config, generator=generator, rows=rows)


def pulls(B: int = 4, T: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    arm = torch.randint(2, (B, T), generator=generator)
    return arm, torch.randn(B, T, generator=generator)


def test_ppo_learns_a_two_armed_bandit() -> None:
    # arm 0 pays 0, arm 1 pays 1
    bandit, generator = Bandit(), torch.Generator().manual_seed(0)
    trainer = ppo(bandit, epochs=4, minibatches=2, lr=0.05)
    for _ in range(30):
        probability = bandit.logits.detach().softmax(-1)
        arm = torch.multinomial(probability, 64, True, generator=generator).view(8, 8)
        trainer.update(rollout_of(bandit, arm, arm.float()), progress=0.0)
    assert bandit.logits.softmax(-1)[1] > 0.95
    assert bandit.guess.item() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("normalise", ["minibatch", "rollout", "none"])
def test_the_first_minibatch_has_ratio_one(normalise: str) -> None:
    bandit = Bandit()
    figures = ppo(bandit, normalise=normalise).update(rollout_of(bandit, *pulls()), progress=0.0)
    assert figures["ppo/approx_kl"] == 0
    assert figures["ppo/clip_fraction"] == 0


@pytest.mark.parametrize("rows", ["steps", "sequences"])
def test_gradient_in_chunks_equals_the_gradient_at_once(rows: str) -> None:
    def gradients(chunk: int | None) -> list[Tensor]:
        bandit = Bandit()
        rollout = rollout_of(bandit, *pulls(B=5))
        uneven = rollout.mask.clone()
        uneven[0, 2:] = False  # so that chunks hold unequal numbers of steps
        bandit.logits.data += torch.tensor([0.3, -0.3])
        trainer = ppo(bandit, rows=rows, chunk=chunk, max_grad_norm=1e9)
        trainer.update(replace(rollout, mask=uneven), progress=0.0)
        return [p.grad for p in bandit.parameters() if p.grad is not None]

    whole, pieces = gradients(None), gradients(2)
    assert len(whole) == 2
    torch.testing.assert_close(pieces, whole)
    assert all(g.abs().sum() > 0 for g in whole)


@pytest.mark.parametrize(("rows", "count"), [("steps", 30), ("sequences", 5)])
def test_minibatches_cover_every_row_once_an_epoch(rows: str, count: int) -> None:
    # 30 steps in 4 minibatches are 8 + 8 + 7 + 7; 5 sequences are 2 + 1 + 1 + 1
    trainer = ppo(Bandit(), rows=rows, minibatches=4, epochs=2, normalise="none")
    rollout = rollout_of(Bandit(), torch.zeros(5, 6, dtype=torch.int64), torch.zeros(5, 6))
    numbered = replace(rollout, reward=torch.arange(30.0).view(5, 6))
    batch = trainer._batch(numbered)
    minibatches = [batch.rows(index) for index in trainer._minibatches(batch)]
    assert len(minibatches) == 8
    first, second = minibatches[:4], minibatches[4:]
    assert sum(len(x) for x in first) == count
    for epoch in (first, second):
        seen = torch.cat([x.advantage.flatten() for x in epoch])
        assert seen.sort().values.tolist() == list(range(30))
    assert not torch.equal(first[0].advantage, second[0].advantage)  # shuffled anew


def test_more_minibatches_than_rows_are_refused() -> None:
    bandit = Bandit()
    trainer = ppo(bandit, rows="sequences", minibatches=3)
    with pytest.raises(ValueError, match=r"ppo.minibatches: got 3, wanted at most 2"):
        trainer.update(rollout_of(bandit, *pulls(B=2)), progress=0.0)


@pytest.mark.parametrize(
    ("progress", "wanted"), [(0.0, 0.01), (0.5, 0.006), (1.0, 0.002), (1.5, 0.002), (-1.0, 0.01)]
)
def test_step_size_anneals_linearly_to_its_end(progress: float, wanted: float) -> None:
    # from .01 to .2 * .01; half-way .01 * (.2 + .8 * .5) = .006
    bandit = Bandit()
    trainer = ppo(bandit, lr=0.01, lr_end=0.2)
    figures = trainer.update(rollout_of(bandit, *pulls()), progress=progress)
    assert figures["ppo/lr"] == pytest.approx(wanted)
    assert trainer.optimiser.param_groups[0]["lr"] == pytest.approx(wanted)


@pytest.mark.parametrize(("progress", "wanted"), [(0.0, 0.03), (0.5, 0.018), (1.0, 0.006)])
def test_entropy_bonus_anneals_linearly_to_its_end(progress: float, wanted: float) -> None:
    # from .03 to .2 * .03; half-way .03 * (.2 + .8 * .5) = .018; reward 0: nothing else moves it
    bandit = Bandit()
    trainer = ppo(bandit, entropy_coef=0.03, entropy_end=0.2, value_coef=0.0)
    arm, reward = pulls()
    figures = trainer.update(rollout_of(bandit, arm, 0 * reward), progress=progress)
    assert figures["ppo/entropy_coef"] == pytest.approx(wanted)
    assert figures["ppo/loss"] == pytest.approx(-wanted * figures["ppo/entropy"], rel=1e-5)


def test_advantages_are_normalised_over_each_minibatch() -> None:
    # with the ratio still 1 the policy loss is minus the mean advantage: 0 where normalised
    arm, reward = pulls()
    for normalise, wanted in (("minibatch", 0.0), ("none", -(reward + 5).mean().item())):
        trainer = ppo(Bandit(), normalise=normalise)
        figures = trainer.update(rollout_of(Bandit(), arm, reward + 5), progress=0.0)
        assert figures["ppo/policy_loss"] == pytest.approx(wanted, abs=1e-6)


def test_normalised_advantages_have_mean_0_and_deviation_1() -> None:
    batch = normalise_advantage(ppo(Bandit())._batch(rollout_of(Bandit(), *pulls())))
    assert batch.advantage.mean().item() == pytest.approx(0, abs=1e-6)
    assert batch.advantage.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_advantages_are_normalised_over_the_rollout_without_its_padding() -> None:
    # real steps 1 and 3: mean 2, deviation 1; the 1,000 is padding
    arm = torch.zeros(1, 3, dtype=torch.int64)
    rollout = rollout_of(Bandit(), arm, torch.tensor([[1.0, 3.0, 1000.0]]))
    rollout = replace(rollout, mask=torch.tensor([[True, True, False]]))
    batch = ppo(Bandit(), normalise="rollout")._batch(rollout)
    assert batch.advantage.flatten()[:2].tolist() == pytest.approx([-1.0, 1.0])


def test_a_group_of_equals_says_nothing_also_after_normalising() -> None:
    # the second group is of two equal rows; the first is of rows of 1 and 3 steps: their mean is
    # not 0 over steps
    mask = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0], [1, 1, 0]]) == 1
    reward = torch.tensor([[1.0], [-1.0], [2.0], [2.0]]) * torch.tensor([1.0, 0.0, 0.0])
    rollout = replace(rollout_of(Bandit(), torch.zeros(4, 3, dtype=torch.int64), reward), mask=mask)
    grouped = GroupAdvantage(kind="grpo", size=2)
    config = PPOConfig(normalise="rollout")
    bandit = Bandit()
    trainer = PPO(
        Gradient(bandit, config), config, rows="sequences", advantage=grouped,
        generator=torch.Generator(),
    )  # fmt: skip
    advantage = trainer._batch(rollout).advantage
    assert (advantage[2:] == 0).all()
    assert advantage[0, 0] == -advantage[1, 0] > 0
    assert advantage[mask].square().mean().item() == pytest.approx(1, abs=1e-5)


def test_returns_are_not_touched_by_the_normalisation_of_advantages() -> None:
    # one-step episodes: the critic's target is the reward itself
    arm, reward = pulls()
    batch = ppo(Bandit(), normalise="rollout")._batch(rollout_of(Bandit(), arm, reward))
    torch.testing.assert_close(batch.returns, reward.reshape(-1, 1))


def test_target_kl_skips_the_rest_of_the_epochs() -> None:
    bandit = Bandit()
    rollout = rollout_of(bandit, *pulls())
    bandit.logits.data += torch.tensor([1.0, -1.0])  # already far from the one that acted
    figures = ppo(bandit, epochs=5, target_kl=0.01).update(rollout, progress=0.0)
    assert figures["ppo/minibatches"] == 1
    figures = ppo(bandit, epochs=5).update(rollout, progress=0.0)
    assert figures["ppo/minibatches"] == 5


def test_weights_that_are_lost_are_said_to_be() -> None:
    bandit = Bandit()
    rollout = rollout_of(bandit, torch.tensor([[0], [1]]), torch.tensor([[1.0], [math.nan]]))
    with pytest.raises(UserError, match=r"PPO: the loss is nan, .* smaller ppo\.lr"):
        ppo(bandit, minibatches=1, epochs=1).update(rollout, progress=0.0)


def test_gradients_are_scaled_down_to_the_allowed_norm() -> None:
    bandit = Bandit()
    trainer = ppo(bandit, max_grad_norm=0.001, value_coef=100.0)
    trainer.update(rollout_of(bandit, *pulls()), progress=0.0)
    norm = torch.stack([p.grad.norm() for p in bandit.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.001, rel=1e-3)


def test_padding_of_nan_changes_no_weight() -> None:
    def weights(padding: float) -> list[Tensor]:
        bandit = Bandit()
        rollout = rollout_of(bandit, *pulls(B=4, T=3))
        mask = rollout.mask.clone()
        mask[:, 2] = False
        fields = {k: getattr(rollout, k).clone() for k in ("logp", "value", "reward", "trace")}
        for name in ("logp", "value", "reward"):
            fields[name][:, 2] = padding
        padded = replace(rollout, mask=mask, **fields)
        ppo(bandit, rows="sequences", epochs=2, minibatches=2).update(padded, progress=0.0)
        return [p.detach().clone() for p in bandit.parameters()]

    for clean, dirty in zip(weights(0.0), weights(math.nan), strict=True):
        assert torch.equal(clean, dirty)


def test_explained_variance_by_hand() -> None:
    # returns 0, 2, 4, 6 (variance 20/3); values 0, 2, 4, 2: errors 0, 0, 0, 4 (variance 4)
    arm, reward = torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[0.0, 2.0, 4.0, 6.0]])
    rollout = rollout_of(Bandit(), arm, reward)
    rollout = replace(rollout, value=torch.tensor([[0.0, 2.0, 4.0, 2.0]]))
    figures = ppo(Bandit()).update(rollout, progress=0.0)
    assert figures["ppo/explained_variance"] == pytest.approx(1 - 4 / (20 / 3))


def test_the_gradient_is_a_mean_over_the_real_steps() -> None:
    # value 0, rewards 1, 2, 6 and padding: d(.5 * 1/2 mean (V - R)^2) = .5 * -(1 + 2 + 6) / 3
    bandit, arm = Bandit(), torch.zeros(1, 4, dtype=torch.int64)
    rollout = rollout_of(bandit, arm, torch.tensor([[1.0, 2.0, 6.0, 50.0]]))
    rollout = replace(rollout, mask=torch.tensor([[True, True, True, False]]))
    ppo(bandit, chunk=1, max_grad_norm=1e9, value_coef=0.5).update(rollout, progress=0.0)
    assert bandit.guess.grad is not None
    assert bandit.guess.grad.item() == pytest.approx(-1.5)


def test_updates_repeat_bit_for_bit() -> None:
    def weights() -> Tensor:
        bandit = Bandit()
        ppo(bandit, epochs=3, minibatches=4).update(rollout_of(bandit, *pulls()), progress=0.3)
        return bandit.logits.detach()

    assert torch.equal(weights(), weights())


def test_batch_has_the_advantage_of_gae() -> None:
    # gamma is in `discount`; lam of the config is used: delta_1 = 1, A_0 = 0 + .5 * .5 * 1
    rollout = rollout_of(Bandit(), torch.zeros(1, 2, dtype=torch.int64), torch.tensor([[0.0, 1.0]]))
    rollout = replace(rollout, discount=torch.full((1, 2), 0.5), trace=torch.ones(1, 2))
    batch: Batch = ppo(Bandit(), lam=0.5, normalise="none")._batch(rollout)
    assert batch.advantage.flatten().tolist() == [0.25, 1.0]


class Pull:
    """A further loss: arm 0's log-probability."""

    name, weight = "pull", 0.5

    def __init__(self, bandit: Bandit) -> None:
        self.bandit = bandit

    def __call__(self) -> Tensor:
        return -self.bandit.logits.log_softmax(-1)[0]


def test_a_further_loss_adds_its_weighted_gradient_and_is_logged() -> None:
    # at equal logits d(-log p_0)/d logits = (-1/2, 1/2); with weight 1/2 (-1/4, 1/4), norm .3536
    def gradient(*, extra: bool) -> tuple[Tensor, dict[str, float]]:
        bandit = Bandit()
        config = PPOConfig(epochs=1, minibatches=1, max_grad_norm=1e9)
        of = Gradient(bandit, config, auxiliary=[Pull(bandit)] if extra else [])
        trainer = PPO(of, config, generator=torch.Generator(), rows="steps")
        figures = trainer.update(rollout_of(bandit, *pulls()), progress=0.0)
        assert bandit.logits.grad is not None
        return bandit.logits.grad, figures

    (plain, before), (both, after) = gradient(extra=False), gradient(extra=True)
    torch.testing.assert_close(both - plain, torch.tensor([-0.25, 0.25]))
    assert after["ppo/pull"] == pytest.approx(math.log(2))
    assert after["ppo/pull_grad_norm"] == pytest.approx(0.125**0.5)
    assert after["ppo/loss"] == before["ppo/loss"]
    assert "ppo/pull" not in before


def test_the_first_ratio_is_reported_apart_from_the_later_ones() -> None:
    bandit = Bandit()
    rollout = rollout_of(bandit, *pulls())
    figures = ppo(bandit, epochs=3, lr=0.1).update(rollout, progress=0.0)
    assert figures["ppo/first_ratio_deviation"] == 0
    assert figures["ppo/ratio_deviation"] > 0.01


def test_the_norm_of_the_gradient_is_that_before_clipping() -> None:
    bandit = Bandit()
    figures = ppo(bandit, max_grad_norm=1e-3).update(rollout_of(bandit, *pulls()), progress=0.0)
    norm = torch.stack([p.grad.norm() for p in bandit.parameters() if p.grad is not None]).norm()
    assert figures["ppo/grad_norm"] > 10 * norm.item()
