"""What preferences, rankings and ratings say about scores."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from prefrl.feedback import Ranking, Rating
from prefrl.language.dpo import DirectConfig, direct_loss, kto_loss
from prefrl.language.records import (
    Completion,
    Preference,
    TextLabel,
    Verdict,
    places,
    split_ranking,
)
from prefrl.language.verdicts import pair_accuracy, read_verdicts, verdict_loss
from prefrl.rewards.likelihood import plackett_luce_loss


def label(verdict: Verdict) -> TextLabel:
    texts = tuple(Completion(text=f"c{k}") for k in range(places(verdict)))
    return TextLabel(prompt="p", completions=texts, verdict=verdict)


def ranking(*order: int) -> TextLabel:
    return label(Ranking(order=tuple((k,) for k in order)))


def loss(scores: Tensor, *labels: TextLabel, rankings: str = "pairs") -> Tensor:
    return verdict_loss(scores, read_verdicts(labels), rankings=rankings)  # type: ignore[arg-type]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_preference_by_hand() -> None:
    scores = torch.tensor([0.0, math.log(3)])
    assert loss(scores, label(Preference(second=1.0))).item() == pytest.approx(-math.log(0.75))
    assert loss(scores, label(Preference(second=0.0))).item() == pytest.approx(-math.log(0.25))
    half = loss(scores, label(Preference(second=0.5))).item()
    assert half == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_all_pairs_of_a_ranking_are_the_mean_of_its_preferences() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0])
    expected = [-math.log(sigmoid(d)) for d in (2.0 - 0.3, 2.0 + 1.0, 0.3 + 1.0)]
    assert loss(scores, ranking(2, 0, 1)).item() == pytest.approx(sum(expected) / 3)


@pytest.mark.parametrize("rankings", ["pairs", "plackett-luce"])
def test_a_ranking_of_two_is_the_preference(rankings: str) -> None:
    scores = torch.tensor([0.7, -0.4])
    by_ranking = loss(scores, ranking(1, 0), rankings=rankings)
    assert torch.equal(by_ranking, loss(scores, label(Preference(second=1.0)))) or (
        by_ranking.item() == pytest.approx(loss(scores, label(Preference(second=1.0))).item())
    )


def test_plackett_luce_reads_a_ranking_whole() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1])
    expected = plackett_luce_loss(scores[torch.tensor([2, 0, 3, 1])])
    got = loss(scores, ranking(2, 0, 3, 1), rankings="plackett-luce")
    torch.testing.assert_close(got[0], expected)


@pytest.mark.parametrize("K", [2, 3, 5])
def test_every_label_weighs_one_however_many_completions_it_ranks(K: int) -> None:
    # equal scores: every pair costs log 2, so a weight that grew with K would show
    scores = torch.zeros(K + 2)
    both = loss(scores, ranking(*range(K)), label(Preference(second=1.0)))
    torch.testing.assert_close(both, torch.full((2,), math.log(2)))


def test_labels_of_all_kinds_stand_side_by_side() -> None:
    labels = [ranking(1, 0, 2), label(Rating(value=7)), label(Preference(second=1.0))]
    scores = torch.tensor([0.1, 0.5, -0.2, 1.0, 0.3, 0.4])
    for rankings in ("pairs", "plackett-luce"):
        alone = [
            loss(scores[a:b], one, rankings=rankings)
            for one, (a, b) in zip(labels, ((0, 3), (3, 4), (4, 6)), strict=True)
        ]
        torch.testing.assert_close(loss(scores, *labels, rankings=rankings), torch.cat(alone))


def test_splitting_a_ranking_gives_the_pairs_it_is_read_as() -> None:
    tied = label(Ranking(order=((2,), (0, 1))))
    parts = split_ranking(tied)
    names = [tuple(c.text for c in part.completions) for part in parts]
    assert names == [("c2", "c0"), ("c2", "c1"), ("c0", "c1")]
    assert [part.verdict for part in parts] == [Preference(second=s) for s in (0.0, 0.0, 0.5)]


def test_accuracy_is_over_decided_pairs() -> None:
    scores = torch.tensor([2.0, 1.0, 3.0, 0.0, 0.0, 0.0, 1.0])
    labels = [ranking(0, 1, 2), label(Preference(second=1.0)), label(Preference(second=0.5))]
    got = pair_accuracy(scores, read_verdicts(labels))
    torch.testing.assert_close(got, torch.tensor([1 / 3, 0.5, 0.5]))  # 0 > 1 alone is right


# ---- direct methods ---------------------------------------------------------------------


def direct(h: float, second: float = 1.0, **settings: object) -> float:
    ratio = torch.tensor([0.0, h], dtype=torch.float64)
    verdicts = read_verdicts([label(Preference(second=second))])
    config = DirectConfig(**settings)  # type: ignore[arg-type]
    return float(direct_loss(ratio, verdicts, config))


def test_direct_losses_by_hand() -> None:
    win, lose = -math.log(sigmoid(0.2 * 1.5)), -math.log(sigmoid(-0.2 * 1.5))
    assert direct(1.5, loss="dpo", beta=0.2) == pytest.approx(win, rel=1e-6)
    assert direct(1.5, loss="cdpo", beta=0.2, noise=0.1) == pytest.approx(0.9 * win + 0.1 * lose)
    robust = (0.9 * win - 0.1 * lose) / 0.8
    assert direct(1.5, loss="robust", beta=0.2, noise=0.1) == pytest.approx(robust)
    assert direct(1.5, loss="ipo", beta=0.2) == pytest.approx((1.5 - 2.5) ** 2)


@pytest.mark.parametrize("loss", ["dpo", "cdpo", "robust", "ipo"])
def test_swapping_sides_and_target_keeps_every_direct_loss(loss: str) -> None:
    assert direct(0.8, 1.0, loss=loss) == pytest.approx(direct(-0.8, 0.0, loss=loss))


def test_robust_dpo_is_unbiased_under_flips() -> None:
    # flips with probability e, then the robust loss with that e: the clean loss on average
    e, clean = 0.2, direct(0.7, 1.0, loss="dpo", beta=1.0)
    kept = direct(0.7, 1.0, loss="robust", beta=1.0, noise=e)
    flipped = direct(0.7, 0.0, loss="robust", beta=1.0, noise=e)
    assert (1 - e) * kept + e * flipped == pytest.approx(clean)


def minimum(loss: str, second: float, **settings: object) -> float:
    """The h of a fine grid at which a label costs least."""
    grid = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    ratio = torch.stack([torch.zeros_like(grid), grid], 1).flatten()
    verdicts = read_verdicts([label(Preference(second=second))] * len(grid))
    losses = direct_loss(ratio, verdicts, DirectConfig(loss=loss, **settings))  # type: ignore[arg-type]
    return float(grid[losses.argmin()])


def test_deterministic_answers_have_no_optimum_under_dpo_and_one_under_ipo_and_cdpo() -> None:
    assert minimum("dpo", 1.0, beta=0.5) == pytest.approx(40)  # the end of the grid
    assert minimum("ipo", 1.0, beta=0.5) == pytest.approx(1.0)  # 1 / (2 beta)
    # beta h = logit(.9) at cDPO's optimum
    assert minimum("cdpo", 1.0, beta=0.5, noise=0.1) == pytest.approx(2 * math.log(9), abs=0.01)


def test_soft_answers_are_matched() -> None:
    assert minimum("dpo", 0.75, beta=0.5) == pytest.approx(2 * math.log(3), abs=0.01)
    draws = 0.75 * 1.0 + 0.25 * -1.0  # of IPO's target, each drawn from p = 3/4
    assert minimum("ipo", 0.75, beta=0.5) == pytest.approx(draws, abs=0.01)


def test_dpo_on_a_ranking_is_plackett_luce_on_the_implied_rewards() -> None:
    ratio = torch.tensor([0.3, -1.0, 2.0])
    config = DirectConfig(beta=0.4, rankings="plackett-luce")
    got = direct_loss(ratio, read_verdicts([ranking(2, 0, 1)]), config)
    torch.testing.assert_close(got[0], plackett_luce_loss(0.4 * ratio[torch.tensor([2, 0, 1])]))


def test_kto_by_hand() -> None:
    config = DirectConfig(loss="kto", beta=0.5, good_weight=1.0, bad_weight=2.0)
    ratio, good = torch.tensor([1.0, 1.0]), torch.tensor([True, False])
    got = kto_loss(ratio, good, torch.tensor(0.4), config)
    expected = [1 - sigmoid(0.5 * 0.6), 2 * (1 - sigmoid(-0.5 * 0.6))]
    torch.testing.assert_close(got, torch.tensor(expected))


def test_kto_raises_good_ones_and_lowers_bad_ones() -> None:
    ratio = torch.zeros(2, requires_grad=True)
    config = DirectConfig(loss="kto", beta=0.5)
    kto_loss(ratio, torch.tensor([True, False]), torch.tensor(0.0), config).sum().backward()
    assert ratio.grad is not None
    assert ratio.grad[0] < 0 < ratio.grad[1]


def test_every_order_of_a_tie_is_the_same() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0])
    for order in itertools.permutations(range(3)):
        tied = label(Ranking(order=(order,)))
        same = loss(scores, tied), loss(scores, label(Ranking(order=((0, 1, 2),))))
        torch.testing.assert_close(*same)
