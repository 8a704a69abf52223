"""Training on a reward model that is there already."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import prefrl
from envs import make_vec
from prefrl.cli import main
from prefrl.config import read_toml
from prefrl.errors import UserError
from prefrl.feedback import FeedbackStore, Provenance, Segment
from prefrl.loop.metrics import read_metrics
from prefrl.loop.rundir import RunDir
from prefrl.loop.state import spaces_of
from prefrl.recipes import recipe_for
from prefrl.rewards import RewardConfig, RewardModel, find_model
from prefrl.rewards.saved import ABOUT, WEIGHTS, sha256
from prefrl.run import _unread
from tests.loop.answered import DOT, answered

PENDULUM = "Pendulum-v1"
SHORT = {"steps": 1_920, "threads": 1, "video": False, "checkpoint_every": 640}
OPTIONS = ["--steps", "1920", "--threads", "1", "--no-video", "--checkpoint-every", "640"]


def walks(count: int) -> list[Segment]:
    """Ten steps each of a random walk on the real task, with its real reward."""
    venv = make_vec(DOT, num_envs=count, seed=3)
    rng = np.random.default_rng(0)
    seen, acted, rewards, now = [], [], [], venv.reset_at(0)
    for _ in range(10):
        action = rng.integers(0, 5, count)
        seen.append(now.copy())
        acted.append(action)
        now = venv.step(action)[0]
        rewards.append(venv.score.true_reward)
    made = []
    for env in range(count):
        where = Provenance(task=DOT, seed=3, policy_step=0, env=env, episode=0, t0=0)
        made.append(
            Segment(
                observations=np.stack([x[env] for x in seen]),
                actions=np.stack([x[env] for x in acted]),
                true_reward=np.array([x[env] for x in rewards], dtype=np.float64),
                ended=False,
                provenance=where,
                clip=b"",
            )
        )
    return made


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of the dot, from 150 answers about random walks."""
    run = tmp_path_factory.mktemp("frozen") / "run"
    answered(run, sizes=[2] * 150, segments=walks(300))
    prefrl.fit(run, out=run.with_name("fit"), updates=250, threads=1)
    return run.with_name("fit")


def test_a_policy_learns_the_dot_from_a_frozen_reward_model(fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = prefrl.train(DOT, reward_model=fitted, steps=30_000, threads=1, video=False, out=out)
    rows = read_metrics(run.metrics)
    assert rows[-1]["episode/true_return"] > -8  # a random walk takes -20, walking there -5
    assert rows[-1]["feedback/labels"] == 0
    with FeedbackStore.open(out) as store:
        assert store.counts()["queries"] == 0
    config = read_toml(run.config)
    assert config.reward_model == str(fitted)
    assert config.reward_model_sha256 == find_model(fitted).sha256
    assert config.labels == 0
    kept, given = RewardModel.load(out).state(), RewardModel.load(fitted).state()
    assert all(torch.equal(kept[k], given[k]) for k in given)  # not a bit was learned


def test_it_goes_on_after_its_source_is_gone_and_refuses_another(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", str(tmp_path / "run")
    shutil.copytree(fitted, source)
    prefrl.train(DOT, reward_model=source, out=out, **SHORT)
    assert main(["train", "--resume", "--out", out]) == 0
    again = Path(os.path.relpath(source))  # the same directory, by another path
    prefrl.train(DOT, reward_model=again, out=out, **SHORT)
    assert main(["train", DOT, "--reward-model", str(again), "--out", out, *OPTIONS]) == 0
    shutil.rmtree(source)
    assert main(["train", "--resume", "--out", out]) == 0
    about = next(iter(sorted(Path(out).glob("checkpoints/*/reward_model.json"))))
    assert json.loads(about.read_text())["sha256"] == find_model(fitted).sha256
    capsys.readouterr()
    shutil.rmtree(Path(out) / "checkpoints")
    other = RewardModel.load(fitted)
    other.mean += 1.0
    source.mkdir()
    other.save(source)
    assert main(["train", "--resume", "--out", out]) == 2
    assert "has its run gone on since?" in capsys.readouterr().err


def test_a_run_on_an_older_model_goes_on_from_its_own_copy(fitted: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source", str(tmp_path / "run")
    source.mkdir()
    RewardModel.load(fitted).save(source)
    tensors = load_file(source / WEIGHTS)
    del tensors["median"]  # older files have none
    save_file(tensors, source / WEIGHTS)
    about = json.loads((source / ABOUT).read_text())
    about["sha256"] = sha256(source / WEIGHTS)
    del about["settings"]["firm_threshold"]
    (source / ABOUT).write_text(json.dumps(about))
    assert find_model(source).settings["firm_threshold"] == (0.0, 0.0)  # whatever a recipe has
    prefrl.train(DOT, reward_model=source, out=out, **SHORT)
    shutil.rmtree(source)
    assert main(["train", "--resume", "--out", out]) == 0
    assert find_model(Path(out)).sha256 == about["sha256"]


@pytest.mark.parametrize(
    ("task", "settings", "said"),
    [
        (DOT, {"reward_model": ""}, "reward_model: got '', wanted the directory of a run"),
        (PENDULUM, {}, "is of 'prefrl/Dot-v0', not 'Pendulum-v1'"),
        (DOT, {"labels": 5}, "labels: got 5, with a frozen reward_model; wanted 0"),
        (DOT, {"reward": "true"}, "reward: got 'true', with a frozen reward_model"),
        (DOT, {"rater": "human"}, "with a frozen reward_model nobody is asked"),
        (DOT, {"model": {"members": 7}}, "model.members: got 7, but the reward model in"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_created(
    task: str, settings: dict[str, object], said: str, fitted: Path, tmp_path: Path
) -> None:
    given = {"reward_model": fitted, **SHORT, **settings}
    with pytest.raises(UserError) as caught:
        prefrl.train(task, out=tmp_path / "run", **given)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_another_run_is_refused_as_such(fitted: Path, tmp_path: Path) -> None:
    other = prefrl.train(DOT, out=tmp_path / "other", labels=8, **SHORT)
    with pytest.raises(UserError, match="belongs to a run with other settings"):
        prefrl.train(DOT, reward_model=fitted, out=other.path, **SHORT)


def loose_model(directory: Path, *, task: str, fitted: bool) -> Path:
    """A model of a task in a directory that does not say of which."""
    made = RewardModel.build(
        spaces_of(make_vec(task, num_envs=1, seed=0)),
        RewardConfig(members=2),
        dtype=torch.float32,
        device=torch.device("cpu"),
        generator=torch.Generator(),
    )
    made.fitted = fitted
    directory.mkdir()
    made.save(directory)
    return directory


@pytest.mark.parametrize(
    ("task", "fitted", "said"),
    [
        (PENDULUM, True, "reads observation (3,), but prefrl/Dot-v0 gives (4,)"),
        (DOT, False, "was never fitted to any answer"),
    ],
)
def test_a_model_that_cannot_reward_this_task_is_refused(
    task: str, fitted: bool, said: str, tmp_path: Path
) -> None:
    model = loose_model(tmp_path / "model", task=task, fitted=fitted)
    with pytest.raises(UserError) as caught:
        prefrl.train(DOT, reward_model=model, out=tmp_path / "run", **SHORT)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_same_command_goes_on_though_its_source_has_changed_or_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefrl.run.run", lambda config, out: RunDir.prepare(out, config))
    source = loose_model(tmp_path / "model", task=DOT, fitted=True)

    def same_commands() -> None:
        there = ["--reward-model", f"{source}/", "--out", str(tmp_path / "a")]
        assert main(["train", DOT, *there]) == 0
        prefrl.train(DOT, reward_model=source, out=tmp_path / "b")

    same_commands()
    sha256 = find_model(source).sha256
    other = RewardModel.load(source)
    other.mean += 1.0
    other.save(source)
    assert find_model(source).sha256 != sha256
    same_commands()
    shutil.rmtree(source)
    same_commands()
    assert read_toml(tmp_path / "a" / "config.toml").reward_model_sha256 == sha256


@pytest.mark.parametrize(
    ("task", "own", "kept"),
    [
        ("ALE/Pong-v5", {"actions": "full"}, {"actions": "full"}),
        ("Hopper-v5", {"horizon": None}, {"horizon": 300}),  # no matter of the model's
    ],
)
def test_the_actions_are_those_of_the_source_and_the_length_of_episodes_the_recipes(
    task: str, own: dict[str, object], kept: dict[str, object], tmp_path: Path
) -> None:
    from prefrl.frozen import frozen_defaults
    from prefrl.recipes import recipe_for

    recipe = recipe_for(task)
    run = tmp_path / "run"
    RunDir.prepare(run, dataclasses.replace(recipe, env=dataclasses.replace(recipe.env, **own)))
    loose_model(run / "checkpoints", task=DOT, fitted=True)
    (run / "checkpoints").rename(run / "step-1")
    (run / "checkpoints").mkdir()
    (run / "step-1").rename(run / "checkpoints" / "step-1")
    settled = frozen_defaults(recipe, run, out=None).env
    assert {name: getattr(settled, name) for name in kept} == kept


@pytest.mark.parametrize(
    ("task", "name", "value"),
    [("ALE/Pong-v5", "far_inputs", "cut"), ("Pendulum-v1", "network", "small")],
)
def test_what_a_model_has_written_down_is_not_called_idle(task: str, name: str, value: str) -> None:
    """Older files of pixels say "cut", which only states read."""
    config = recipe_for(task)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **{name: value}))
    pixels = task.startswith("ALE/")
    assert f"model.{name}" in dict(_unread(config, pixels=pixels))
    frozen = dataclasses.replace(config, reward_model="model")
    assert not any(x.startswith("model.") for x in dict(_unread(frozen, pixels=pixels)))
