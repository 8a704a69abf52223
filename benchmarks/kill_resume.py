"""Kill a run with SIGKILL at random points, resume it, and compare with the run left alone.

    .venv/bin/python benchmarks/kill_resume.py --kills 20 --out runs/reference/kill_resume

Both runs must end with the same bytes in every weight and the same answers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kept import commit, machine

from prefrl.feedback import FeedbackStore


def main() -> None:
    """Run both and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="prefrl/Dot-v0")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/reference/kill_resume"))
    parser.add_argument("settings", nargs="*", help="passed on to prefrl train")
    args = parser.parse_args()
    about = {"machine": machine(), "commit": commit()}  # what is run, whatever comes meanwhile
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        started = time.monotonic()
        finish(command(args.task, alone, args.settings))
        length = time.monotonic() - started
        kills = kill_often(
            command(args.task, killed, args.settings),
            kills=args.kills,
            longest=3 * length / args.kills,  # or it would be over before the last kill
            generator=random.Random(args.seed),
        )
        finish(command(args.task, killed, args.settings))
        report = {
            "task": args.task,
            "settings": args.settings,
            "seed": args.seed,
            **about,
            "kills_asked": args.kills,
            "seconds_before_each_kill": [round(x, 2) for x in kills],
            "same_weights": weights_digest(alone) == weights_digest(killed),
            "same_labels": labels_digest(alone) == labels_digest(killed),
            "weights": weights_digest(alone),
            "labels": labels_digest(alone),
        }
    args.out.mkdir(parents=True, exist_ok=True)
    name = args.task.rsplit("/", 1)[-1]
    (args.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    sys.exit(not (report["same_weights"] and report["same_labels"]))


def command(task: str, out: Path, settings: list[str]) -> list[str]:
    """`prefrl train`, without the final video."""
    base = [sys.executable, "-m", "prefrl.cli", "train", task, "--out", str(out), "--no-video"]
    return base + settings


def kill_often(
    line: list[str], *, kills: int, longest: float, generator: random.Random
) -> list[float]:
    """Start `line` and kill it, `kills` times; returns how long each lived.

    A run that finishes before its kill counts as no kill; it is over then.
    """
    lived: list[float] = []
    for _ in range(kills):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait = generator.uniform(0, longest)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            lived.append(wait)
            continue
        break
    return lived


def finish(line: list[str]) -> None:
    """Run to the end."""
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def weights_digest(run: Path) -> str:
    """Of policy and reward model in the newest checkpoint."""
    newest = max((run / "checkpoints").glob("step-*"))
    digest = hashlib.sha256()
    for name in ("policy.safetensors", "reward_model.safetensors"):
        digest.update((newest / name).read_bytes())
    return digest.hexdigest()


def labels_digest(run: Path) -> str:
    """Of all answers in order."""
    with FeedbackStore.open(run) as store:
        answers = [(x.query.id, str(x.reply)) for x in store.labels(after=0)]
    return hashlib.sha256(json.dumps(answers).encode()).hexdigest()


if __name__ == "__main__":
    main()
