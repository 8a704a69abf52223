"""Results that are kept, each with what made it, so that none is taken for another."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def kept(path: Path, settings: dict[str, Any], make: Callable[[], Any]) -> dict[str, Any]:
    """The result at `path`; where there is none, what `make` returns, kept there whole.

    Returns:
        {"settings", "commit", "machine", "result"}. A result that other settings made ends the
        program.
    """
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        got = found.get("settings")
        if got != wanted:
            changed = [k for k in {**wanted, **(got or {})} if (got or {}).get(k) != wanted.get(k)]
            sys.exit(
                f"{path} was made with other settings ({', '.join(sorted(changed)[:5])}): give "
                "another --runs, or delete it"
            )
        return found
    result = make()
    about = {"settings": wanted, "commit": commit(), "machine": machine(), "result": result}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps(about, indent=1) + "\n")
    path.with_suffix(".part").replace(path)
    return about


def with_earlier(runs: Sequence[T], earlier: Sequence[T], *, seed: Callable[[T], int]) -> list[T]:
    """Runs by seed: these, and the other seeds of `earlier` ones."""
    by_seed = {seed(run): run for run in (*earlier, *runs)}
    return [by_seed[number] for number in sorted(by_seed)]


def same_settings(one: Any, other: Any) -> bool:
    """As JSON has them."""
    return bool(json.loads(json.dumps(one)) == json.loads(json.dumps(other)))


def commit() -> str:
    """Of the source tree, "-dirty" behind it where something is not committed; "" unknown."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """What figures were measured on."""
    import torch

    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "bf16": bool(torch.cpu._is_avx512_bf16_supported()),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":")[1].strip() for x in lines if "model name" in x), platform.machine())
