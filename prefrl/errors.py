"""What a user did wrong, in one line: got, wanted, remedy."""

from __future__ import annotations

import difflib
import shutil
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """The command line prints it on one line and exits with code 2."""


def nearest(given: str, known: Iterable[str]) -> str:
    """A question with the nearest known name, or "".

    >>> nearest("trian", ["train", "tasks"])
    "did you mean 'train'?"
    """
    found = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else ""


def refuse_idle(name: str, given: object, default: object, *, beside: str) -> None:
    """Settings that do nothing are refused, or somebody would wonder why they do nothing.

    Args:
        name: of a setting, or of a table of them.
        beside: what leaves them without effect.

    Raises:
        UserError: the first that differs from its default.
    """
    if is_dataclass(given):
        for one in fields(given):
            inside = getattr(given, one.name), getattr(default, one.name)
            refuse_idle(f"{name}.{one.name}", *inside, beside=beside)
    elif given != default:
        raise UserError(f"{name}: got {given}, with {beside}: it has no effect")


def program() -> str:
    """How this program is called: as it was, where `prefrl` alone would not be found.

    >>> program()
    'prefrl'
    """
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "prefrl":
        return "python -m prefrl"
    return str(called) if called.name == "prefrl" and not shutil.which("prefrl") else "prefrl"


def plain_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says.

    Raises:
        UserError: it is none, or cannot be read.
    """
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
