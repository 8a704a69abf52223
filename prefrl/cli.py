"""The command line: `prefrl COMMAND ...`.

Each command is a module of `prefrl.commands` that loads when it is asked for. What a user
did wrong ends here, in one line on stderr and with exit code 2.
"""

from __future__ import annotations

import errno
import importlib
import keyword
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Sequence

from prefrl import __version__
from prefrl.errors import UserError, nearest

COMMANDS = {
    "train": "learn a task from comparisons of clips, or go on with a run",
    "eval": "true return of a run's newest policy",
    "watch": "see a run's newest policy play, or record it",
    "rate": "compare clips of a run yourself, in a window",
    "fit": "fit a new reward model to the answers of a run",
    "clips": "films of queries: the answers, and what the reward model thinks",
    "report": "curves, figures and the reward model's worst mistakes again, and a table of runs",
    "raters": "how well the raters of a run rate; --forget NAME removes one",
    "export": "the answers of a run as CSV, JSON lines or Parquet",
    "import": "answers from such a file into a run",
    "gold": "items whose right answer is known, to get to know raters",
    "pack": "clips and questions into a file, for a rater on another machine",
    "merge": "the answers to such a pack into its run",
    "tasks": "list the tasks",
    "lm": "language models: sft, reward, ppo, online, dpo, best-of-n, generate, judge, eval",
}
USER, INTERRUPTED, PIPE = 2, 130, 141
OUT_OF_MEMORY = (  # the words of torch, and of the system
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "out of memory",
)
STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "that name is too long",
    errno.EEXIST: "there is something else of that name",
    errno.EISDIR: "that is a directory, where a file was wanted",
    errno.ENOTDIR: "part of that path is a file, where a directory was wanted",
}


RIGHTS = (errno.EACCES, errno.EROFS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    _log_to_stderr()
    threading.excepthook = _thread_failed
    try:
        _dispatch(args)
    except KeyboardInterrupt:
        return _complain("interrupted", code=INTERRUPTED)
    except ValueError as error:
        if not _is_users(error):
            raise
        return _complain(str(error))
    except BrokenPipeError:  # `prefrl tasks | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE
    except _machine_errors() as error:
        trouble = storage_trouble(error) or memory_trouble(error)
        if trouble is None:
            raise
        return _complain(trouble)
    return 0


def _dispatch(args: list[str]) -> None:
    command = args[0] if args else "--help"
    if command in ("-h", "--help"):
        print(usage())
    elif command == "--version":
        print(f"prefrl {__version__}")
    elif command in COMMANDS:
        name = f"{command}_" if keyword.iskeyword(command) else command
        module = importlib.import_module(f"prefrl.commands.{name}")
        module.main(args[1:], prog=f"prefrl {command}")
    else:
        hint = nearest(command, COMMANDS) or f"known: {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {command!r}; {hint}")


def usage() -> str:
    """What `prefrl --help` prints."""
    lines = [f"  {name:<8} {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: prefrl COMMAND ...",
            "",
            "Reinforcement learning from preferences, for games, robots and language models.",
            "",
            *lines,
            "",
            "`prefrl COMMAND --help` shows its options, `prefrl --version` the version.",
        ]
    )


def storage_trouble(error: BaseException) -> str | None:
    """One line when the disk is at fault, else None.

    >>> storage_trouble(sqlite3.OperationalError("database or disk is full"))
    'the disk is full: free some space, then give the same command, with its --out, to go on; ...'
    """
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if "disk is full" in text or "No space left" in text:  # SQLite, safetensors
        number = errno.ENOSPC
    if number not in STORAGE:
        return None
    named = isinstance(error, OSError) and error.filename
    where = f" ({os.fsdecode(error.filename)})" if named else ""  # type: ignore[attr-defined]
    if number in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{STORAGE[number]}{where}: free some space, then give the same command, with its "
            "--out, to go on; the last checkpoint and every acknowledged answer are safe"
        )
    instead = ", or change its rights" if number in RIGHTS else ""
    return f"{STORAGE[number]}{where}: name a place that can be written{instead}"


def memory_trouble(error: BaseException) -> str | None:
    """One line when there is not memory enough, else None.

    >>> memory_trouble(MemoryError("Unable to allocate 7.3 TiB"))
    'not enough memory (Unable to allocate 7.3 TiB): ask for fewer environments, or smaller ...'
    """
    text = str(error).splitlines()[0] if str(error) else ""
    if not isinstance(error, MemoryError) and not any(sign in text for sign in OUT_OF_MEMORY):
        return None
    said = f" ({text})" if text else ""
    return f"not enough memory{said}: ask for fewer environments, or smaller batches or networks"


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer fails on the disks on which the main thread fails, who says so."""
    if args.exc_value is None or storage_trouble(args.exc_value) is None:
        threading.__excepthook__(args)


def _machine_errors() -> tuple[type[BaseException], ...]:
    from safetensors import SafetensorError

    return (OSError, sqlite3.Error, SafetensorError, MemoryError, RuntimeError)


def _is_users(error: ValueError) -> bool:
    """Errors of `envs` count too; if one was raised, `envs` is loaded."""
    envs = sys.modules.get("envs")
    return isinstance(error, UserError) or (envs is not None and isinstance(error, envs.TaskError))


def _complain(message: str, *, code: int = USER) -> int:
    print(f"prefrl: {' '.join(message.split())}", file=sys.stderr)
    return code


class _ToStderr(logging.Handler):
    """Asks for `sys.stderr` at every line, so that a progress bar can put it above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning: " if record.levelno >= logging.WARNING else ""
        print(f"prefrl: {level}{record.getMessage()}", file=sys.stderr)


def _log_to_stderr() -> None:
    logger = logging.getLogger("prefrl")
    logger.handlers = [_ToStderr()]
    logger.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
