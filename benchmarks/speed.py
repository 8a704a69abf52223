"""Steps per second of prefrl and of stable-baselines3, side by side in one run.

    .venv/bin/python benchmarks/speed.py --out runs/reference/speed

Every figure is a ratio within one run: absolute speeds drift with the machine. The contestants
take turns, `--rounds` times each, and the medians are compared. Same hyperparameters on both
sides (those of `PONG` and `CHEETAH` below), same network, same number of torch's threads while
learning, the same setting of malloc. Not the same: our convolutions take bfloat16 where the
processor has it (there is a row in float32), our emulators run in one thread per core, as they do
for users, and meanwhile our policies act with one of torch's threads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kept import commit, machine

import prefrl
from prefrl.run import keep_freed_memory

PONG = {"num_envs": 8, "rollout_steps": 128}
PONG_PPO = {
    "lr": 2.5e-4, "epochs": 4, "minibatches": 4, "clip": 0.1, "entropy_coef": 0.01, "lam": 0.95
}  # fmt: skip
CHEETAH = {"num_envs": 8, "rollout_steps": 256}
CHEETAH_PPO = {
    "lr": 3e-4, "epochs": 10, "minibatches": 32, "clip": 0.2, "entropy_coef": 0.0, "lam": 0.95
}  # fmt: skip


def main() -> None:
    """Run all comparisons and write `speed.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/reference/speed"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="length of each measurement")
    args = parser.parse_args()
    import torch

    keep_freed_memory()  # for both sides alike: it holds for the whole process
    torch.set_num_threads(os.cpu_count() or 1)
    pong, cheetah = int(16_384 * args.scale), int(32_768 * args.scale)
    table = [
        compare("Pong, PPO on the true reward", sb3_pong, ours_pong, pong, args.rounds),
        compare("Pong, ours in float32", sb3_pong, ours_pong_fp32, pong, args.rounds),
        compare("HalfCheetah, the same", sb3_cheetah, ours_cheetah, cheetah, args.rounds),
        loop_overhead("ALE/Pong-v5", int(98_304 * args.scale), args.rounds),
        loop_overhead("HalfCheetah-v5", int(131_072 * args.scale), args.rounds, compile="on"),
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "speed.json").write_text(
        json.dumps({"machine": machine(), "commit": commit(), "rows": table}, indent=1) + "\n"
    )


def compare(
    name: str,
    theirs: Callable[[int], float],
    ours: Callable[[int], float],
    steps: int,
    rounds: int,
) -> dict[str, Any]:
    """Median steps per second of both, taking turns."""
    speeds = [(theirs(steps), ours(steps)) for _ in range(rounds)]
    sb3, prefrl_ = (statistics.median(column) for column in zip(*speeds, strict=True))
    row = {"what": name, "sb3": round(sb3), "prefrl": round(prefrl_), "ratio": prefrl_ / sb3}
    print(f"{name}: stable-baselines3 {sb3:,.0f}/s, prefrl {prefrl_:,.0f}/s: {row['ratio']:.2f}x")
    return row


def loop_overhead(task: str, steps: int, rounds: int, **settings: Any) -> dict[str, Any]:
    """The recipe's preference loop against the recipe's PPO on the true reward.

    A whole run is put together from what a step costs, a label, and a label of the first fit, all
    measured with batches as full and with as many labels a session as the recipe's on average. It
    errs upwards, on Pong by 4 %: the steps before the first fit are charged an update of the policy
    that they do without.
    """
    from prefrl.recipes import recipe_for

    recipe = recipe_for(task)
    share = recipe.queries.initial
    labels = max(round(recipe.labels * steps / recipe.steps), math.ceil(recipe.model.batch / share))
    every = round(recipe.queries.every * (recipe.labels / recipe.steps) / (labels / steps))
    rollout = recipe.num_envs * recipe.rollout_steps
    if every < 2 * rollout:
        sys.exit(f"{task}: sessions every {every:,} steps, rollouts of {rollout:,}: raise --scale")
    pairs = [
        (
            ours(task, steps, reward="true", labels=0, **settings),
            preferring(task, steps, labels=labels, queries={"every": every}, **settings),
        )
        for _ in range(rounds)
    ]
    plain = statistics.median(speed for speed, _ in pairs)
    costs = [statistics.median(column) for column in zip(*(c for _, c in pairs), strict=True)]
    step, label, first = costs
    seconds = recipe.steps * step + recipe.labels * (share * first + (1 - share) * label)
    loop = recipe.steps / seconds
    slower = 1 - loop / plain
    name = f"{task}, the preference loop against plain PPO"
    print(f"{name}: {loop:,.0f}/s against {plain:,.0f}/s: {slower:.1%} slower")
    return {"what": name, "plain": round(plain), "loop": round(loop), "slower": slower,
            "milliseconds of a label": round(label * 1e3),
            "seconds of the first fit": round(recipe.labels * share * first)}  # fmt: skip


def ours_pong(steps: int, precision: str = "auto") -> float:
    """Steps per second on Pong, Nature CNN, six actions as in SB3."""
    return ours(
        "ALE/Pong-v5",
        steps,
        reward="true",
        labels=0,
        ppo=PONG_PPO,
        policy={"trunk": "nature", "precision": precision, "normalise_observations": False},
        env={"actions": "minimal"},
        **PONG,
    )


def ours_pong_fp32(steps: int) -> float:
    """The same in float32, as SB3 computes."""
    return ours_pong(steps, "fp32")


def ours_cheetah(steps: int) -> float:
    """Steps per second on HalfCheetah; runs of a usual length compile the update by themselves."""
    return ours(
        "HalfCheetah-v5",
        steps,
        reward="true",
        labels=0,
        ppo=CHEETAH_PPO,
        compile="on",
        **CHEETAH,
    )


def ours(task: str, steps: int, **settings: Any) -> float:
    """Steps per second of the loop, without start-up, checkpoints and the first rollout.

    The first rollout's update is the one that compiles, where the update is compiled.
    """
    return _speed(_rollouts(task, steps, **settings))


def preferring(task: str, steps: int, **settings: Any) -> tuple[float, float, float]:
    """Seconds of a step without its labels, of a label, and of a label of the first fit."""
    rows = _rollouts(task, steps, **settings)
    first = next((i for i, row in enumerate(rows) if "reward/updates" in row), len(rows))
    after = rows[first + 1 :]  # its own update may compile
    asked = after[-1]["feedback/labels"] - rows[first]["feedback/labels"] if after else 0
    if not asked:
        sys.exit(f"{task}: no first fit, or no label after it, in {steps:,} steps: raise --scale")
    label = sum(row["time/feedback"] for row in after) / asked
    others = sum(v for row in after for k, v in row.items() if k in PARTS) - asked * label
    return (
        others / (after[-1]["step"] - rows[first]["step"]),
        label,
        rows[first]["time/feedback"] / rows[first]["feedback/labels"],
    )


def _rollouts(task: str, steps: int, **settings: Any) -> list[dict[str, float]]:
    from prefrl.loop.metrics import read_metrics

    with tempfile.TemporaryDirectory() as folder:
        run = prefrl.train(
            task, out=folder, steps=steps, checkpoint_every=10 * steps, video=False, **settings
        )
        return read_metrics(run.metrics)


def _speed(rows: list[dict[str, float]]) -> float:
    """Steps per second after the first of these rollouts, which may be of any length."""
    seconds = sum(v for row in rows[1:] for k, v in row.items() if k in PARTS)
    return (rows[-1]["step"] - rows[0]["step"]) / seconds


PARTS = tuple(f"time/{part}" for part in ("act", "record", "feedback", "reward", "learn", "other"))


def sb3_pong(steps: int) -> float:
    """Steps per second of SB3's PPO on Pong with its own Atari wrappers."""
    import ale_py
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    gymnasium.register_envs(ale_py)
    venv = VecFrameStack(
        make_atari_env("ALE/Pong-v5", PONG["num_envs"], wrapper_kwargs={"frame_skip": 4},
                       env_kwargs={"frameskip": 1, "repeat_action_probability": 0.0}),
        n_stack=4,
    )  # fmt: skip
    model = PPO(
        "CnnPolicy", venv, n_steps=128, n_epochs=4, batch_size=256, learning_rate=2.5e-4,
        clip_range=0.1, ent_coef=0.01, gae_lambda=0.95, device="cpu", seed=0,
    )  # fmt: skip
    return _timed(model, steps)


def sb3_cheetah(steps: int) -> float:
    """Steps per second of SB3's PPO on HalfCheetah with 8 environments."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    venv = make_vec_env("HalfCheetah-v5", CHEETAH["num_envs"], seed=0)
    model = PPO("MlpPolicy", venv, n_steps=256, n_epochs=10, batch_size=64, device="cpu", seed=0)
    return _timed(model, steps)


def _timed(model: Any, steps: int) -> float:
    """Steps per second without the first rollout, during which caches warm up."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Marks(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.marks: list[tuple[float, int]] = []

        def _on_rollout_start(self) -> None:
            self.marks.append((time.perf_counter(), self.num_timesteps))

        def _on_step(self) -> bool:
            return True

    marks = Marks()
    model.learn(steps, callback=marks)
    first = marks.marks[1]
    seconds, done = time.perf_counter() - first[0], model.num_timesteps - first[1]
    model.get_env().close()
    return done / seconds


if __name__ == "__main__":
    main()
