"""A run on disk, and back: weights, optimisers, counters, generators, the recorder's pool."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefrl.agents import restore_policy
from prefrl.errors import UserError
from prefrl.feedback import decode_segment, encode_segment
from prefrl.loop.checkpoint import below, load_optimiser, optimiser_tensors, prefixed

if TYPE_CHECKING:
    from prefrl.loop.state import Run

log = logging.getLogger(__name__)
POLICY, MODEL = "policy.safetensors", "reward_model.safetensors"
TRAINER, STATE = "trainer.safetensors", "state.json"
COUNTERS = ("step", "next_checkpoint", "latest")
OF_ASKING = ("labels_used", "unfitted", "watermark", "next_session")


def write_run(run: Run, path: Path) -> None:
    """Write all that `read_run` needs into the directory `path`."""
    _save(run.policy.state_dict(), path / POLICY)
    run.model.save(path)
    _save(_tensors(run), path / TRAINER)
    (path / STATE).write_text(json.dumps(_counters(run), indent=1))


def read_run(run: Run, path: Path) -> None:
    """Bring `run` to where it stood when `path` was written; labels come from its store.

    Raises:
        UserError: it was begun when the task had another true reward, or on another device.
    """
    counters = json.loads((path / STATE).read_text())
    _check_device(run, begun=counters.get("device"))
    _check_true_reward(run, begun=counters.get("true_reward"))
    restore_policy(run.policy, load_file(path / POLICY))
    run.model.restore(load_file(path / MODEL))
    for name in COUNTERS:
        setattr(run, name, counters[name])
    for name in OF_ASKING:
        setattr(run.asking, name, counters[name])
    run.episodes.restore(counters["episodes"])
    run.query_generator.bit_generator.state = counters["query_generator"]
    run.window_generator.bit_generator.state = counters["window_generator"]
    labels = {x.seq: x for x in run.store.labels(after=0, as_of=run.asking.watermark)}
    for seq in counters.get("labels", labels):  # older checkpoints: all
        if seq not in labels:
            raise UserError(
                f"checkpoint {path.name} learned from answer {seq}, which is not in "
                f"{run.directory.path / 'labels.db'}: restore a newer backup of it, or move "
                f"{path.parent} away to begin at step 0 with the answers that are there"
            )
        run.bank.add(labels[seq], [run.store.segment(i) for i in labels[seq].segments])
    reset = {
        "reset_step": counters["reset_step"],
        "phases": counters.get("phases", False),  # older checkpoints: all in one
    }
    _restore(run, load_file(path / TRAINER), reset)


def _counters(run: Run) -> dict[str, Any]:
    environments = run.collector.state()
    return {
        **{name: getattr(run, name) for name in COUNTERS},
        **{name: getattr(run.asking, name) for name in OF_ASKING},
        "device": run.device.type,
        "true_reward": run.venv.task.counted(),
        "labels": run.bank.seqs,
        "episodes": run.episodes.state(),
        "query_generator": run.query_generator.bit_generator.state,
        "window_generator": run.window_generator.bit_generator.state,
        **{name: environments[name] for name in ("reset_step", "phases")},
    }


def _check_device(run: Run, *, begun: str | None) -> None:
    """Random numbers of one kind of device cannot be drawn on another.

    Args:
        begun: None in older checkpoints.
    """
    now = run.device.type
    if begun not in (None, now):
        raise UserError(
            f"{run.directory.path} was begun on {begun}; here device {run.config.device!r} is "
            f"{now}: go on where there is {begun}, or begin anew in another directory"
        )


def _check_true_reward(run: Run, *, begun: dict[str, Any] | None) -> None:
    """Half a run of each of two rewards would be neither; where it is a figure only, say so.

    Args:
        begun: None in older checkpoints.
    """
    now = run.venv.task.counted()
    if begun in (None, now):
        return
    said = (
        f"{run.directory.path} was begun when the true reward of {run.config.task} had {begun}; "
        f"now it has {now}"
    )
    if run.config.reward == "true" or (run.rater is not None and run.config.asks):
        raise UserError(
            f"{said}: go on with the version of prefrl that began it, or start anew in another "
            "directory"
        )
    log.warning("%s: true returns from here on do not compare with those before", said)


def _tensors(run: Run) -> dict[str, Tensor]:
    tensors = {f"rng.{k}": g.get_state() for k, g in run.generators.items()}
    tensors |= prefixed("ppo.", optimiser_tensors(run.ppo.optimiser.state_dict()))
    tensors |= prefixed("fit.", optimiser_tensors(run.fitter.optimiser.state_dict()))
    tensors |= prefixed("fitter.", run.fitter.state())
    arrays = {f"recorder.{k}": v for k, v in run.recorder.state().items()}
    arrays["actions"] = run.collector.state()["actions"]
    for i, segment in enumerate(run.recorder.pool):
        arrays[f"pool.{i:06d}"] = np.frombuffer(encode_segment(segment), dtype=np.uint8)
    return tensors | {k: torch.from_numpy(v.copy()) for k, v in arrays.items()}


def _restore(run: Run, tensors: dict[str, Tensor], reset: dict[str, Any]) -> None:
    load_optimiser(run.ppo.optimiser, below("ppo.", tensors))
    load_optimiser(run.fitter.optimiser, below("fit.", tensors))
    run.fitter.restore(below("fitter.", tensors))
    run.recorder.restore({k: v.numpy() for k, v in below("recorder.", tensors).items()})
    pool = below("pool.", tensors)
    run.recorder.pool.extend(decode_segment(pool[k].numpy().tobytes()) for k in sorted(pool))
    run.collector.restore({**reset, "actions": tensors["actions"].numpy()})
    for name, state in below("rng.", tensors).items():  # last: replay draws no action
        run.generators[name].set_state(state)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # cloned, because parameters may be views of one vector, which safetensors refuses
    save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, path)
