"""Step logs forget what no clip asks for."""

import numpy as np
import pytest

from envs import TaskError, make_vec
from envs.log import BLOCK_STEPS, StepLog


def filled(steps: int, *, blocks: int | None) -> StepLog:
    log = StepLog(2, (1,), np.int64, blocks=blocks)
    for t in range(steps):
        log.append(np.array([[t], [-t]]))
    return log


def test_only_the_newest_blocks_are_kept() -> None:
    log = filled(5 * BLOCK_STEPS + 1, blocks=2)
    assert log.first == 4 * BLOCK_STEPS
    assert log.column(1, log.first, log.length)[:, 0].tolist() == [
        *range(-log.first, -log.length, -1)
    ]
    with pytest.raises(AssertionError):
        log.column(0, log.first - 1, log.length)
    assert filled(3 * BLOCK_STEPS, blocks=None).first == 0


def test_a_part_outlives_what_the_log_forgets() -> None:
    log = filled(BLOCK_STEPS + 9, blocks=1)
    start = BLOCK_STEPS + 3
    part = log.part(start, start + 5)
    for _ in range(3 * BLOCK_STEPS):
        log.append(np.full((2, 1), 7))
    assert log.first > start
    assert part.column(0, start, start + 5)[:, 0].tolist() == [*range(start, start + 5)]


def test_a_robot_that_is_never_reset_keeps_no_more_than_its_newest_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("envs.hidden.KEPT_BLOCKS", 1)
    venv = make_vec("prefrl/Dot-v0", num_envs=2, seed=0)
    venv.reset()
    actions = np.zeros(2, np.int64)
    for _ in range(2 * BLOCK_STEPS + 5):
        venv.step(actions)
    with pytest.raises(
        TaskError, match=r"no clip of steps \[2000, 2050\): wanted .* \[2048, 2053\)"
    ):
        venv.clip_recipe(env=0, start=2000, steps=50)
    recipe = venv.clip_recipe(env=1, start=2048, steps=5)
    for _ in range(2 * BLOCK_STEPS):
        venv.step(actions)
    assert recipe.trace.rows().shape[0] == 5
    venv.close()
