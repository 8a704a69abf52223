"""The benchmark of Tiny reviews runs from end to end, in a light version."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def test_online_labels_come_from_the_policy_as_it_is_and_cost_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.Tensor, int]] = []
    compared = World.compared

    def watched(world: World, model: torch.nn.Module, count: int, annotator: Any) -> Any:
        first = next(model.parameters()) - next(world.sft.parameters())
        asked.append((first.detach().clone(), count))
        return compared(world, model, count, annotator)

    monkeypatch.setattr(World, "compared", watched)
    scale = replace(LIGHT, updates=4)
    found = run_part("online", 0, scale, folder)["found"]
    (moved, count), *rounds = asked
    assert not moved.any()
    assert sum(count for _, count in rounds) == count == scale.pairs // 4
    assert not rounds[0][0].any()  # the policy is the SFT model still
    distances = [float(moved.abs().sum()) for moved, _ in rounds]
    assert distances[1] > 0
    assert len(set(distances)) == 4
    for points in found.values():
        assert [point["update"] for point in points] == [1, 2, 3, 4]
        assert points[-1]["kl"] != 0


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
