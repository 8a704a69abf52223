import dataclasses
import math

import pytest

from prefrl.config import TrainConfig, differences, from_dict, read_toml, to_dict, write_toml
from prefrl.errors import UserError
from prefrl.recipes import recipe_for

TASKS = ("ALE/Pong-v5", "HalfCheetah-v5", "prefrl/Dot-v0")


@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_survives_the_way_through_toml(task, tmp_path):
    config = recipe_for(task)
    write_toml(config, tmp_path / "config.toml")
    assert read_toml(tmp_path / "config.toml") == config


def test_none_survives_too(tmp_path):
    config = TrainConfig(task="ALE/Pong-v5")
    assert config.env.sticky is None
    write_toml(config, tmp_path / "config.toml")
    assert read_toml(tmp_path / "config.toml").env.sticky is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stepz": 1}, "unknown setting 'stepz'; did you mean 'steps'?"),
        (
            {"ppo": {"clip_range": 0.2}},
            "unknown setting 'ppo.clip_range'; did you mean 'ppo.clip'?",
        ),
        ({"labels": "many"}, "labels: got 'many', wanted int"),
        ({"labels": True}, "labels: got True, wanted int"),
        ({"ppo": 3}, "ppo: got 3, wanted a table of settings"),
        ({"reward": "lerned"}, "reward: got 'lerned', wanted one of learned, true"),
        ({"labels": -1}, "labels: got -1, wanted 0 or more"),
        ({"policy": {"widths": 64}}, "policy.widths: got 64, wanted a list"),
        (
            {"queries": {"points": [[0, 0, 0]]}},
            "queries.points: got [0, 0, 0], wanted a list of 2",
        ),
        ({"queries": {"initial": 2.0}}, "queries.initial: got 2.0, wanted 0 to 1"),
        ({"queries": {"stale_after": -5}}, "queries.stale_after: got -5, wanted 1 or more"),
        ({"policy": {"widths": [8, 0]}}, "policy.widths: got (8, 0), wanted each 1 or more"),
        ({"policy": {"log_std": math.inf}}, "policy.log_std: got inf, wanted a finite number"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(UserError) as caught:
        from_dict(TrainConfig, {"task": "prefrl/Dot-v0", **data})
    assert str(caught.value) == message


def test_none_may_be_given_from_python():
    config = from_dict(TrainConfig, {"task": "x", "model": {"clip": None}, "reward_model": None})
    assert config.model.clip is None
    assert config.reward_model is None


def test_an_integer_is_good_enough_for_a_float():
    assert from_dict(TrainConfig, {"task": "x", "ppo": {"gamma": 1}}).ppo.gamma == 1.0


def test_unreadable_toml_names_the_file(tmp_path):
    (tmp_path / "config.toml").write_text("steps = = 3")
    with pytest.raises(UserError, match=r"config\.toml is not valid TOML"):
        read_toml(tmp_path / "config.toml")


def test_differences_name_old_and_new_values():
    old = recipe_for("prefrl/Dot-v0")
    new = dataclasses.replace(old, seed=3, ppo=dataclasses.replace(old.ppo, gamma=0.5))
    assert differences(old, old) == {}
    assert differences(old, new) == {
        "seed": "seed was 0, now 3",
        "ppo.gamma": "ppo.gamma was 0.9, now 0.5",
    }


def test_to_dict_holds_plain_values_only():
    data = to_dict(recipe_for("ALE/Pong-v5"))
    assert data["policy"]["widths"] == [64, 64]
    assert data["reward_model"] == "none"
