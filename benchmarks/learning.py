"""The learning results of the README, again: one run at a time, resumable, then a table.

    .venv/bin/python benchmarks/learning.py pong            3 seeds, synthetic preferences
    .venv/bin/python benchmarks/learning.py games           Breakout, one seed
    .venv/bin/python benchmarks/learning.py robots          learned against true reward
    .venv/bin/python benchmarks/learning.py controls        no labels; a negated oracle
    .venv/bin/python benchmarks/learning.py ppo             our PPO against SB3's, true reward

Runs go to `runs/bench/<suite>/`; what is finished is not run again, what was stopped goes on, and
what was made with other settings, of an older recipe say, is refused. The table, the curves and
every run's configuration, commit and machine go to `runs/reference/<suite>/`. Other seeds that are
there already stay, where the same settings made them: a table may be of several days.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kept import kept, same_settings, with_earlier
from learning_table import EPISODES, Arm, Kept, Result, write

if TYPE_CHECKING:
    from prefrl.config import TrainConfig
    from prefrl.loop.rundir import RunDir

AT_ONCE = 16  # of the new episodes of each last policy
ROBOTS = {"HalfCheetah-v5": 12, "Hopper-v5": 12, "Walker2d-v5": 3}
"""And how many seeds: HalfCheetah's and Hopper's differ by a half."""


def true(name: str, task: str, **settings: Any) -> Arm:
    """An arm trained on the true reward."""
    return Arm(name=name, task=task, settings={"reward": "true", "labels": 0, **settings})


def pong() -> list[Arm]:
    """The recipe on Pong."""
    return [Arm(name="Pong", task="ALE/Pong-v5", target=15.0)]


def games() -> list[Arm]:
    """The recipe on another game, once."""
    return [Arm(name="Breakout", task="ALE/Breakout-v5", seeds=(0,))]


def robots() -> list[Arm]:
    """Learned against true reward, same PPO, same steps and seeds."""
    arms = []
    for task, seeds in ROBOTS.items():
        for arm in (Arm(name=f"{task} learned", task=task), true(f"{task} true", task)):
            arms.append(replace(arm, seeds=range(seeds)))
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
    """SB3's defaults on HalfCheetah, the published Atari settings and our own on Pong, the same
    for both; and does bf16 arithmetic learn as well as fp32? What do standardised pixels, which SB3
    has not, bring?

    `value_coef` 1 is its `vf_coef` .5: our squared error is halved, as in the paper's code.
    """
    alike = {  # at checkpoints our environments start anew, SB3's not
        "reward": "true", "labels": 0, "steps": 1_000_000, "checkpoint_every": 10**9,
    }  # fmt: skip
    cheetah = {
        **alike, "num_envs": 8, "rollout_steps": 256,
        "policy": {"normalise_observations": False, "log_std": 0.0},
        "ppo": {"lr": 3e-4, "lr_end": 1.0, "epochs": 10, "minibatches": 32, "clip": 0.2,
                "entropy_coef": 0.0, "entropy_end": 1.0, "adam_eps": 1e-5, "gamma": 0.99,
                "lam": 0.95, "value_coef": 1.0},
    }  # fmt: skip
    published = {
        **alike, "num_envs": 8, "rollout_steps": 128,
        "policy": {"trunk": "nature", "precision": "fp32", "normalise_observations": False},
        "ppo": {"lr": 2.5e-4, "lr_end": 0.0, "epochs": 4, "minibatches": 4, "clip": 0.1,
                "entropy_coef": 0.01, "entropy_end": 1.0, "adam_eps": 1e-5, "gamma": 0.99,
                "lam": 0.95, "value_coef": 1.0},
    }  # fmt: skip
    recipe = {**alike, "policy": {"precision": "fp32", "normalise_observations": False}}
    seeds = range(5)
    both = [
        Arm(name=f"{name} {who}", task=task, settings=settings, seeds=seeds, sb3=who == "SB3")
        for task, name, settings, seeds in (
            ("HalfCheetah-v5", "HalfCheetah", cheetah, range(10)),
            ("ALE/Pong-v5", "Pong", published, (0,)),
            ("ALE/Pong-v5", "Recipe on Pong", recipe, seeds),
        )
        for who in ("prefrl", "SB3")
    ]
    ours = [
        Arm(name=f"Recipe on Pong {name}", task="ALE/Pong-v5", seeds=seeds,
            settings={**alike, "policy": {"precision": "bf16", "normalise_observations": standard}})
        for name, standard in (("bf16", False), ("standardised", True))
    ]  # fmt: skip
    return [*both, *ours]


SUITES: dict[str, Callable[[], list[Arm]]] = {
    f.__name__: f for f in (pong, games, robots, controls, ppo)
}


def main() -> None:
    """Run a suite and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--seeds", type=int, nargs="*", help="only these")
    parser.add_argument("--only", help="only arms whose name begins with this")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--out", type=Path, default=Path("runs/reference"))
    args = parser.parse_args()
    table: list[tuple[Arm, list[Kept]]] = []
    for arm in SUITES[args.suite]():
        found: list[Kept] = []
        for seed in arm.seeds:
            chosen = (not args.seeds or seed in args.seeds) and arm.name.startswith(args.only or "")
            folder = args.runs / args.suite / f"{arm.name.replace(' ', '-')}-seed{seed}"
            if chosen or (folder / "result.json").exists():
                make = partial(run_sb3 if arm.sb3 else run, arm, seed, folder, threads=args.threads)
                about = kept(folder / "result.json", settings_of(arm), make)
                found.append(Kept(result=Result(**about.pop("result")), **about))
        before = earlier(args.out / args.suite, arm)
        table.append((arm, with_earlier(found, before, seed=lambda one: one.result.seed)))
    write([(arm, found) for arm, found in table if found], args.out / args.suite)


def earlier(out: Path, arm: Arm) -> list[Kept]:
    """Runs of an arm that `results.json` holds, where the present settings made them."""
    file = out / "results.json"
    held = json.loads(file.read_text()).get(arm.name) if file.exists() else None
    if held is None or not same_settings(completed(arm, held["settings"]), settings_of(arm)):
        return []
    about = ("commit", "machine")
    return [
        Kept(
            result=Result(**{name: value for name, value in run.items() if name not in about}),
            settings=settings_of(arm),
            **{name: run[name] for name in about},
        )
        for run in held["runs"]
    ]


def completed(arm: Arm, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Kept settings with the defaults of those that have come since; None: of another version."""
    from prefrl.config import TrainConfig, from_dict, to_dict
    from prefrl.errors import UserError

    if arm.sb3:
        return settings
    try:
        return what_counts(to_dict(from_dict(TrainConfig, settings)))
    except UserError:
        return None


def settings_of(arm: Arm) -> dict[str, Any]:
    """All that makes a run of it."""
    from prefrl.config import to_dict

    return {"task": arm.task, **arm.settings} if arm.sb3 else what_counts(to_dict(config_of(arm)))


def what_counts(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration but for the seed, the threads, and what a true reward does not need."""
    unread = ("model", "queries") if config["reward"] == "true" else ()
    return {name: v for name, v in config.items() if name not in ("seed", "threads", *unread)}


def config_of(arm: Arm) -> TrainConfig:
    """The task's recipe, and what the arm has otherwise."""
    from prefrl.config import TrainConfig, from_dict, to_dict
    from prefrl.recipes import recipe_for
    from prefrl.run import merged

    return from_dict(TrainConfig, merged(to_dict(recipe_for(arm.task)), arm.settings))


def run(arm: Arm, seed: int, folder: Path, *, threads: int) -> dict[str, Any]:
    """One run of ours, begun or resumed; `minutes` counts what its rollouts took."""
    import prefrl
    from prefrl.config import read_toml
    from prefrl.loop.metrics import read_metrics

    settings = {**arm.settings, "seed": seed, "threads": threads}
    directory = prefrl.train(arm.task, out=folder, video=False, **settings)
    rows = read_metrics(directory.metrics)
    if rows[-1]["step"] < read_toml(directory.config).steps:
        raise SystemExit("stopped: the same command goes on from here")
    seconds = np.cumsum([sum(v for k, v in r.items() if k in PARTS) for r in rows])
    curve = [(r["step"], r["episode/true_return"]) for r in rows if "episode/true_return" in r]
    return asdict(
        Result(
            seed=seed,
            final=curve[-1][1],
            steps=int(rows[-1]["step"]),
            labels=int(rows[-1].get("feedback/labels", 0)),
            minutes=seconds[-1] / 60,
            curve=thinned(curve),
            reached=first_at(arm.target, rows, seconds),
            anew=played_anew(directory),
        )
    )


def played_anew(directory: RunDir) -> tuple[float, float, float]:
    """True return of the newest policy in new episodes, and its 95 % interval."""
    from prefrl.film import PLAY_SEED, open_player
    from prefrl.loop.play import episode_returns, estimate

    player, _ = open_player(directory, num_envs=AT_ONCE, seed=PLAY_SEED, greedy=False, whole=True)
    found = estimate(episode_returns(player, episodes=EPISODES))
    player.venv.close()
    return found.mean, found.low, found.high


def first_at(
    target: float | None, rows: Sequence[dict[str, float]], seconds: np.ndarray
) -> tuple[int, float] | None:
    """(step, minutes) of the first row whose last 100 episodes have `target`; None: never."""
    if target is None:
        return None
    for row, spent in zip(rows, seconds, strict=True):
        if row.get("episode/true_return", -np.inf) >= target:
            return int(row["step"]), round(float(spent) / 60, 1)
    return None


PARTS = tuple(f"time/{part}" for part in ("act", "record", "feedback", "reward", "learn", "other"))


def run_sb3(arm: Arm, seed: int, folder: Path, *, threads: int) -> dict[str, Any]:
    """SB3's PPO on the same environments, which show it the true reward."""
    from sb3_true_reward import TrueRewardVecEnv, sb3_ppo

    import prefrl
    from prefrl.loop.hardware import set_threads

    set_threads(threads)
    config = config_of(arm)
    venv = TrueRewardVecEnv(
        prefrl.make_vec(arm.task, num_envs=config.num_envs, seed=seed, **config.env.options())
    )
    model = sb3_ppo(venv, config, seed=seed)
    started = time.monotonic()
    model.learn(config.steps, progress_bar=False)
    return asdict(
        Result(
            seed=seed,
            final=venv.curve[-1][1],
            steps=model.num_timesteps,
            labels=0,
            minutes=(time.monotonic() - started) / 60,
            curve=thinned(venv.curve),
        )
    )


def thinned(curve: Sequence[tuple[float, float]], most: int = 200) -> list[tuple[int, float]]:
    """At most `most` points, the last one among them."""
    index = np.unique(np.linspace(0, len(curve) - 1, min(most, len(curve))).astype(int))
    return [(int(curve[i][0]), round(float(curve[i][1]), 2)) for i in index]


if __name__ == "__main__":
    main()
