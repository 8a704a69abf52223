"""Power cuts: what would a disk hold if only what was synced were sure to be on it?

    python benchmarks/power_loss.py --images 1000          # strace must be there
    python benchmarks/power_loss.py --flips 2000           # single flipped bits, both databases

A process asks and answers under `strace`, which writes down its writes and syncs in order. At a
random moment the power goes: what was synced is on the disk, of each later write every sector of
512 bytes with probability 1/2, of later truncations a random prefix. Then the store is opened and
read whole: all that was acknowledged before must be in it. A coarse model of disks: its failures
say more than its successes.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from prefrl.errors import UserError  # noqa: E402
from prefrl.feedback import (  # noqa: E402
    Comparison,
    Desk,
    DeskConfig,
    FeedbackStore,
    Instructions,
    Provenance,
    Query,
    Segment,
    Viewing,
)

SECTOR = 512
TRACED = "pwrite64,write,ftruncate,fsync,fdatasync,lseek,unlink"
FILES = ("labels.db", "labels.db-journal", "clips.db", "clips.db-journal", "labels.jsonl")
CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
NAMED = re.compile(r"^(\d+)<([^>]*)>")
TOLD = Instructions(version=1, text="nearer is better")


# ---- what is done meanwhile -------------------------------------------------------------


def live(directory: Path, rounds: int) -> Iterator[str]:
    """Ask, answer, undo and sit down anew; each line says what was acknowledged."""
    plain = DeskConfig(gold_share=0.0, repeat_share=0.2)
    with FeedbackStore.open(directory) as store:
        for i in range(rounds):
            query = ask(store, i)
            yield f"asked {query.id}"
            with Desk(store, rater=f"rater {i % 3}", config=plain, agreed=TOLD) as desk:
                yield f"agreed {desk.session}"
                for one in desk.take(2):
                    desk.submit(one, Comparison(choice="tie"), seen(one.order))
                    yield f"answered {one.query.id} {desk.rater}"
            if i % 5 == 4:
                with store.writing(answers=False):
                    store.register.note_pack(id=f"{i:064x}", rater="x", queries=[query.id], made=i)
                yield f"packed {i:064x}"


def ask(store: FeedbackStore, i: int) -> Query:
    """A query about segments of its own, one of them with pictures."""
    both = [made_up(2 * i + j) for j in range(2)]
    store.add_segments(both)
    frames = np.full((2, 8, 8, 3), i % 256, np.uint8)
    store.add_pictures(both[0].id, frames, fps=10.0)
    ids = (both[0].id, both[1].id)
    query = Query(segments=ids, policy_step=i, reason="power", priority=0.0, need=2)
    store.add_queries([query])
    return query


def made_up(t0: int) -> Segment:
    """A segment of its own."""
    noise = np.random.default_rng(t0).random((5, 40)).astype(np.float32)
    place = Provenance(task="Power", seed=0, policy_step=0, env=0, episode=0, t0=t0)
    return Segment(
        observations=noise,
        actions=np.zeros(5, np.int64),
        true_reward=np.arange(5.0),
        ended=False,
        provenance=place,
        clip=b"recipe %d" % t0,
    )


def seen(order: tuple[int, ...]) -> Viewing:
    """How it was seen."""
    return Viewing(
        order=order, key="Up", seconds=2.0, first_frame_seconds=0.1, loops=1.0, speed=1.0
    )


def missing(store: FeedbackStore, told: list[str]) -> list[str]:
    """Which of the acknowledged lines the store does not bear out."""
    answered = {(x.query.id, x.rater) for x in store.answers()}
    agreed = {c.session for c in store.consents()}
    tests: dict[str, Callable[[list[str]], bool]] = {
        "asked": lambda words: all(store.segment(s) for s in store.query(words[0]).segments),
        "agreed": lambda words: words[0] in agreed,
        "answered": lambda words: (words[0], " ".join(words[1:])) in answered,
        "packed": lambda words: store.register.pack(words[0]) is not None,
    }
    return [line for line in told if not tests[line.split()[0]](line.split()[1:])]


# ---- what the system was asked to do ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One call, in order."""

    kind: str
    """write, cut, sync, or said: a line was acknowledged."""
    file: str
    at: int = 0
    """Where it was written, or how much was left."""
    data: bytes = b""


def trace(directory: Path, rounds: int) -> list[Event]:
    """Live under strace.

    Raises:
        UserError: strace is not there.
    """
    if shutil.which("strace") is None:
        raise UserError("power loss needs strace: apt-get install strace, or the like")
    log = directory.parent / "trace.log"
    command = ["strace", "-f", "-y", "-xx", "-s", str(2**24), "-e", f"trace={TRACED}", "-o", log]
    command += [sys.executable, __file__, "--live", directory, str(rounds)]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    with log.open() as file:
        return list(events(file, directory))


def events(lines: Iterator[str] | list[str], directory: Path) -> Iterator[Event]:
    """The calls that matter, from the lines of strace."""
    places: dict[str, int] = {}
    for line in lines:
        call = CALL.match(line)
        if not call:
            continue
        name, arguments, result = call[1], call[2], int(call[3])
        target = NAMED.match(arguments)
        path = Path(_text(target[2])) if target else Path()
        if name == "write" and target and target[1] == "1":
            yield Event("said", "", data=_quoted(arguments)[:result])
        elif path.parent != directory or path.name not in FILES:
            continue
        elif name == "lseek":
            places[path.name] = result
        elif name == "pwrite64":
            yield Event("write", path.name, int(arguments.rsplit(", ", 1)[1]), _quoted(arguments))
        elif name == "write":
            at = places.get(path.name, 0)
            places[path.name] = at + result
            yield Event("write", path.name, at, _quoted(arguments)[:result])
        elif name == "ftruncate":
            yield Event("cut", path.name, int(arguments.rsplit(", ", 1)[1]))
        elif name in ("fsync", "fdatasync"):
            yield Event("sync", path.name)


def _text(escaped: str) -> str:
    return bytes.fromhex(escaped.replace("\\x", "")).decode()


def _quoted(arguments: str) -> bytes:
    return bytes.fromhex(arguments.split('"')[1].replace("\\x", ""))


# ---- what the disk holds ----------------------------------------------------------------


@dataclass(slots=True)
class Disk:
    """One file: what is surely there, and what was asked for since."""

    sure: bytearray
    since: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        """All that was asked for is there."""
        for event in self.since:
            _apply(self.sure, event)
        self.since.clear()

    def after_a_cut(self, coins: random.Random) -> bytes:
        """What is there once the power is back."""
        found = bytearray(self.sure)
        cuts = [i for i, event in enumerate(self.since) if event.kind == "cut"]
        done = set(cuts[: coins.randint(0, len(cuts))])
        for i, event in enumerate(self.since):
            if event.kind == "cut" and i in done:
                _apply(found, event)
            elif event.kind == "write":
                for sector in _sectors(event):
                    if coins.random() < 0.5:
                        _apply(found, sector)
        return bytes(found)


def _sectors(event: Event) -> Iterator[Event]:
    start, end = event.at, event.at + len(event.data)
    while start < end:
        stop = min((start // SECTOR + 1) * SECTOR, end)
        yield Event("write", event.file, start, event.data[start - event.at : stop - event.at])
        start = stop


def _apply(data: bytearray, event: Event) -> None:
    if event.kind == "cut":
        del data[event.at :]
    else:
        if len(data) < event.at:
            data.extend(bytes(event.at - len(data)))
        data[event.at : event.at + len(event.data)] = event.data


def image(base: Path, happened: list[Event], target: Path, coins: random.Random) -> list[str]:
    """Rebuild a directory as the power cut leaves it; returns what was acknowledged before."""
    disks = {name: Disk(bytearray((base / name).read_bytes())) for name in FILES}
    said = b""
    for event in happened:
        if event.kind == "said":
            said += event.data
        elif event.kind == "sync":
            disks[event.file].sync()
        else:
            disks[event.file].since.append(event)
    target.mkdir()
    for name, disk in disks.items():
        (target / name).write_bytes(disk.after_a_cut(coins))
    return said.decode().splitlines()[: said.count(b"\n")]


def too_early(happened: list[Event]) -> int:
    """How many lines were acknowledged while something of a database was not yet synced."""
    waiting: set[str] = set()
    early = 0
    for event in happened:
        if event.kind == "said":
            early += bool(waiting - {"labels.jsonl"})  # the mirror may lag
        elif event.kind == "sync":
            waiting.discard(event.file)
        else:
            waiting.add(event.file)
    return early


def power_cuts(folder: Path, *, images: int, rounds: int, seed: int) -> Counter[str]:
    """How many images were whole, lacked something that was acknowledged, or were damaged."""
    base, coins = folder / "base", random.Random(seed)
    with FeedbackStore.create(folder / "run", task="Power", seed=0) as store:
        ask(store, 10**6)  # so that the journals are there
    shutil.copytree(folder / "run", base)
    happened = trace(folder / "run", rounds)
    found: Counter[str] = Counter(events=len(happened), too_early=too_early(happened))
    for number in range(images):
        target = folder / f"image {number}"
        told = image(base, happened[: coins.randint(1, len(happened))], target, coins)
        found["acknowledged"] += len(told)
        try:
            with FeedbackStore.open(target) as store:
                store.check()
                found["lost" if missing(store, told) else "whole"] += 1
        except UserError as error:
            found["damaged"] += 1
            print(error, file=sys.stderr)
        shutil.rmtree(target)
    return found


# ---- flipped bits -----------------------------------------------------------------------


def flips(folder: Path, *, count: int, seed: int) -> Counter[str]:
    """How many single flipped bits were noticed, harmless, or silently changed what is read."""
    with FeedbackStore.create(folder / "run", task="Power", seed=0) as store:
        store.set_instructions(TOLD.text)
    for _ in live(folder / "run", 12):
        pass
    wanted, coins, found = content(folder / "run"), random.Random(seed), Counter[str]()
    whole = {name: (folder / "run" / name).read_bytes() for name in ("labels.db", "clips.db")}
    for _ in range(count):
        name = coins.choice([*whole])
        damaged = bytearray(whole[name])
        damaged[coins.randrange(len(damaged))] ^= 1 << coins.randrange(8)
        (folder / "run" / name).write_bytes(damaged)
        try:
            found["harmless" if content(folder / "run") == wanted else "silent"] += 1
        except UserError:
            found["noticed"] += 1
        (folder / "run" / name).write_bytes(whole[name])
    return found


def content(directory: Path) -> list[object]:
    """All that a store holds, after checking it."""
    with FeedbackStore.open(directory) as store:
        store.check()
        segments = [(s.id, s.true_reward.tolist(), s.clip) for s in store.segments()]
        pictures = [store.pictures(id) for id, *_ in segments]
        packs = [store.register.pack(f"{i:064x}") for i in range(12)]
        return [
            store.task, store.seed, segments, [*store.queries()], store.answers(), store.acts(),
            store.sessions(), store.consents(), store.instructions(), packs,
            [(p.frames.tolist(), p.fps) if p else None for p in pictures],
        ]  # fmt: skip


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=0, help="power cuts")
    parser.add_argument("--rounds", type=int, default=40, help="queries asked and answered")
    parser.add_argument("--flips", type=int, default=0, help="flipped bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--live", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.live:
        for line in live(Path(given.live[0]), int(given.live[1])):
            print(line, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.images:
            path = Path(folder, "power").resolve()
            path.mkdir()
            about = {"images": given.images, "rounds": given.rounds, "seed": given.seed}
            print(dict(power_cuts(path, **about)))
        if given.flips:
            path = Path(folder, "flips")
            path.mkdir()
            print(dict(flips(path, count=given.flips, seed=given.seed)))


if __name__ == "__main__":
    main()
