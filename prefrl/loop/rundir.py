"""The run directory: one self-contained, readable folder for each run."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from prefrl.config import differences, read_settings, refuse_unbounded, write_toml
from prefrl.errors import UserError

LOCK, PROVENANCE = "run.lock", "provenance.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDir:
    """Paths inside one run directory.

    `config.toml`, `provenance.json`, `labels.db`, `clips.db`, `labels.jsonl`, `metrics.jsonl`,
    `checkpoints/`, `tensorboard/`, `videos/`, `report/`, `run.lock`; a fit has `fit.toml` instead
    of `config.toml`.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The settings, as given."""
        return self.path / "config.toml"

    @property
    def checkpoints(self) -> Path:
        """The newest two checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a rollout."""
        return self.path / "metrics.jsonl"

    @classmethod
    def prepare(
        cls,
        path: Path,
        config: Any,
        *,
        settings: str = "config.toml",
        may_change: Collection[str] = (),
    ) -> Self:
        """A new directory for `config`, a dataclass of settings, or the one where it was running.

        Args:
            settings: the file that holds them.
            may_change: what it may go on with otherwise than it began; the file keeps the old.

        Raises:
            UserError: the directory holds something else, or a number has no meaning; nothing has
                been changed in it.
        """
        refuse_unbounded(config)
        run = cls(path=path)
        if (path / settings).is_file():
            run._compare(settings, config, may_change)
            return run
        begun = {PROVENANCE, LOCK, f"{settings}.new"}  # what a start that was cut short leaves
        if path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - begun):
            raise UserError(
                f"{path} exists and holds something else (no {settings}): "
                "give an empty or new directory as --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            with RunLock(run):
                if (path / settings).is_file():  # another began in the same moment
                    run._compare(settings, config, may_change)
                    return run
                (path / PROVENANCE).write_text(json.dumps(_provenance(), indent=2))
                write_toml(config, path / f"{settings}.new")
                (path / f"{settings}.new").replace(path / settings)  # last, and whole
        except OSError as error:
            raise UserError(f"cannot write the run directory {path}: {error.strerror}") from error
        return run

    def _compare(self, settings: str, config: Any, may_change: Collection[str]) -> None:
        found = differences(read_settings(self.path / settings, type(config)), config)
        changed = [said for name, said in found.items() if name not in may_change]
        if changed:
            raise UserError(
                f"{self.path} belongs to a run with other settings ({'; '.join(changed[:3])}): "
                "give those it began with to go on with it, or another --out to start anew"
            )

    def note_threads(self, threads: int, *, step: int) -> int | None:
        """Write down how many there are from `step` on; the number before it, if it was another.

        Raises:
            UserError: what is written there is damaged; it is left as it is.
        """
        path = self.path / PROVENANCE
        try:
            about = json.loads(path.read_text()) if path.is_file() else {}
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): move it away to go on") from error
        noted = about.setdefault("threads", [])
        before = noted[-1]["threads"] if noted else threads
        if not noted or before != threads:
            noted.append({"step": step, "threads": threads})
            path.with_suffix(".new").write_text(json.dumps(about, indent=2))
            path.with_suffix(".new").replace(path)
        return None if before == threads else before

    @classmethod
    def existing(cls, path: Path) -> Self:
        """The run directory at `path`.

        Raises:
            UserError: it is none.
        """
        run = cls(path=path)
        if not run.config.is_file():
            raise UserError(f"{path} is not a run directory: wanted one with a config.toml")
        return run


class RunLock:
    """One trainer a directory: `flock` on `run.lock`, which the system frees at any exit.

    Who only looks at the settings holds it for a moment, so it is tried for a second.
    """

    def __init__(self, run: RunDir) -> None:
        self._path = run.path / LOCK
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        file, until = self._path.open("a+"), time.monotonic() + 1.0
        while not _locked(file):
            if time.monotonic() > until:
                file.seek(0)
                owner = _owner(file.read())
                file.close()
                raise UserError(
                    f"{self._path.parent} is in use by {owner}: wait for it, stop it, "
                    "or give another --out"
                )
            time.sleep(0.05)
        file.truncate(0)
        json.dump({"pid": os.getpid(), "since": time.time()}, file)
        file.flush()
        self._file = file
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(text: str) -> str:
    try:
        about = json.loads(text)
        since = time.strftime("%H:%M:%S", time.localtime(about["since"]))
        return f"process {about['pid']} since {since}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _provenance() -> dict[str, object]:
    """Versions, hardware and commit: what a result must stand beside."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def version_of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:  # of an extra that is not installed
            return "none"

    packages = ("torch", "numpy", "gymnasium", "ale-py", "mujoco", "transformers", "prefrl")
    return {
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in packages},
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": _git("diff", "HEAD"),
    }


def _git(*arguments: str) -> str:
    """Output of git in the source tree; empty where there is no repository."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
