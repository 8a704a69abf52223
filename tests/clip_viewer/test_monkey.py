"""Ten thousand random events; `benchmarks/viewer_monkey.py` does more of them."""

from benchmarks.viewer_monkey import monkey


def test_a_monkey_breaks_nothing_and_every_acknowledged_answer_is_stored(tmp_path):
    found = monkey(tmp_path / "run", events=10_000, seed=1)
    assert found.lost == []
    assert found.acknowledged > 5
    assert {"ComparisonQuestion", "RankingQuestion", "RatingQuestion", "Note"} <= found.screens
