"""Docstrings: read from a library, split by signature, judged by a rubric."""

from pathlib import Path

import pytest

from prefrl.language.tasks.docstrings import (
    RUBRIC,
    demonstrations,
    docstrings_task,
    documented,
    gold,
    summaries,
)

SOURCE = '''
class Box:
    def put(self, item, *more, at=0, **rest):
        """Put an item
        into the box.

        More of it.
        """

    def silent(self):
        pass

async def wait():
    """Wait."""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "box.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def f(:")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "test_box.py").write_text('def g():\n    """Left out."""')
    return tmp_path


def test_functions_are_read_with_their_names_and_without_running_anything(library: Path) -> None:
    wait, put = sorted(documented(library), key=lambda one: one.signature, reverse=True)
    assert (wait.signature, wait.summary) == ("def wait():", "Wait.")
    assert put.signature == "def put(item, *more, at, **rest):"
    assert put.summary == "Put an item into the box."
    assert put.docstring.endswith("More of it.")


def test_the_users_own_library_gives_thousands_and_held_out_ones_are_others() -> None:
    train, held_out = summaries(held_out=False), summaries(held_out=True)
    assert len(train) > 2000
    assert 0.05 < len(held_out) / len(train) < 0.2
    assert not {d.prompt for d in train} & {d.prompt for d in held_out}


def test_demonstrations_are_drawn_without_replacement() -> None:
    drawn = demonstrations(300, seed=1)
    assert len(drawn) == 300
    assert drawn == demonstrations(300, seed=1)
    assert drawn != demonstrations(300, seed=2)


@pytest.mark.parametrize(
    ("completion", "broken"),
    [
        ("Sort the items in place.", None),
        ("Sort the items in place", "ends_with_a_stop"),
        ("The items are sorted now.", "starts_with_a_verb"),
        ("Sort the items.", "has_a_good_length"),
        ("Sort all things in place.", "names_a_parameter"),
        ("Sort the items, sort the items now.", "does_not_repeat"),
    ],
)
def test_the_rubric_gives_a_point_a_rule(completion: str, broken: str | None) -> None:
    prompt = "def sort(items, key):"
    failed = [name for name, rule in RUBRIC.items() if not rule(prompt, completion)]
    assert failed == ([broken] if broken else [])
    assert gold(prompt, completion, True) == 5 - len(failed)
    assert gold(prompt, completion, False) == 4 - len(failed)


def test_nothing_said_is_worth_nothing() -> None:
    assert gold("def f():", "  ", True) == 0


def test_prompts_and_summaries_nearly_all_fit_the_tasks_limits() -> None:
    task = docstrings_task()
    tokenizer = task.tokenizer()
    some = summaries(held_out=False)[:1000]
    fits = [
        len(tokenizer.encode_prompt(one.prompt)) <= task.max_prompt
        and len(tokenizer.encode_completion(one.completion)) <= task.max_completion
        for one in some
    ]
    assert sum(fits) / len(some) > 0.98  # other versions of Python hold other texts


def test_what_is_held_out_is_not_trained_on() -> None:
    task = docstrings_task()
    held_out = task.held_out(50)
    assert len(held_out) == 50
    assert not {d.prompt for d in held_out} & {d.prompt for d in task.demonstrations(99_999, 0)}
