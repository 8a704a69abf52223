"""Power cuts and flipped bits: small here, at full size in `benchmarks/power_loss.py`."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from benchmarks.power_loss import Disk, Event, events, flips, power_cuts, too_early

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not there")


@needs_strace
def test_a_power_cut_loses_and_damages_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    found = power_cuts(tmp_path.resolve(), images=25, rounds=6, seed=0)
    assert (found["whole"], found["lost"], found["damaged"]) == (25, 0, 0)
    assert found["acknowledged"] > 25
    assert found["too_early"] == 0  # nothing was said before it was synced


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    found = flips(tmp_path, count=40, seed=0)
    assert found["silent"] == 0
    assert found["noticed"] > 20


def test_a_disk_keeps_what_was_synced_and_some_sectors_of_the_rest() -> None:
    disk = Disk(bytearray(b"old!"), [Event("write", "f", 0, b"sure")])
    disk.sync()
    disk.since = [Event("write", "f", 512, b"x" * 1024), Event("cut", "f", 2)]
    found = {disk.after_a_cut(random.Random(seed)) for seed in range(99)}
    rest = {(), (512,), (1024,), (512, 1024)}  # either sector, both or none; then cut or not
    whole = {_with(b"sure", sectors) for sectors in rest}
    assert found == whole | {b"su"}


def _with(start: bytes, sectors: tuple[int, ...]) -> bytes:
    data = bytearray(start)
    for at in sectors:
        data.extend(bytes(max(at - len(data), 0)))
        data[at : at + 512] = b"x" * 512
    return bytes(data)


def test_the_lines_of_strace_are_read() -> None:
    path = "".join(f"\\x{byte:02x}" for byte in b"/run/labels.db")
    mirror = "".join(f"\\x{byte:02x}" for byte in b"/run/labels.jsonl")
    lines = [
        f'7 pwrite64(4<{path}>, "\\x61\\x62", 2, 512) = 2',
        f"7     ftruncate(4<{path}>, 0) = 0",
        '7 write(1<\\x70>, "\\x6f\\x6b\\x0a", 3) = 3',
        f"7 fdatasync(4<{path}>) = 0",
        f"7 lseek(5<{mirror}>, 9, SEEK_SET) = 9",
        f'7 write(5<{mirror}>, "\\x7b", 1) = 1',
        '7 pwrite64(6<\\x2f\\x78>, "\\x61", 1, 0) = 1',
        "7 +++ exited with 0 +++",
    ]
    got = list(events(lines, Path("/run")))
    assert got == [
        Event("write", "labels.db", 512, b"ab"),
        Event("cut", "labels.db", 0),
        Event("said", "", 0, b"ok\n"),
        Event("sync", "labels.db"),
        Event("write", "labels.jsonl", 9, b"{"),
    ]
    assert too_early(got) == 1  # said before the sync
