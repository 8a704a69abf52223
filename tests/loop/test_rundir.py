"""Run directories: made, resumed, refused, locked."""

import dataclasses
import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prefrl.config import TrainConfig
from prefrl.errors import UserError
from prefrl.loop import rundir
from prefrl.loop.rundir import RunDir, RunLock
from prefrl.ppo import PPOConfig

CONFIG = TrainConfig(task="prefrl/Dot-v0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odd:
    share: float = 0.5
    count: int = 1
    points: tuple[tuple[float, float], ...] = ()


def everything(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_new_directory_holds_settings_and_provenance(tmp_path: Path) -> None:
    run = RunDir.prepare(tmp_path / "deep" / "run", CONFIG)
    assert 'task = "prefrl/Dot-v0"' in run.config.read_text()
    about = json.loads((run.path / "provenance.json").read_text())
    assert {"python", "packages", "cpus", "commit"} <= set(about)
    assert RunDir.existing(run.path) == run


def test_the_same_settings_resume_and_change_nothing(tmp_path: Path) -> None:
    run = RunDir.prepare(tmp_path / "run", CONFIG)
    before = everything(run.path)
    assert RunDir.prepare(tmp_path / "run", dataclasses.replace(CONFIG)) == run
    assert everything(run.path) == before


def test_of_two_that_begin_in_one_moment_one_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, provenance = dataclasses.replace(CONFIG, seed=5), rundir._provenance
    said: list[str] = []

    def meanwhile() -> dict[str, object]:
        with monkeypatch.context() as now:
            now.setattr(rundir, "_provenance", provenance)
            with pytest.raises(UserError) as caught:
                RunDir.prepare(tmp_path / "run", other)
            said.append(str(caught.value))
        return provenance()

    monkeypatch.setattr(rundir, "_provenance", meanwhile)
    run = RunDir.prepare(tmp_path / "run", CONFIG)
    assert "is in use by process" in said[0]
    assert "seed = 0" in run.config.read_text()


def test_who_looks_for_a_moment_keeps_nobody_out(tmp_path: Path) -> None:
    run = RunDir.prepare(tmp_path, CONFIG)
    looks = RunLock(run)
    looks.__enter__()
    threading.Timer(0.2, looks.__exit__).start()
    with RunLock(run):
        pass


def test_numbers_without_meaning_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="share: got inf, wanted a finite number"):
        RunDir.prepare(tmp_path / "run", Odd(share=math.inf))
    with pytest.raises(UserError, match="count: got 10000000000000000, wanted at most"):
        RunDir.prepare(tmp_path / "run", Odd(count=10**16))
    with pytest.raises(UserError, match="points: got nan"):
        RunDir.prepare(tmp_path / "run", Odd(points=((0.0, math.nan),)))
    assert not (tmp_path / "run").exists()


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert RunDir.prepare(tmp_path, CONFIG).config.is_file()


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    RunDir.prepare(tmp_path, CONFIG)
    before = everything(tmp_path)
    other = dataclasses.replace(CONFIG, seed=3, ppo=PPOConfig(clip=0.3))
    with pytest.raises(UserError) as caught:
        RunDir.prepare(tmp_path, other)
    assert "seed was 0, now 3; ppo.clip was 0.1, now 0.3" in str(caught.value)
    assert "--out" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == before


def test_a_run_of_another_task_is_refused(tmp_path: Path) -> None:
    RunDir.prepare(tmp_path, CONFIG)
    with pytest.raises(UserError, match=r"task was prefrl/Dot-v0, now HalfCheetah-v5"):
        RunDir.prepare(tmp_path, dataclasses.replace(CONFIG, task="HalfCheetah-v5"))


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_run_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "thesis"
    if kind == "directory":
        path.mkdir()
    (path / "notes.txt" if kind == "directory" else path).write_text("three years")
    before = everything(tmp_path)
    with pytest.raises(UserError, match="exists and holds something else"):
        RunDir.prepare(path, CONFIG)
    assert everything(tmp_path) == before


def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the run directory .*: Not a directory"):
        RunDir.prepare(tmp_path / "file" / "run", CONFIG)


@pytest.mark.parametrize(
    "text", ["", "task = ", "\0\0\0\0", 'task = "prefrl/Dot-v0"\nsteps = "x"\n']
)
def test_damaged_settings_are_one_clear_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError) as caught:
        RunDir.prepare(tmp_path, CONFIG)
    assert "\n" not in str(caught.value)


def test_settings_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, text: str) -> int:
        with self.open("w") as file:
            file.write(text[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match=r"cannot write .* No space left on device"):
            RunDir.prepare(tmp_path / "run", CONFIG)
    assert RunDir.prepare(tmp_path / "run", CONFIG).config.is_file()  # there is space again


def test_only_a_run_directory_is_an_existing_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run directory: wanted one with a config\.toml"):
        RunDir.existing(tmp_path)


def test_two_trainers_do_not_share_a_directory(tmp_path: Path) -> None:
    run = RunDir.prepare(tmp_path, CONFIG)
    with RunLock(run), pytest.raises(UserError, match=r"is in use by process \d+ since"):
        RunLock(run).__enter__()
    with RunLock(run):  # free again
        pass


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    run = RunDir.prepare(tmp_path, CONFIG)
    code = (
        "import os, sys; from pathlib import Path; from prefrl.loop.rundir import *;"
        "RunLock(RunDir(path=Path(sys.argv[1]))).__enter__(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert (tmp_path / "run.lock").read_text()  # it did hold it
    with RunLock(run):
        pass
