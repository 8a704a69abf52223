"""Typed options by tyro, its complaints folded into one line."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from itertools import dropwhile, takewhile
from typing import Any, TypeVar, get_type_hints

import tyro

from prefrl.errors import UserError, nearest

T = TypeVar("T")

STYLE = (tyro.conf.PositionalMetavarFromFieldName,)
PLAIN = (
    (r"^Error parsing \w*: (?=[\w.]+: got)", ""),
    (r"^Error parsing (\S+): invalid literal for int.*: (.*)", r"\1: got \2, wanted an integer"),
    (r"^Error parsing (\S+): could not convert .*: (.*)", r"\1: got \2, wanted a number"),
    (r"^invalid choice (.*) for argument '(.*)'. Expected one", r"\2: got \1, wanted one"),
)


def parse(cls: type[T], args: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """Read `args` into the dataclass `cls`; `--help` prints and exits.

    Raises:
        UserError: an unknown option, or a missing or wrong value.
    """
    start: dict[str, Any] = {} if default is None else {"default": default}
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            parsed, unknown = tyro.cli(
                cls, prog=prog, args=args, return_unknown_args=True, config=STYLE, **start
            )
    except SystemExit as stop:
        if stop.code:
            raise UserError(f"{one_line(box.getvalue())}; see `{prog} --help`") from None
        raise
    if unknown:
        raise UserError(_unknown(unknown[0], cls, prog))
    return parsed


def one_line(box: str) -> str:
    """The first paragraph of a framed message.

    >>> one_line("╭─ Oh ─╮\\n│ bad  │\\n│ x.   │\\n│ ──── │\\n│ help │\\n╰──────╯")
    'bad x'
    """
    rows = [row.strip("│ ") for row in box.splitlines()[1:]]  # without the title
    inside = dropwhile(_is_rule, rows)
    paragraph = takewhile(lambda row: not _is_rule(row), inside)
    text = " ".join(" ".join(paragraph).split())
    for pattern, wording in PLAIN:
        text = re.sub(pattern, wording, text)
    return text.rstrip(".")


def _is_rule(row: str) -> bool:
    """Hyphens where the terminal knows no frames."""
    return set(row) <= set("─╰╯-")


def _unknown(given: str, cls: type[Any], prog: str) -> str:
    if not given.startswith("-"):
        return f"got {given!r} too many; see `{prog} --help`"
    name = given.split("=", 1)[0]
    hint = nearest(name, [f"--{option}" for option in option_names(cls)])
    return f"unknown option {name!r}; {hint or 'nothing is called like it;'} see `{prog} --help`"


def option_names(cls: type[Any], prefix: str = "") -> Iterator[str]:
    """All options of a dataclass: "labels", "ppo.clip", ..."""
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from option_names(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name.replace("_", "-")
