"""The learning results of the README, again: one run at a time, resumable, then a table.

    .venv/bin/python benchmarks/learning.py pong            3 seeds, synthetic preferences
    .venv/bin/python benchmarks/learning.py robots          learned against true reward
    .venv/bin/python benchmarks/learning.py controls        no labels; a negated oracle
    .venv/bin/python benchmarks/learning.py ppo             our PPO against SB3's, true reward
    .venv/bin/python benchmarks/learning.py bf16            bf16 against fp32, true reward

Runs go to `runs/bench/<suite>/`; what is finished is not run again, what was stopped goes on.
The table, the curves and each arm's configuration go to `runs/reference/<suite>/`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from speed import machine

SEEDS = (0, 1, 2)
ROBOTS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")  # Okabe and Ito


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One line of the table: a task and settings, run on every seed."""

    name: str
    task: str
    settings: dict[str, Any] = field(default_factory=dict)
    """What differs from the task's recipe."""
    seeds: tuple[int, ...] = SEEDS
    sb3: bool = False
    """Trained by stable-baselines3 with the same settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished run."""

    seed: int
    final: float
    """Mean true return over the last 100 episodes."""
    steps: int
    labels: int
    minutes: float
    curve: list[tuple[int, float]]
    """(step, mean true return over the last 100 episodes), at most 200 points."""


def true(name: str, task: str, **settings: Any) -> Arm:
    """An arm trained on the true reward."""
    return Arm(name=name, task=task, settings={"reward": "true", "labels": 0, **settings})


def pong() -> list[Arm]:
    """Christiano's recipe on Pong."""
    return [Arm(name="Pong", task="ALE/Pong-v5")]


def robots() -> list[Arm]:
    """Learned against true reward, same PPO, same steps and seeds."""
    arms = []
    for task in ROBOTS:
        arms += [Arm(name=f"{task} learned", task=task), true(f"{task} true", task)]
    return arms


def controls() -> list[Arm]:
    """What must not learn, and what must learn the opposite."""
    task = "HalfCheetah-v5"
    still = {"ppo": {"lr": 1e-12}, "labels": 0}  # a policy that never moves from its start
    return [
        Arm(name="random policy", task=task, settings={"steps": 300_000, **still}),
        Arm(name="no labels", task=task, settings={"steps": 300_000, "labels": 0}),
        Arm(name="negated oracle", task=task, settings={"steps": 300_000, "rater": "negated"}),
    ]


def ppo() -> list[Arm]:
    """SB3's defaults on HalfCheetah, the published Atari settings on Pong, the same for both."""
    cheetah = {
        "steps": 1_000_000, "num_envs": 8, "rollout_steps": 256, "reward": "true", "labels": 0,
        "policy": {"normalise_observations": False},
        "ppo": {"lr": 3e-4, "lr_end": 1.0, "epochs": 10, "minibatches": 32, "clip": 0.2,
                "entropy_coef": 0.0, "adam_eps": 1e-5, "gamma": 0.99, "lam": 0.95},
    }  # fmt: skip
    pixels = {
        "steps": 1_000_000, "num_envs": 8, "rollout_steps": 128, "reward": "true", "labels": 0,
        "policy": {"trunk": "nature"},
        "ppo": {"lr": 2.5e-4, "lr_end": 0.0, "epochs": 4, "minibatches": 4, "clip": 0.1,
                "entropy_coef": 0.01, "adam_eps": 1e-5, "gamma": 0.99, "lam": 0.95},
    }  # fmt: skip
    arms = []
    for task, name, settings, seeds in (
        ("HalfCheetah-v5", "HalfCheetah", cheetah, SEEDS),
        ("ALE/Pong-v5", "Pong", pixels, (0,)),
    ):
        for who, sb3 in (("prefrl", False), ("SB3", True)):
            arms.append(
                Arm(name=f"{name} {who}", task=task, settings=settings, seeds=seeds, sb3=sb3)
            )
    return arms


def bf16() -> list[Arm]:
    """Does bf16 arithmetic learn as well as fp32? Pong, true reward, the recipe's PPO."""
    return [
        true(precision, "ALE/Pong-v5", steps=1_000_000, policy={"precision": precision})
        for precision in ("bf16", "fp32")
    ]


SUITES: dict[str, Callable[[], list[Arm]]] = {
    f.__name__: f for f in (pong, robots, controls, ppo, bf16)
}


def main() -> None:
    """Run a suite and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--seeds", type=int, nargs="*", help="only these")
    parser.add_argument("--only", help="only arms whose name contains this")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--out", type=Path, default=Path("runs/reference"))
    args = parser.parse_args()
    table: dict[str, list[Result]] = {}
    for arm in SUITES[args.suite]():
        for seed in arm.seeds:
            chosen = (not args.seeds or seed in args.seeds) and (args.only or "") in arm.name
            folder = args.runs / args.suite / f"{arm.name.replace(' ', '-')}-seed{seed}"
            if chosen and not (folder / "result.json").exists():
                (run_sb3 if arm.sb3 else run)(arm, seed, folder, threads=args.threads)
            if (folder / "result.json").exists():
                result = Result(**json.loads((folder / "result.json").read_text()))
                table.setdefault(arm.name, []).append(result)
    write(args.suite, table, args.out / args.suite)


def run(arm: Arm, seed: int, folder: Path, *, threads: int) -> None:
    """One run of ours, begun or resumed; `minutes` counts what its rollouts took."""
    import prefrl
    from prefrl.config import read_toml
    from prefrl.loop.metrics import read_metrics

    settings = {**arm.settings, "seed": seed, "threads": threads}
    directory = prefrl.train(arm.task, out=folder, video=False, **settings)
    rows = read_metrics(directory.metrics)
    if rows[-1]["step"] < read_toml(directory.config).steps:
        sys.exit("stopped: the same command goes on from here")
    seconds = sum(v for r in rows for k, v in r.items() if k in PARTS)
    curve = [(r["step"], r["episode/true_return"]) for r in rows if "episode/true_return" in r]
    save(
        folder,
        Result(
            seed=seed,
            final=curve[-1][1],
            steps=int(rows[-1]["step"]),
            labels=int(rows[-1].get("feedback/labels", 0)),
            minutes=seconds / 60,
            curve=thinned(curve),
        ),
    )


PARTS = tuple(f"time/{part}" for part in ("act", "record", "feedback", "reward", "learn", "other"))


def run_sb3(arm: Arm, seed: int, folder: Path, *, threads: int) -> None:
    """SB3's PPO on the same environments, which show it the true reward."""
    import torch
    from sb3_true_reward import TrueRewardVecEnv
    from stable_baselines3 import PPO

    import prefrl

    if threads:
        torch.set_num_threads(threads)
    settings, ours = arm.settings, arm.settings["ppo"]
    options = {"actions": "reduced"} if arm.task.startswith("ALE/") else {}
    venv = TrueRewardVecEnv(
        prefrl.make_vec(arm.task, num_envs=settings["num_envs"], seed=seed, **options)
    )
    pixels = arm.task.startswith("ALE/")
    model = PPO(
        "CnnPolicy" if pixels else "MlpPolicy",
        venv,
        n_steps=settings["rollout_steps"],
        n_epochs=ours["epochs"],
        batch_size=settings["num_envs"] * settings["rollout_steps"] // ours["minibatches"],
        learning_rate=lambda left: ours["lr"] * (ours["lr_end"] + (1 - ours["lr_end"]) * left),
        clip_range=ours["clip"],
        ent_coef=ours["entropy_coef"],
        gamma=ours["gamma"],
        gae_lambda=ours["lam"],
        device="cpu",
        seed=seed,
    )
    started = time.monotonic()
    model.learn(settings["steps"], progress_bar=False)
    save(
        folder,
        Result(
            seed=seed,
            final=venv.curve[-1][1],
            steps=model.num_timesteps,
            labels=0,
            minutes=(time.monotonic() - started) / 60,
            curve=thinned(venv.curve),
        ),
    )


def save(folder: Path, result: Result) -> None:
    """`result.json` marks a run as finished."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(asdict(result)))


def thinned(curve: Sequence[tuple[float, float]], most: int = 200) -> list[tuple[int, float]]:
    """At most `most` points, the last one among them."""
    index = np.unique(np.linspace(0, len(curve) - 1, min(most, len(curve))).astype(int))
    return [(int(curve[i][0]), round(float(curve[i][1]), 2)) for i in index]


def write(suite: str, table: dict[str, list[Result]], out: Path) -> None:
    """`results.json`, `table.md`, `curves.png`."""
    if not table:
        return
    out.mkdir(parents=True, exist_ok=True)
    arms = {arm.name: arm for arm in SUITES[suite]()}
    report = {
        "machine": machine(),
        "arms": {
            name: {
                "task": arms[name].task,
                "settings": arms[name].settings,
                "runs": [asdict(r) for r in results],
            }
            for name, results in table.items()
        },
    }
    (out / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "table.md").write_text(markdown(table))
    draw(suite, table, out / "curves.png")
    print(markdown(table))


def markdown(table: dict[str, list[Result]]) -> str:
    """One line an arm, every seed named."""
    lines = [
        "| what | true return, last 100 episodes (mean of seeds) | each seed | steps | labels "
        "| minutes a run |",
        "|---|---|---|---|---|---|",
    ]
    for name, results in table.items():
        finals = [r.final for r in results]
        each = ", ".join(f"{r.final:.1f} ({r.seed})" for r in results)
        minutes = np.mean([r.minutes for r in results])
        lines.append(
            f"| {name} | {np.mean(finals):.1f} | {each} | {results[0].steps:,} "
            f"| {max(r.labels for r in results):,} | {minutes:.0f} |"
        )
    return "\n".join(lines) + "\n"


def draw(suite: str, table: dict[str, list[Result]], path: Path) -> None:
    """All seeds thin, their mean thick; one panel a task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    arms = {arm.name: arm for arm in SUITES[suite]()}
    tasks = list(dict.fromkeys(arms[name].task for name in table))
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(5.5 * len(tasks), 4), squeeze=False, layout="constrained"
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        names = [name for name in table if arms[name].task == task]
        for colour, name in zip(COLOURS, names, strict=False):
            curves = [np.array(r.curve) for r in table[name]]
            for curve in curves:
                axis.plot(curve[:, 0] / 1e6, curve[:, 1], color=colour, alpha=0.3, lw=0.8)
            grid = np.linspace(max(c[0, 0] for c in curves), min(c[-1, 0] for c in curves), 200)
            mean = np.mean([np.interp(grid, c[:, 0], c[:, 1]) for c in curves], axis=0)
            seeds = ", ".join(str(r.seed) for r in table[name])
            axis.plot(grid / 1e6, mean, color=colour, lw=2, label=f"{name} (seeds {seeds})")
        axis.set(title=task, xlabel="million steps", ylabel="true return, last 100 episodes")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="best")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
