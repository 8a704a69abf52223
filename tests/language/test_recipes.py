"""The language recipes hold together, and say that nobody ran them."""

from pathlib import Path

import pytest

from prefrl.config import from_dict, to_dict
from prefrl.recipes import instructgpt, tldr_pythia


@pytest.mark.parametrize("recipe", [instructgpt, tldr_pythia])
def test_every_stage_has_settings_that_can_be_written_and_read(recipe) -> None:
    texts = {"texts": Path("t.jsonl")} if recipe is instructgpt else {}
    stages = (
        recipe.sft(data=Path("d.jsonl"), model="m"),
        recipe.reward(data=Path("l.jsonl"), model="m"),
        recipe.ppo(data=Path("p.jsonl"), model="m", reward="r", **texts),
    )
    for config in stages:
        assert from_dict(type(config), to_dict(config)) == config
    ppo = stages[-1]
    assert ppo.batch == 512
    if recipe is instructgpt:  # 8 pretraining texts for each episode of a minibatch
        assert ppo.lm.pretraining_batch == 8 * ppo.batch // ppo.lm.ppo.minibatches
    assert "Not run by us" in recipe.__doc__
