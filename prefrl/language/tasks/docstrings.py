"""Docstrings: real English without a download, from the user's own Python standard library.

    prompt      def join(a, *p):
    completion  Join two or more pathname components, inserting '/' as needed.     end token

The texts are read with `ast` where this Python is installed (PSF licence) and are copied nowhere;
other versions of Python hold other texts. The gold reward is a rubric of five rules, a point each
(`RUBRIC`), less one point for a completion that does not end. A completion that satisfies it may
still say nothing that is true: the task shows mechanisms, not quality of language.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prefrl.language.records import Demonstration
from prefrl.language.tasks.task import TextTask
from prefrl.language.tokenizer import Tokenizer, train_tokenizer

LEFT_OUT = ("test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__")
VOCABULARY = 1024
MOST_PROMPT, MOST_SUMMARY = 80, 100  # characters
HELD_OUT_PER_CENT = 10
IMPERATIVES = """
    add append apply assert build calculate call check clear close compare compute connect
    convert copy create decode delete determine display do draw encode execute extract find flush
    format generate get give handle import initialize insert install invoke iterate join list load
    look make map mark move open parse perform pop print process provide push put raise read
    record register remove replace report reset resolve restore return returns run save search
    send set shift show skip sort split start stop store take test try turn unpack update use
    validate wait walk wrap write yield
"""
VERBS = frozenset(IMPERATIVES.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """A function with its docstring."""

    signature: str
    """As in `def join(a, *p):`."""
    docstring: str
    """All of it, its indentation removed."""

    @property
    def summary(self) -> str:
        """Its first paragraph, on one line."""
        return " ".join(self.docstring.split("\n\n")[0].split())

    @property
    def held_out(self) -> bool:
        """A tenth, the same in every process; functions of one signature go together."""
        digest = hashlib.blake2b(self.signature.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % 100 < HELD_OUT_PER_CENT


@functools.cache
def documented(root: Path | None = None) -> tuple[Documented, ...]:
    """Every documented function below `root`, by default this Python's standard library."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    found: dict[tuple[str, str], Documented] = {}
    for path in sorted(root.rglob("*.py")):
        if not set(path.relative_to(root).parts) & set(LEFT_OUT):
            for one in _functions(path):
                found.setdefault((one.signature, one.docstring), one)
    return tuple(found.values())


def _functions(path: Path) -> Iterator[Documented]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):  # templates and tests of the parser
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and docstring.isascii():
                yield Documented(signature=_signature(node), docstring=docstring)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Names alone: no defaults, no annotations, no self."""
    given = node.args
    names = [arg.arg for arg in (*given.posonlyargs, *given.args)]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [arg.arg for arg in given.kwonlyargs]
    names += [f"**{given.kwarg.arg}"] if given.kwarg else []
    plain = [name for name in names if name not in ("self", "cls")]
    return f"def {node.name}({', '.join(plain)}):"


@functools.cache
def summaries(*, held_out: bool) -> tuple[Demonstration, ...]:
    """Signature -> summary, where both are short."""
    return tuple(
        Demonstration(prompt=one.signature, completion=one.summary)
        for one in documented()
        if one.held_out == held_out
        and len(one.signature) <= MOST_PROMPT
        and len(one.summary) <= MOST_SUMMARY
    )


def language_texts(*, held_out: bool) -> tuple[str, ...]:
    """Whole docstrings: what the pretraining term keeps alive, and the loss it is held to."""
    return tuple(one.docstring for one in documented() if one.held_out == held_out)


def demonstrations(count: int, seed: int) -> tuple[Demonstration, ...]:
    """`count` training summaries drawn without replacement, or all of them."""
    known = summaries(held_out=False)
    order = np.random.default_rng(seed).permutation(len(known))[:count]
    return tuple(known[i] for i in order)


def _parameters(prompt: str) -> list[str]:
    inside = prompt.partition("(")[2].rpartition(")")[0]
    return [name.strip(" *") for name in inside.split(",") if name.strip(" *")]


def _words(text: str) -> list[str]:
    return [word.strip(".,;:()'\"`").lower() for word in text.split()]


def ends_with_a_stop(prompt: str, text: str) -> bool:
    """A full stop is the last character."""
    return text.endswith(".")


def starts_with_a_verb(prompt: str, text: str) -> bool:
    """In the imperative, as PEP 257 asks for (or "returns")."""
    return _words(text)[:1] != [] and _words(text)[0] in VERBS


def has_a_good_length(prompt: str, text: str) -> bool:
    """Five to twelve words."""
    return 5 <= len(text.split()) <= 12


def names_a_parameter(prompt: str, text: str) -> bool:
    """One of the prompt's parameters stands in it; where there are none, none is missed."""
    names = _parameters(prompt)
    return not names or bool({name.lower() for name in names} & set(_words(text)))


def does_not_repeat(prompt: str, text: str) -> bool:
    """No three words in a row come twice."""
    words = _words(text)
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(threes)) == len(threes)


RUBRIC: dict[str, Callable[[str, str], bool]] = {
    rule.__name__: rule
    for rule in (
        ends_with_a_stop, starts_with_a_verb, has_a_good_length, names_a_parameter, does_not_repeat,
    )
}  # fmt: skip
"""A constitution of five principles, also for `prefrl.language.judge`."""


def gold(prompt: str, completion: str, ended: bool) -> float:
    """Rules satisfied, 0 to 5, less one without an end.

    >>> gold("def sort(items):", "Sort the items in place.", True)
    5.0
    """
    text = completion.strip()
    if not text:
        return 0.0 - (not ended)
    return float(sum(rule(prompt, text) for rule in RUBRIC.values()) - (not ended))


def tokenizer() -> Tokenizer:
    """Byte pairs (Sennrich et al. 2016; Radford et al. 2019), trained on the docstrings."""
    texts = [t for one in documented() if not one.held_out for t in (one.signature, one.docstring)]
    return train_tokenizer(texts, kind="bytes", size=VOCABULARY)


def docstrings_task() -> TextTask:
    """The task."""
    return TextTask(
        name="docstrings",
        prompts=tuple(d.prompt for d in summaries(held_out=False)),
        held_out_prompts=tuple(d.prompt for d in summaries(held_out=True)),
        demonstrations=demonstrations,
        held_out=lambda count: summaries(held_out=True)[:count],
        gold=gold,
        tokenizer=tokenizer,
        max_prompt=48,
        max_completion=64,
    )
