"""Everything trains on a device that is not the CPU: no tensor and no generator is on another.

Of a pretended one, since tests have no GPU.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prefrl
from prefrl.commands import lm_dpo, lm_online, lm_ppo, lm_reward, lm_sft
from prefrl.feedback import FeedbackStore
from prefrl.loop.metrics import read_metrics
from prefrl.ppo import PPO
from tests.pretend_device import DEVICE, Pretended, There, pretended_device

QUICK = {"video": False, "compile": "off", "threads": 1}
DOT = {"steps": 3_200, "labels": 40, "checkpoint_every": 1_280, **QUICK}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "pairs": ("prefrl/Dot-v0", DOT),
    "rankings": ("prefrl/Dot-v0", {**DOT, "queries": {"segments": 3}}),
    "true reward": ("prefrl/Dot-v0", {**DOT, "reward": "true", "labels": 0}),
    "robot": (
        "HalfCheetah-v5",
        {
            "steps": 1_024, "labels": 16, "num_envs": 2, "rollout_steps": 128,
            "checkpoint_every": 512, "queries": {"every": 256},
            "ppo": {"epochs": 2, "minibatches": 2}, **QUICK,
        },
    ),
    "pixels": (
        "ALE/Pong-v5",
        {
            "steps": 384, "labels": 8, "num_envs": 2, "rollout_steps": 32,
            "checkpoint_every": 192, "model": {"pretrain_epochs": 2.0},
            "queries": {"pool": 48, "every": 128, "initial": 0.5, "per_rollout": 4}, **QUICK,
        },
    ),
}  # fmt: skip


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    with pretended_device(monkeypatch) as mode:
        yield mode


def test_what_a_gpu_refuses_is_refused(pretended: Pretended) -> None:
    here, there = torch.ones(3), torch.ones(3, device=DEVICE)
    assert isinstance(there, There)
    assert (there + 1).sum().item() == 6
    with pytest.raises(RuntimeError, match="tensors of two devices"):
        _ = here + there
    with pytest.raises(RuntimeError, match="a generator of another device"):
        torch.rand(3, device=DEVICE, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="a generator of another device"):
        torch.rand(3, generator=torch.Generator(device=DEVICE))
    with pytest.raises(TypeError, match="cannot be converted to numpy"):
        np.asarray(there)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_there_and_goes_on_there(
    name: str, tmp_path: Path, pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, settings = RUNS[name]
    prefrl.train(task, out=tmp_path / "alone", **settings)
    rows = read_metrics(tmp_path / "alone" / "metrics.jsonl")
    assert rows[-1]["step"] >= settings["steps"]
    assert any("ppo/loss" in row for row in rows)
    assert any("reward/updates" in row for row in rows) == (settings["labels"] > 0)
    assert pretended.gradients > 0
    alone = sum("ppo/loss" in row for row in rows)

    update, updates = PPO.update, [0]

    def interrupted(ppo: PPO, *args: Any, **about: Any) -> dict[str, float]:
        updates[0] += 1
        if updates[0] == alone:  # the last one
            raise KeyboardInterrupt
        return update(ppo, *args, **about)

    monkeypatch.setattr(PPO, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prefrl.train(task, out=tmp_path / "stopped", **settings)
    assert list((tmp_path / "stopped" / "checkpoints").iterdir())
    prefrl.train(task, out=tmp_path / "stopped", **settings)
    assert updates[0] < 2 * alone  # it went on from a checkpoint
    again = read_metrics(tmp_path / "stopped" / "metrics.jsonl")
    assert again[-1]["ppo/loss"] == rows[-1]["ppo/loss"]


def test_a_model_is_fitted_there_and_scores_there_as_here(
    tmp_path: Path, pretended: Pretended
) -> None:
    prefrl.train("prefrl/Dot-v0", out=tmp_path / "run", **DOT)
    before = pretended.gradients
    prefrl.fit(tmp_path / "run", updates=5, out=tmp_path / "fit")
    assert pretended.gradients > before
    with FeedbackStore.open(tmp_path / "run") as store:
        label = store.labels(after=0)[0]
        segments = [store.segment(i) for i in label.segments]
    there = prefrl.RewardModel.load(tmp_path / "fit", device=DEVICE.type).score(segments)
    here = prefrl.RewardModel.load(tmp_path / "fit").score(segments)
    assert isinstance(there, There)
    assert not isinstance(here, There)
    torch.testing.assert_close(there.cpu(), here)


def test_language_models_train_there(tmp_path: Path, pretended: Pretended) -> None:
    small = "--new.width 16 --new.layers 1 --new.heads 2 --new.positions 32"
    optim = "--optim.epochs 1 --optim.batch 16"
    lm = (
        "--batch 8 --lm.updates 2 --lm.max-tokens 6 --lm.ppo.epochs 1 --lm.ppo.minibatches 2 "
        "--checkpoint-every 1 --offline --threads 1"
    )

    def stage(command: Any, options: str, name: str) -> None:
        out, before = ["--out", str(tmp_path / name)], pretended.gradients
        command.main([*f"--task reviews {options}".split(), *out], prog="prefrl lm")
        assert (tmp_path / name / "model").is_dir()
        assert pretended.gradients > before

    sft = f"--model {tmp_path / 'sft'}"
    reward = f"--reward {tmp_path / 'reward'}"
    stage(lm_sft, f"--demonstrations 60 {optim} {small}", "sft")
    stage(lm_reward, f"--annotator.labels 20 {optim} --reward.members 2 {sft}", "reward")
    stage(lm_dpo, f"--annotator.labels 20 {optim} {sft}", "dpo")
    stage(lm_ppo, f"{lm} {sft} {reward} --lm.pretraining 0.1", "ppo")
    rounds = "--rounds 2 --annotator.labels 13 --reference-samples 8"
    stage(lm_online, f"{lm} {sft} {rounds} --optim.epochs 1 --optim.batch 4", "online")
