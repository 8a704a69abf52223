"""Threads and devices."""

import os
import subprocess
import sys

import pytest
import torch

from prefrl.errors import UserError
from prefrl.loop.hardware import set_threads


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux tells")
def test_all_cores_are_those_that_the_process_may_use(threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 6})
    set_threads(0)
    assert torch.get_num_threads() == 3
    set_threads(2)
    assert torch.get_num_threads() == 2


def test_fewer_threads_than_none_are_refused(threads):
    with pytest.raises(UserError, match="threads: got -1, wanted 0 to 4096"):
        set_threads(-1)


def test_looking_for_triton_needs_nothing_that_was_imported_before():
    ask = (
        "import torch; from prefrl.loop.hardware import has_compiler as h; h(torch.device('cuda'))"
    )
    subprocess.run([sys.executable, "-c", ask], check=True)
