"""`prefrl.train`: put the parts of one run together and set it going."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from envs import MAX_CLIP_STEPS, Task, find_task, make_vec
from prefrl.agents.policy import refuse_unread
from prefrl.config import TrainConfig, from_dict, to_dict
from prefrl.errors import UserError, program, refuse_idle
from prefrl.feedback import FeedbackStore, LabelSchedule, Oracle, make_oracle
from prefrl.film import PLAY_SEED, check_drawing, open_player, record
from prefrl.final_report import write_report
from prefrl.frozen import frozen_defaults, frozen_model, named_as_begun
from prefrl.loop.hardware import choose_device, set_threads
from prefrl.loop.metrics import read_metrics
from prefrl.loop.report import write_learning_curves
from prefrl.loop.rundir import RunDir, RunLock
from prefrl.loop.state import Run, spaces_of
from prefrl.loop.train import Stop, learn
from prefrl.recipes import recipe_for
from prefrl.rewards import Spaces, check_stride

log = logging.getLogger(__name__)

OF_PIXELS = ("policy.precision", "model.network", "model.dropout")
OF_STATES = ("model.far_inputs",)
MAY_CHANGE = ("threads", "video")
"""With these a run may go on otherwise than it began."""


def train(task: str, *, out: str | Path | None = None, **settings: Any) -> RunDir:
    """Learn `task` from comparisons of clips, the score hidden.

    Args:
        task: "ALE/Pong-v5", "HalfCheetah-v5", ...
        out: run directory; the same call with the same `out` resumes. None: `runs/<task>-<time>`.
        settings: what differs from the task's recipe, by the names of `TrainConfig`; nested
            ones as dictionaries: `ppo={"clip": 0.2}`.

    Returns:
        The run directory.

    Raises:
        UserError: an unknown setting or value; nothing has been created.
        envs.TaskError: an unknown task.
        KeyboardInterrupt: by Ctrl-C, once all is saved.
    """
    where = Path(out) if out else None
    recipe = frozen_defaults(recipe_for(task), settings.pop("reward_model", None), out=where)
    config = from_dict(TrainConfig, merged(to_dict(recipe), settings))
    return run(config, out=where or default_directory(config.task))


def run(config: TrainConfig, *, out: Path) -> RunDir:
    """Start the run of `config` in `out`, or go on with it, to its end.

    Raises:
        KeyboardInterrupt, SystemExit: a signal stopped it; all is saved.
    """
    keep_freed_memory()
    begun = RunDir(path=out).config.is_file()
    if begun:
        # another run's is refused before its models are looked at
        config = named_as_begun(config, out)
        RunDir.prepare(out, config, may_change=MAY_CHANGE)
    else:
        _check_points(config)
    schedule = make_schedule(config)
    rater = make_rater(config)
    device = choose_device(config.device)
    set_threads(config.threads)
    about = {"num_envs": config.num_envs, "seed": config.seed, "threads": config.threads}
    with closing(make_vec(config.task, **about, **config.env.options())) as venv:
        _check(config, venv.task)
        spaces = spaces_of(venv)
        model = frozen_model(config, RunDir(path=out), spaces=spaces, device=device)
        if not begun:
            _refuse_idle(config, spaces)
        directory = RunDir.prepare(out, config, may_change=MAY_CHANGE)
        with RunLock(directory):
            with _store(directory, config) as store, Stop().on_signals() as stop:
                if rater is None:
                    store.set_instructions(instructions(find_task(config.task)))
                parts = Run(
                    config,
                    directory,
                    venv=venv,
                    rater=rater,
                    schedule=schedule,
                    store=store,
                    device=device,
                    model=model,
                )
                log.info("%s", _headline(config, out))
                parts.resume()
                complete = parts.step >= config.steps
                if not complete:
                    _note_threads(directory, step=parts.step)
                learn(parts, stop=stop)
                if stop.asked:
                    _take_leave(directory)
            _warn_of_missing_labels(parts)
            if config.video:
                _film(directory)
            page = directory.path / "report" / "index.html"
            if config.video or not complete or not page.is_file():  # films that are there stay
                page = write_report(directory, films=config.video)
            log.info("report: %s", page)
    return directory


def make_rater(config: TrainConfig) -> Oracle | None:
    """The synthetic rater `config` names, who charges the task's penalty for an episode end.

    None for "human": people answer through the store.
    """
    if config.rater == "human":
        return None
    penalty = find_task(config.task).end_penalty
    return make_oracle(config.rater, seed=config.seed, end_penalty=penalty)


def instructions(task: Task) -> str:
    """What people are told (Christiano et al. 2017, appendix B, in our words)."""
    return (
        f"{task.instructions}\n\nJudge what you see in the clip, not how it came to be or what "
        "may follow. If both are as good, say equal. Only if you cannot make sense of one, say "
        "that they cannot be compared."
    )


def make_schedule(config: TrainConfig) -> LabelSchedule:
    """When how many labels are due."""
    return LabelSchedule(
        kind=config.queries.schedule,
        labels=config.labels,
        initial=round(config.queries.initial * config.labels),
        steps=config.steps,
        points=config.queries.points if config.queries.schedule == "custom" else (),
    )


def default_directory(task: str) -> Path:
    """`runs/<task>-<time>`, with a number behind it where there is one already."""
    name = f"{task.rsplit('/', 1)[-1]}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path("runs") / name
    numbers = count(2)
    while path.exists():
        path = Path("runs") / f"{name}-{next(numbers)}"
    return path


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, table by table."""
    out = dict(base)
    for key, value in changes.items():
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if nested else value
    return out


def _headline(config: TrainConfig, out: Path) -> str:
    if config.reward == "true":
        source = "its true reward (baseline)"
    elif config.reward_model is not None:
        source = f"the reward model in {config.reward_model}"
    else:
        who = "people" if config.rater == "human" else repr(config.rater)
        source = f"{config.labels:,} labels by {who}"
    return f"{config.task} from {source}, {config.steps:,} steps, seed {config.seed}, in {out}"


def _note_threads(directory: RunDir, *, step: int) -> None:
    now = torch.get_num_threads()
    before = directory.note_threads(now, step=step)
    if before is not None:
        log.warning(
            "%d threads from here on, %d before: rounding may make another course of it",
            now,
            before,
        )


def _take_leave(directory: RunDir) -> None:
    """Of a run that was told to stop."""
    if read_metrics(directory.metrics):  # or it was stopped before its first rollout
        log.info("curves: %s", write_learning_curves(directory))
    log.info("stopped: `%s train --resume --out %s` goes on from here", program(), directory.path)


def _warn_of_missing_labels(run: Run) -> None:
    if not run.config.asks or run.asking.labels_used >= run.config.labels:
        return
    if run.asking.labels_used == 0:
        log.warning("nobody has answered anything in this run, so nothing was learned")
        return
    why = "people had not answered the others" if run.rater is None else "others were passed over"
    log.warning(
        "%s of %s labels came: %s, or there were too few segments to ask about "
        "(queries.per_rollout, queries.pool)%s",
        f"{run.asking.labels_used:,}",
        f"{run.config.labels:,}",
        why,
        "" if run.model.fitted else "; the first labels were not complete, so nothing was learned",
    )


def _film(directory: RunDir) -> None:
    """Of the final policy, where this machine can draw it."""
    player, _ = open_player(directory, num_envs=1, seed=PLAY_SEED, greedy=False, whole=True)
    try:
        check_drawing(player.venv.task)
        log.info("video: %s", record(player, directory.path / "videos" / "final.mp4"))
    except UserError as error:
        log.warning("no video: %s", " ".join(str(error).split()))
    finally:
        player.venv.close()


def _check(config: TrainConfig, task: Task) -> None:
    """What can be known to fail, before anything is created.

    Args:
        task: as it is played with the run's options.
    """
    length = config.queries.segment_steps or task.segment_steps
    if config.asks:
        _check_segments(config, task, length)
    least = length if config.asks and config.queries.restart else config.rollout_steps
    if config.ppo.minibatches > config.num_envs * least:
        raise UserError(
            f"ppo.minibatches: got {config.ppo.minibatches}, wanted at most "
            f"{config.num_envs * least}: {config.num_envs} environments of {least} steps"
        )
    rollout = config.num_envs * config.rollout_steps
    played = math.ceil(config.steps / rollout) * rollout
    if task.horizon is not None and played < 2 * task.horizon * config.num_envs:
        log.warning(
            "true returns will be known of few or no episodes: %s steps are %s in each of %s "
            "environments, and an episode has %s",
            f"{played:,}",
            f"{played // config.num_envs:,}",
            config.num_envs,
            f"{task.horizon:,}",
        )
    between = math.ceil(config.checkpoint_every / rollout) * config.rollout_steps
    if task.horizon is not None and between < 2 * task.horizon:
        log.warning(
            "the environments start anew every checkpoint_every = %s steps, before each has ended "
            "a whole episode of %s steps: true returns will be known of few or none",
            f"{config.checkpoint_every:,}",
            f"{task.horizon:,}",
        )


def _refuse_idle(config: TrainConfig, spaces: Spaces) -> None:
    """Settings that would do nothing; runs that were begun with such go on."""
    refuse_unread(config.policy, pixels=spaces.kind == "pixels", discrete=spaces.discrete)
    if config.rater != "human":
        beside = f"the rater {config.rater}, who answers at once"
        refuse_idle("schedule", config.schedule, "async", beside=beside)
    elif not config.asks:
        raise UserError(
            f"rater: got human, with reward {config.reward} and {config.labels} labels: nobody "
            "would be asked anything"
        )
    if config.reward_model is None:
        sha256 = config.reward_model_sha256
        refuse_idle("reward_model_sha256", sha256, None, beside="no reward_model")
    recipe = recipe_for(config.task)
    for name, beside in _unread(config, pixels=spaces.kind == "pixels"):
        refuse_idle(name, *map(attrgetter(name), (config, recipe)), beside=beside)


def _unread(config: TrainConfig, *, pixels: bool) -> Iterator[tuple[str, str]]:
    """Settings, or tables of them, that nothing reads, each with why."""
    if config.reward == "true":
        yield from ((name, "reward true") for name in ("model", "queries"))
    kind, idle = ("pixels", OF_STATES) if pixels else ("states", OF_PIXELS)
    for name in idle:
        if config.reward_model is None or not name.startswith("model."):  # else they are the file's
            yield name, kind
    if config.queries.strategy == "uniform":
        yield from ((f"queries.{name}", "strategy uniform") for name in ("spread", "uniform_share"))
    if config.rater != "human":
        yield "queries.stale_after", f"the rater {config.rater}, who answers at once"


def _check_segments(config: TrainConfig, task: Task, length: int) -> None:
    """Do segments of `length` steps fit into everything?"""
    if length > config.rollout_steps:
        raise UserError(
            f"a segment of {length} steps does not fit into a rollout of {config.rollout_steps}: "
            "raise rollout_steps or lower queries.segment_steps"
        )
    if length > MAX_CLIP_STEPS:
        raise UserError(f"queries.segment_steps: got {length}, wanted at most {MAX_CLIP_STEPS}")
    if task.horizon is not None and length > task.horizon:
        raise UserError(
            f"a segment of {length} steps does not fit into an episode of {config.task}, which has "
            f"{task.horizon}: lower queries.segment_steps"
        )
    check_stride(config.model, length)


def _check_points(config: TrainConfig) -> None:
    """A recipe's points may stay behind where another schedule was asked for; others may not."""
    points, kind = config.queries.points, config.queries.schedule
    if points and kind != "custom" and points != recipe_for(config.task).queries.points:
        raise UserError(f"queries.points: got some, with the schedule {kind}; wanted custom")


def _store(directory: RunDir, config: TrainConfig) -> FeedbackStore:
    if (directory.path / "labels.db").exists():
        store = FeedbackStore.open(directory.path)
        task, seed = store.task, store.seed
        if (task, seed) != (config.task, config.seed):
            store.close()
            raise UserError(
                f"{directory.path / 'labels.db'} holds answers about {task}, seed {seed}; wanted "
                f"those of this run, {config.task}, seed {config.seed}: put its own back, or "
                "`prefrl import` the others"
            )
        return store
    return FeedbackStore.create(directory.path, task=config.task, seed=config.seed)


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks: 10-15 % of Pong's time goes into page faults otherwise."""
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return  # another C library, which needs no such hint
    m_trim_threshold, m_mmap_max = -1, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
