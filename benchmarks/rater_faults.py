"""Many raters at once, and raters killed with -9: no answer lost, none twice, none too many.

    python benchmarks/rater_faults.py --claims 1000 --raters 8     # 8 x 1,000, a trainer reading
    python benchmarks/rater_faults.py --kills 1000                 # killed at 1,000 random points

Each rater and the trainer are processes of their own on one store, as fast as they can. A claim
is what `Desk.take` needs to say what is asked next; an answer is what `Desk.submit` needs, which
leases the next query too.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import signal
import sys
import tempfile
import time
import uuid
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

PER_KILL = 60  # queries: more than are answered between two kills
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
    both_ms: tuple[float, float]
    """A claim and its answer."""
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
    trainer = Worker(directory, "trainer")
    trainer.wait_for_a_line()
    workers = [Worker(directory, f"rater {i}", claims=claims) for i in range(raters)]
    lines = [line for worker in workers for line in worker.finished()]
    trainer.process.terminate()
    read = int(trainer.finished()[-1])
    seconds = time.perf_counter() - began
    outcomes: dict[str, int] = {}
    spent = np.array([[float(x) for x in line.split()[2:]] for line in lines])  # [n, 2]
    for line in lines:
        outcome = line.split()[0]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
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
        claim_ms=_typical(spent[:, 0]),
        submit_ms=_typical(spent[:, 1]),
        both_ms=_typical(spent.sum(1)),
        seconds=round(seconds, 1),
    )


def _typical(spent: np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile."""
    return round(float(np.median(spent)), 1), round(float(np.percentile(spent, 99)), 1)


def kill_raters(directory: Path, *, kills: int, seed: int, raters: int = 3) -> tuple[int, int, int]:
    """Kill a random one of some raters, or the trainer, at random points; start it anew.

    Returns:
        (acknowledged answers, lost ones, doubled ones); raises where the store is damaged.
    """
    fill(directory, PER_KILL * kills, need=1)
    generator, acknowledged = random.Random(seed), []
    names = [f"rater {i}" for i in range(raters)] + ["trainer"]
    running = {name: Worker(directory, name) for name in names}
    for worker in running.values():
        worker.wait_for_a_line()  # it is at work
    for _ in range(kills):
        time.sleep(generator.random() * 0.05)
        name = generator.choice(names)
        acknowledged += running[name].killed()
        running[name] = Worker(directory, name)
        running[name].wait_for_a_line()
    for worker in running.values():
        acknowledged += worker.killed()
    with FeedbackStore.open(directory) as store:
        store.check()
        votes = [(x.query.id, x.rater) for x in store.answers()]
    told = {tuple(x.split()[1].split("/")) for x in acknowledged if x.startswith("ok ")}
    stored = {(query, rater.replace(" ", "_")) for query, rater in votes}
    return len(told), len(told - stored), len(votes) - len(set(votes))


class Worker:
    """A rater or the trainer, forked: it opens the store itself and says things into a file.

    Args:
        claims: how many a rater makes; None: as many as there are.
    """

    def __init__(self, directory: Path, name: str, *, claims: int | None = None) -> None:
        self._said = directory.parent / f"{uuid.uuid4().hex}.txt"
        self._said.touch()
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=_work, args=(directory, name, claims, self._said))
        self.process.start()

    def wait_for_a_line(self) -> None:
        """Until it is at work, or has ended."""
        while not self._said.stat().st_size and self.process.is_alive():
            time.sleep(0.001)

    def finished(self) -> list[str]:
        """What it has said, once it has ended by itself."""
        self.process.join()
        return [line for line in self._said.read_text().splitlines(keepends=True) if "\n" in line]

    def killed(self) -> list[str]:
        """What it said before it was killed with -9, whole lines only."""
        self.process.kill()
        said = self.finished()
        assert self.process.exitcode == -signal.SIGKILL, "it had ended by itself"
        return said


def _work(directory: Path, name: str, claims: int | None, said: Path) -> None:
    with said.open("a", buffering=1) as sys.stdout:
        be_trainer(directory) if name == "trainer" else be_rater(directory, name, claims)


def be_rater(directory: Path, name: str, claims: int | None) -> None:
    """Claim and answer; one line for each acknowledged answer."""
    plain = DeskConfig(gold_share=0.0, repeat_share=0.0)
    with FeedbackStore.open(directory) as store:
        desk = Desk(store, rater=name, config=plain, app="load")
        for _ in itertools.count() if claims is None else range(claims):
            began = time.perf_counter()
            taken = desk.take(1)
            claimed = time.perf_counter()
            if not taken:
                return
            outcome = desk.submit(taken[0], TIE, None)
            spent = 1e3 * (time.perf_counter() - claimed)
            who = f"{taken[0].query.id}/{name.replace(' ', '_')}"
            print(f"{outcome} {who} {1e3 * (claimed - began):.3f} {spent:.3f}")


def be_trainer(directory: Path) -> None:
    """Read what is new until told to stop; the last line says how many answers it were."""
    going = [True]
    signal.signal(signal.SIGTERM, lambda *_: going.clear())
    with FeedbackStore.open(directory) as store:
        print("reading")
        seq, read = 0, 0
        while going:
            read += (new := len((changes := store.changes(seq)).labels))
            seq = changes.seq
            store.beat(step=seq, labels_due=seq, labels=read)
            if not new:
                time.sleep(0.02)
        print(read + len(store.changes(seq).labels))


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, default=0, help="claims of each rater")
    parser.add_argument("--raters", type=int, default=8)
    parser.add_argument("--need", type=int, default=1, help="answers wanted for each query")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
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
