"""Many raters at once, and raters killed with -9: no answer lost, none twice, none too many.

    python benchmarks/rater_faults.py --claims 1000 --raters 8     # 8 x 1,000, a trainer reading
    python benchmarks/rater_faults.py --kills 1000                 # killed at 1,000 random points

Each rater and the trainer are processes of their own on one store, as fast as they can.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prefrl.feedback import (  # noqa: E402
    Comparison,
    Desk,
    DeskConfig,
    FeedbackStore,
    Provenance,
    Query,
    Segment,
)

TIE = Comparison(choice="tie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What many raters at once have done."""

    answers: int
    """Stored ones that count."""
    too_many: int
    """Queries with more answers than they need."""
    outcomes: dict[str, int]
    """As the raters were told."""
    read: int
    """Answers the trainer has read meanwhile and at the end."""
    claim_ms: tuple[float, float]
    """Median and 99th percentile."""
    submit_ms: tuple[float, float]
    seconds: float


def fill(directory: Path, queries: int, *, need: int) -> None:
    """A store with so many open queries about few segments."""
    ids = []
    with FeedbackStore.create(directory, task="Load", seed=0) as store:
        for t0 in range(2):
            place = Provenance(task="Load", seed=0, policy_step=0, env=0, episode=0, t0=t0)
            made = Segment(
                observations=np.zeros((2, 1), np.float32),
                actions=np.zeros(2, np.int64),
                true_reward=np.zeros(2),
                ended=False,
                provenance=place,
                clip=b"",
            )
            store.add_segments([made])
            ids.append(made.id)
        about = {"segments": tuple(ids), "reason": "load", "priority": 0.0}
        store.add_queries([Query(policy_step=i, need=need, **about) for i in range(queries)])


def stress(directory: Path, *, raters: int, claims: int, need: int) -> Load:
    """So many raters claim and answer as fast as they can, while a trainer reads."""
    fill(directory, raters * claims // need, need=need)
    began = time.perf_counter()
    with _process("trainer", directory, "0") as trainer:
        workers = [_popen("rater", directory, f"rater {i}", str(claims)) for i in range(raters)]
        lines = [line for w in workers for line in w.communicate()[0].splitlines()]
        trainer.send_signal(signal.SIGTERM)
        read = int(trainer.communicate()[0].split()[-1])
    seconds = time.perf_counter() - began
    claimed, submitted, outcomes = [], [], {}
    for line in lines:
        outcome, _, claim, submit = line.split()
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        claimed.append(float(claim))
        submitted.append(float(submit))
    with FeedbackStore.open(directory) as store:
        store.check()
        counted: dict[str, int] = {}
        for label in store.labels(after=0):
            counted[label.query.id] = counted.get(label.query.id, 0) + 1
    return Load(
        answers=sum(counted.values()),
        too_many=sum(n > need for n in counted.values()),
        outcomes=outcomes,
        read=read,
        claim_ms=(float(np.median(claimed)), float(np.percentile(claimed, 99))),
        submit_ms=(float(np.median(submitted)), float(np.percentile(submitted, 99))),
        seconds=seconds,
    )


def kill_raters(directory: Path, *, kills: int, seed: int, raters: int = 3) -> tuple[int, int, int]:
    """Kill a random one of some raters, or the trainer, at random points; start it anew.

    Returns:
        (acknowledged answers, lost ones, doubled ones); raises where the store is damaged.
    """
    fill(directory, 400 * kills, need=1)
    generator, acknowledged = random.Random(seed), []
    names = [f"rater {i}" for i in range(raters)] + ["trainer"]

    def start(name: str) -> subprocess.Popen[str]:
        role = "trainer" if name == "trainer" else "rater"
        return _popen(role, directory, name, str(10**9))

    running = {name: start(name) for name in names}
    for process in running.values():
        assert process.stdout is not None
        process.stdout.readline()  # it is at work
    for _ in range(kills):
        time.sleep(generator.random() * 0.05)
        name = generator.choice(names)
        running[name].kill()
        acknowledged += _told(running[name])
        running[name] = start(name)
        first = running[name].stdout
        assert first is not None
        acknowledged += [line for line in [first.readline()] if line.endswith("\n")]
    for process in running.values():
        process.kill()
        acknowledged += _told(process)
    with FeedbackStore.open(directory) as store:
        store.check()
        votes = [(x.query.id, x.rater) for x in store.answers()]
    told = {tuple(x.split()[1].split("/")) for x in acknowledged if x.startswith("ok ")}
    stored = {(query, rater.replace(" ", "_")) for query, rater in votes}
    return len(told), len(told - stored), len(votes) - len(set(votes))


def _told(process: subprocess.Popen[str]) -> list[str]:
    """What it said before it died, whole lines only."""
    return [x for x in process.communicate()[0].splitlines(keepends=True) if x.endswith("\n")]


def be_rater(directory: str, name: str, count: int) -> None:
    """Claim and answer; one line for each acknowledged answer."""
    plain = DeskConfig(gold_share=0.0, repeat_share=0.0)
    with FeedbackStore.open(directory) as store:
        desk = Desk(store, rater=name, config=plain, app="load")
        for _ in range(count):
            began = time.perf_counter()
            taken = desk.take(1)
            claimed = time.perf_counter()
            if not taken:
                return
            outcome = desk.submit(taken[0], TIE, None)
            spent = 1e3 * (time.perf_counter() - claimed)
            who = f"{taken[0].query.id}/{name.replace(' ', '_')}"
            print(f"{outcome} {who} {1e3 * (claimed - began):.3f} {spent:.3f}", flush=True)


def be_trainer(directory: str) -> None:
    """Read what is new until told to stop; the last line says how many answers it were."""
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    with FeedbackStore.open(directory) as store:
        print("reading", flush=True)
        seq, read = 0, 0
        while going:
            read += (new := len((changes := store.changes(seq)).labels))
            seq = changes.seq
            store.beat(step=seq, labels_due=seq, labels=read)
            if not new:
                time.sleep(0.02)
        print(read + len(store.changes(seq).labels), flush=True)


def _popen(role: str, directory: Path, name: str, count: str = "0") -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--as", role, str(directory), name, count]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def _process(role: str, directory: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    process = _popen(role, directory, name)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, default=0, help="claims of each rater")
    parser.add_argument("--raters", type=int, default=8)
    parser.add_argument("--need", type=int, default=1, help="answers wanted for each query")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as", dest="role", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        role, directory, name, count = given.role
        be_trainer(directory) if role == "trainer" else be_rater(directory, name, int(count))
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.claims:
            path = Path(folder) / "load"
            print(stress(path, raters=given.raters, claims=given.claims, need=given.need))
        if given.kills:
            told, lost, doubled = kill_raters(
                Path(folder) / "kills", kills=given.kills, seed=given.seed
            )
            print(f"{given.kills} kills: {told} acknowledged, {lost} lost, {doubled} doubled")


if __name__ == "__main__":
    main()
