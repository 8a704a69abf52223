"""Segments: short windows of behaviour, named by their content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from prefrl.feedback.codec import pack, unpack
from prefrl.feedback.errors import DamagedSegment


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a segment comes from.

    >>> Provenance(task="ALE/Pong-v5", seed=0, policy_step=2048, env=3, episode=0, t0=96).t0
    96
    """

    task: str
    """The task's id."""
    seed: int
    """Of the run."""
    policy_step: int
    """Agent steps of the run when it was recorded."""
    env: int
    """Which of the B environments."""
    episode: int
    """Episodes that environment had finished before."""
    t0: int
    """Steps of the episode before the first of the segment."""

    def __post_init__(self) -> None:
        if not isinstance(self.task, str) or not self.task:
            raise ValueError(f"provenance.task: got {self.task!r}, wanted the task's id")
        for name in ("seed", "policy_step", "env", "episode", "t0"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"provenance.{name}: got {value!r}, wanted an int of 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """T consecutive steps of one episode; not to be changed once made."""

    observations: np.ndarray
    """[T, *obs] what the reward model sees; stacked frames as uint8 [T, H, W, C]."""
    actions: np.ndarray
    """[T, *act]"""
    true_reward: np.ndarray
    """[T] float64, hidden: only oracles and metrics may read it."""
    ended: bool
    """Hidden: an episode ended in the last step."""
    provenance: Provenance
    """Where it comes from."""
    clip: bytes
    """How to draw what a rater sees; opaque here."""
    _id: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        T = len(self.actions) if self.actions.ndim else 0
        if T < 1 or len(self.observations) != T or self.true_reward.shape != (T,):
            raise ValueError(
                f"segment: got observations {self.observations.shape}, actions "
                f"{self.actions.shape}, true_reward {self.true_reward.shape}; "
                "wanted [T, *obs], [T, *act], [T] with T >= 1"
            )
        if self.true_reward.dtype != np.float64 or not np.isfinite(self.true_reward).all():
            raise ValueError("segment.true_reward: wanted finite float64")

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def id(self) -> str:
        """Hex SHA-256 of observations, actions and provenance; hidden fields do not enter."""
        if not self._id:
            object.__setattr__(self, "_id", _content_hash(self))
        return self._id


def encode_segment(segment: Segment) -> bytes:
    """The whole segment as bytes, hidden fields and clip included."""
    about = {"ended": segment.ended, "provenance": asdict(segment.provenance)}
    clip = np.frombuffer(segment.clip, dtype=np.uint8)
    hidden = {"true_reward": segment.true_reward, "clip": clip}
    return pack(about, {**_seen(segment), **hidden})


def decode_segment(data: bytes) -> Segment:
    """The inverse of `encode_segment`.

    Raises:
        DamagedSegment: anything else than what it returned.
    """
    about, arrays = unpack(data)
    if set(arrays) != {"observations", "actions", "true_reward", "clip"}:
        raise DamagedSegment(f"damaged segment: holds {sorted(arrays)}")
    if type(about.get("ended")) is not bool:
        raise DamagedSegment("damaged segment: does not say whether an episode ended")
    return _built(
        arrays,
        about.get("provenance"),
        true_reward=arrays["true_reward"],
        ended=about["ended"],
        clip=arrays["clip"].tobytes(),
    )


def encode_view(segment: Segment) -> bytes:
    """What the reward model sees, without reward, episode end and clip."""
    return pack({"provenance": asdict(segment.provenance)}, _seen(segment))


def decode_view(data: bytes, *, true_reward: np.ndarray, ended: bool, clip: bytes) -> Segment:
    """The inverse of `encode_view`, given what it left out.

    Raises:
        DamagedSegment: anything else than what it returned.
    """
    about, arrays = unpack(data)
    if set(arrays) != {"observations", "actions"}:
        raise DamagedSegment(f"damaged segment: holds {sorted(arrays)}")
    provenance = about.get("provenance")
    return _built(arrays, provenance, true_reward=true_reward, ended=ended, clip=clip)


def _seen(segment: Segment) -> dict[str, np.ndarray]:
    return {"observations": segment.observations, "actions": segment.actions}


def _built(arrays: dict[str, np.ndarray], provenance: Any, **hidden: Any) -> Segment:
    names = {f.name for f in fields(Provenance)}
    if not isinstance(provenance, dict) or set(provenance) != names:
        raise DamagedSegment(f"damaged segment: its provenance is {provenance!r}")
    try:
        return Segment(
            observations=arrays["observations"],
            actions=arrays["actions"],
            provenance=Provenance(**provenance),
            **hidden,
        )
    except (ValueError, TypeError) as error:
        raise DamagedSegment(f"damaged segment: {error}") from error


def _content_hash(segment: Segment) -> str:
    digest = hashlib.sha256(b"prefrl segment 1\n")
    digest.update(json.dumps(asdict(segment.provenance), sort_keys=True).encode())
    for name, array in _seen(segment).items():
        little = array.dtype.newbyteorder("<")
        digest.update(f"\n{name} {little.str} {array.shape}\n".encode())
        digest.update(np.asarray(array, dtype=little, order="C").data)
    return digest.hexdigest()
