"""How the benchmark of the pretraining term compares its two arms."""

import pytest

from benchmarks.language_docstrings import at_equal_gold


def arm(gold: list[float], loss: list[float]) -> list[dict[str, float]]:
    return [{"gold": g, "loss": n} for g, n in zip(gold, loss, strict=True)]


def test_arms_are_compared_where_each_first_reaches_the_gold_that_both_reach() -> None:
    # means of three in a row: gold 1, 2, 3 and 1, 1.5, 2, so the level is 2;
    # the first arm is there second (loss 5), the other third (loss 3)
    without = arm([0, 1, 2, 3, 4], [3, 4, 5, 6, 7])
    with_it = arm([0.5, 1, 1.5, 2, 2.5], [3, 3, 3, 3, 3])
    found = at_equal_gold({"0": without, "0.5": with_it})
    assert found["gold"] == pytest.approx(2)
    assert found["loss at gamma 0"] == pytest.approx(5)
    assert found["loss at gamma 0.5"] == pytest.approx(3)
