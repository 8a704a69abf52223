"""Where rewards sit, and what the KL estimates estimate."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.collect import rollout_of
from prefrl.language.terms import (
    Beta,
    KLPenalty,
    MissingEOS,
    Score,
    TextExperience,
    checked_scores,
    kl_figures,
    speech_figures,
    whitened,
)
from prefrl.ppo import add_rewards
from tests.language.small import texts

CPU = torch.device("cpu")


def experience(logp: Any, reference: Any) -> TextExperience:
    """Texts of 3 and 4 tokens with these log-probabilities, each [2, 4]."""
    said = texts()
    policy_says, reference_says = torch.tensor(logp), torch.tensor(reference)
    return TextExperience(
        rollout=rollout_of(said, policy_says, torch.zeros(2, 4), gamma=1.0),
        reference=torch.where(said.mask, reference_says, 0.0),
        entropy=said.mask.float() * 0.5,
        ended=torch.tensor([True, False]),
        prompts=("a b c", "d"),
        completions=("e f", "g h i"),
    )


LOGP = [[-1.0, -2.0, -3.0, math.nan], [-1.0, -1.0, -1.0, -1.0]]
REFERENCE = [[-1.5, -2.0, -4.0, math.nan], [-1.0, -0.5, -1.0, -2.0]]


def test_the_score_lands_on_the_last_token_that_was_said() -> None:
    got = Score(scores=torch.tensor([5.0, 7.0]))(experience(LOGP, REFERENCE))
    assert got.tolist() == [[0, 0, 5, 0], [0, 0, 0, 7]]


def test_the_kl_penalty_is_minus_beta_times_the_log_ratio_at_each_token() -> None:
    # k1 = .5, 0, 1 and 0, -.5, 0, 1; beta 2; none at padding, though it holds nan
    got = KLPenalty(beta=2.0)(experience(LOGP, REFERENCE))
    assert got.tolist() == [[-1, 0, -2, 0], [0, 1, 0, -2]]


def test_the_reward_is_the_sum_of_its_terms_logged_over_real_tokens() -> None:
    terms: list[Any] = [Score(scores=torch.tensor([5.0, 7.0])), KLPenalty(beta=2.0)]
    rollout, figures = add_rewards(experience(LOGP, REFERENCE), terms)
    assert rollout.reward.tolist() == [[-1, 0, 3, 0], [0, 1, 0, 5]]
    # 7 real tokens: (5 + 7) / 7 and (-1 - 2 + 1 - 2) / 7
    assert figures["reward/score_mean"] == pytest.approx(12 / 7)
    assert figures["reward/kl_penalty_mean"] == pytest.approx(-4 / 7)


def test_kl_is_summed_over_each_sequence_and_averaged_over_sequences() -> None:
    # k1: 1.5 and .5; k2: (.25 + 1) / 2 = .625 and (.25 + 1) / 2; k3 = e^-k1 - 1 + k1
    figures = kl_figures(experience(LOGP, REFERENCE))
    k3 = [math.exp(-k) - 1 + k for k in (0.5, 0, 1, 0, -0.5, 0, 1)]
    assert figures["lm/kl"] == pytest.approx(1.0)
    assert figures["lm/kl_k2"] == pytest.approx(0.625)
    assert figures["lm/kl_k3"] == pytest.approx(sum(k3) / 2)
    assert figures["lm/kl_per_token"] == pytest.approx(2 / 7)


def test_on_an_enumerated_softmax_k1_and_k3_average_to_the_kl_and_k2_does_not() -> None:
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    kl = (p * (p / q).log()).sum().item()
    said = texts().rows(torch.tensor([0, 0, 0]))
    one = replace(said, completion=said.completion[:, :1], mask=said.mask[:, :1])

    def of(i: int) -> dict[str, float]:
        row = one.rows(torch.tensor([i]))
        log_p, log_q = p.log()[i].view(1, 1), q.log()[i].view(1, 1)
        return kl_figures(
            replace(
                experience(LOGP, REFERENCE),
                rollout=rollout_of(row, log_p, torch.zeros(1, 1), gamma=1.0),
                reference=log_q,
            )
        )

    mean = {
        name: sum(p[i].item() * of(i)[name] for i in range(3))
        for name in ("lm/kl", "lm/kl_k2", "lm/kl_k3")
    }
    assert kl > 0.4
    assert mean["lm/kl"] == pytest.approx(kl)
    assert mean["lm/kl_k3"] == pytest.approx(kl)
    assert abs(mean["lm/kl_k2"] - kl) > 0.05


@pytest.mark.parametrize(
    ("rule", "value", "wanted"),
    [("replace", -1.0, [5, -1]), ("subtract", 2.0, [5, 5]), ("keep", -1.0, [5, 7])],
)
def test_the_missing_end_rules_touch_only_what_was_cut_off(
    rule: Any, value: float, wanted: list[float]
) -> None:
    scores, ended = torch.tensor([5.0, 7.0]), torch.tensor([True, False])
    assert MissingEOS(rule=rule, value=value)(scores, ended).tolist() == wanted


def test_whitening_scales_to_deviation_1_keeps_the_mean_and_leaves_padding_out() -> None:
    # real rewards 1, 1, 1 and 3, 3, 3, 1: mean 13/7; deviation root(mean square - mean^2)
    said = texts()
    rollout = rollout_of(said, torch.zeros(2, 4), torch.zeros(2, 4), gamma=1.0)
    reward = torch.tensor([[1.0, 1, 1, 999], [3, 3, 3, 1]])
    got = whitened(replace(rollout, reward=reward))
    seen = got[said.mask]
    assert seen.mean().item() == pytest.approx(13 / 7)
    assert seen.std(correction=0).item() == pytest.approx(1)
    assert got[0, 3] == 0


@pytest.mark.parametrize(
    ("kl", "wanted"),
    [
        (6.0, 0.1),  # at the target: stays
        (12.0, 0.1 * (1 + 0.2 * 100 / 1000)),  # e = 1, cut to .2
        (5.4, 0.1 * (1 - 0.1 * 100 / 1000)),  # e = -.1
        (0.0, 0.1 * (1 - 0.2 * 100 / 1000)),
    ],
)
def test_beta_is_steered_to_the_target_by_hand(kl: float, wanted: float) -> None:
    beta = Beta(0.1, target=6.0, horizon=1000)
    beta.observe(kl, episodes=100)
    assert beta.value == pytest.approx(wanted)


def test_beta_stays_positive_however_short_its_horizon() -> None:
    beta = Beta(0.1, target=6.0, horizon=10)
    beta.observe(0.5, episodes=128)
    assert beta.value == pytest.approx(0.08)


def test_a_fixed_beta_stays() -> None:
    beta = Beta(0.1, target=None, horizon=1000)
    beta.observe(50.0, episodes=100)
    assert beta.value == 0.1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_refused_by_its_place(bad: float) -> None:
    with pytest.raises(UserError, match=r"got (nan|inf|-inf) for completion 1"):
        checked_scores([1.0, bad], rows=2, device=CPU)


def test_a_reward_for_each_completion_is_wanted() -> None:
    with pytest.raises(UserError, match=r"got the shape \(3,\), wanted \(2,\)"):
        checked_scores([1.0, 2.0, 3.0], rows=2, device=CPU)


def test_figures_of_speech_count_real_tokens_only() -> None:
    figures = speech_figures(experience(LOGP, REFERENCE), torch.tensor([1.0, 3.0]))
    assert figures["lm/score"] == 2
    assert figures["lm/length"] == 3.5
    assert figures["lm/ended"] == 0.5
    assert figures["lm/entropy"] == pytest.approx(0.5)


def surrogate_gradient(theta: Tensor, reference: Tensor, beta: float) -> Tensor:
    """E[grad log p * (-beta k1)] over all outcomes: what k1 in the reward gives on average."""
    p = theta.softmax(-1)
    reward = -beta * (p.log() - reference).detach()
    (p.detach() * theta.log_softmax(-1) * reward).sum().backward()
    assert theta.grad is not None
    return theta.grad


def test_k1_in_the_reward_gives_the_gradient_of_the_kl() -> None:
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    reference = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(-1)
    got = surrogate_gradient(theta, reference, beta=0.3)
    other = theta.detach().clone().requires_grad_()
    kl = (other.softmax(-1) * (other.log_softmax(-1) - reference)).sum()
    (-0.3 * kl).backward()
    assert got.abs().sum() > 0
    torch.testing.assert_close(got, other.grad)
