"""The benchmark of Tiny reviews runs from end to end, in a light version."""

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.reviews_parts import LIGHT, World, run_part


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reviews")


def test_the_frontier_has_every_way_of_optimising_in_one_picture(folder: Path) -> None:
    found = run_part("frontier", 0, LIGHT, folder)["found"]
    assert {name.split()[0] for name in found} == {"sft", "ppo", "grpo", "dpo", "best"}
    assert found["sft"][0]["kl"] == 0
    points = [point for points in found.values() for point in points]
    assert all(math.isfinite(value) for point in points for value in point.values())
    learned = [point["learned"] for point in found["best of n"]]
    assert learned == sorted(learned)
    json.dumps(found)


def test_online_labels_come_from_the_present_policy_and_cost_the_same(folder: Path) -> None:
    found = run_part("online", 0, LIGHT, folder)["found"]
    assert found["online"][-1]["labels"] == LIGHT.pairs // 4
    assert found["online"][-1]["kl"] != 0


def test_a_world_begins_from_one_sft_model_and_repeats(folder: Path) -> None:
    first, second = World(0, LIGHT, folder), World(0, LIGHT, folder)
    said = [world.sample(world.sft, 12).completions for world in (first, second)]
    assert said[0] == said[1]
    groups = first.groups(first.sft, 7, size=3)
    assert [len(texts) for _, texts in groups] == [3] * 7
    assert len({prompt for prompt, _ in groups}) == 6  # the prompts in turn
    scores = first.reward_model(first.compared(first.sft, 12, first.annotator)).score(
        first.sample(first.sft, 6).texts
    )
    assert torch.isfinite(scores).all()
