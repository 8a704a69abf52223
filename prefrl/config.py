"""Settings of a run: typed, refused by name when unknown, kept in `config.toml`."""

from __future__ import annotations

import dataclasses
import math
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from prefrl.agents.policy import PolicyConfig
from prefrl.errors import UserError, nearest, plain_toml
from prefrl.ppo import PPOConfig
from prefrl.rewards import RewardConfig

T = TypeVar("T")

LARGEST = 10**15  # integer setting: TOML, JSON and SQLite hold it
MOST_ENVS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvConfig:
    """Options of the tasks: a game refuses a robot's, and a robot a game's."""

    actions: Literal["minimal", "full", "reduced"] | None = None
    """Buttons: the game's own, all 18, or only those that differ in effect."""
    sticky: float | None = None
    """Probability that the emulator repeats the last action (0 in Christiano et al. 2017)."""
    noop_max: int | None = None
    """Up to this many idle steps after a reset."""
    horizon: int | None = None
    """Steps of a robot's episode, where the task's are too many."""

    def options(self) -> dict[str, Any]:
        """What was set, for `make_vec`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryConfig:
    """Which clips are compared, and when."""

    schedule: Literal["christiano_atari", "christiano_mujoco", "constant", "custom"] = "constant"
    """How the labels are spread over training; the Christiano forms ask more early."""
    points: tuple[tuple[float, float], ...] = ()
    """Of the "custom" schedule alone: (share of the steps, share of the labels after the initial
    ones), from (0, 0) to (1, 1)."""
    initial: float = 0.25
    """Share of the labels due at step 0. What the schedule adds while the first segments gather is
    asked with them, before the policy learns."""
    every: int = 25_000
    """Steps between sessions of queries; each is followed by fitting."""
    restart: bool = False
    """Until the first fit, begin every segment at a reset: where a random policy soon falls, the
    moments before are rare, and tell most. What differs only later they do not tell."""
    segments: int = 2
    """Segments of each query: 2 are compared, 3 to 6 put in order, and 1, by people alone, is rated
    from 1 to 9."""
    strategy: Literal["uniform", "disagreement", "promising"] = "uniform"
    """Pairs drawn at random; those on which the ensemble disagrees most, which sometimes harms
    (Christiano et al. 2017, section 3.3); or those whose segments may have done best."""
    candidates: int = 10
    """Candidate pairs per query, for strategies that choose."""
    spread: int = 1
    """From so many times as many of the best candidates, those are asked whose best segments move
    the least alike: else they are about one thing, again and again. 1: the best alone."""
    first: Literal["uniform", "k_center"] = "uniform"
    """How the segments asked about before the first fit are chosen: at random; or half of them from
    `candidates` times as many, each moving the least like those chosen before it, which finds what
    is rare, and each beside one at random. They are gathered for a twentieth of the run at most,
    and no more than `pool` of them."""
    uniform_share: float = 0.0
    """Share of the pairs drawn at random all the same, where the strategy chooses."""
    segment_steps: int | None = None
    """Length of a segment; None: the task's own."""
    stale_after: int = 200_000
    """Steps after which people are no longer asked about old behaviour; synthetic raters
    answer at once."""
    need: int = 1
    """Answers wanted to each query, each by another person: 2 and more show how far people agree,
    and ask fewer queries for the same labels. Synthetic raters give one."""
    pool: int = 400
    """Recent segments from which pairs are drawn: larger compares older behaviour too."""
    per_rollout: int = 16
    """Segments cut from each rollout, over all environments."""

    def __post_init__(self) -> None:
        for name in ("initial", "uniform_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"queries.{name}: got {getattr(self, name)}, wanted 0 to 1")
        for name in ("every", "candidates", "spread", "stale_after", "need", "per_rollout"):
            if getattr(self, name) < 1:
                raise UserError(f"queries.{name}: got {getattr(self, name)}, wanted 1 or more")
        if self.spread > self.candidates:
            raise UserError(
                f"queries.spread: got {self.spread}, wanted at most {self.candidates} (candidates)"
            )
        if not 1 <= self.segments <= 6:
            raise UserError(
                f"queries.segments: got {self.segments}, wanted 2, 3 to 6 for rankings, or 1 for "
                "ratings by people"
            )
        if self.segment_steps is not None and self.segment_steps < 1:
            raise UserError(f"queries.segment_steps: got {self.segment_steps}, wanted 1 or more")
        if self.pool < max(self.segments, 2):
            raise UserError(
                f"queries.pool: got {self.pool}, wanted {max(self.segments, 2)} or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run: `prefrl train TASK`."""

    task: str
    """The task to learn; `prefrl tasks` lists them."""
    rater: str = "oracle"
    """Who compares the clips: "human", for people at `prefrl rate`, or a synthetic rater, of
    which `prefrl tasks` lists all."""
    schedule: Literal["async", "strict"] = "async"
    """With people: go on learning while they answer, or wait for them. Either way the first
    labels are waited for; synthetic raters answer at once."""
    reward: Literal["learned", "true"] = "learned"
    """What the policy is trained on; "true" shows it the score, as the baseline."""
    reward_model: str | None = None
    """Directory of a reward model, a run's or what `prefrl fit` wrote, to train on as it is:
    nobody is asked anything."""
    reward_model_sha256: str | None = None
    """Of its weights; written down by itself at the start, so that no other takes its place."""
    labels: int = 1400
    """Answers to ask for: comparisons, or rankings or ratings (`queries.segments`)."""
    steps: int = 1_000_000
    """Agent steps, over all environments (Atari: 4 frames each)."""
    seed: int = 0
    """Determines everything, on one machine, one set of versions and one number of threads."""
    num_envs: int = 16
    """B, environments side by side."""
    rollout_steps: int = 128
    """T, steps of each environment between updates."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    threads: int = 0
    """Threads of torch on the CPU, and of the emulators; 0: all cores."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the policy update; auto: for small networks on state observations, in runs long
    enough to earn back the half minute it takes, where there is a compiler."""
    checkpoint_every: int = 200_000
    """Steps between checkpoints. The environments start anew at each, so that episodes under way
    are not counted; where they are of unequal length, the short ones weigh more for it."""
    video: bool = True
    """Draw an MP4 of the final policy when the run is complete."""
    env: EnvConfig = field(default_factory=EnvConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    model: RewardConfig = field(default_factory=RewardConfig)
    """The reward model."""
    queries: QueryConfig = field(default_factory=QueryConfig)

    def __post_init__(self) -> None:
        refuse_unbounded(self)
        for name in ("labels", "seed", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        for name in ("steps", "num_envs", "rollout_steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        if self.num_envs > MOST_ENVS:
            raise UserError(f"num_envs: got {self.num_envs}, wanted at most {MOST_ENVS:,}")
        if self.queries.need > 1 and self.rater != "human":
            raise UserError(
                f"queries.need: got {self.queries.need}, with the rater {self.rater}; "
                "wanted 1, or people: --rater human"
            )
        if self.queries.segments == 1 and self.rater != "human":
            raise UserError(
                f"queries.segments: got 1, with the rater {self.rater}; "
                "wanted 2 or more, or people: --rater human"
            )
        strategy, members = self.queries.strategy, self.model.members
        if strategy != "uniform" and members < 2:
            raise UserError(
                f"queries.strategy: got {strategy}, with model.members {members}; "
                "wanted 2 members or more, or the strategy uniform"
            )

    @property
    def asks(self) -> bool:
        """Does anybody answer in this run?"""
        return self.reward == "learned" and self.labels > 0


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values for TOML, where None is written "none"."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            out[f.name] = to_dict(value)
        elif isinstance(value, tuple):
            out[f.name] = list(value)
        elif isinstance(value, Path):
            out[f.name] = str(value)
        else:
            out[f.name] = "none" if value is None else value
    return out


def from_dict(cls: type[T], data: dict[str, Any], *, prefix: str = "") -> T:
    """A dataclass from plain values; what is absent keeps its default.

    Raises:
        UserError: an unknown setting, or a value of the wrong type.
    """
    hints = get_type_hints(cls)
    unknown = [key for key in data if key not in hints]
    if unknown:
        raise UserError(unknown_setting(prefix + unknown[0], [prefix + h for h in hints]))
    values = {key: _value(hints[key], value, prefix + key) for key, value in data.items()}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.name not in data and f.default is f.default_factory is dataclasses.MISSING:
            raise UserError(f"{prefix}{f.name}: got nothing, wanted a value")
    return cls(**values)


def refuse_unbounded(config: Any, prefix: str = "") -> None:
    """Refuse numbers in a dataclass of settings that would only fail later, or never end.

    Raises:
        UserError: one that is infinite or nan, or an integer beyond any use.
    """
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            refuse_unbounded(value, f"{prefix}{f.name}.")
        else:
            _refuse_unbounded(value, prefix + f.name)


def _refuse_unbounded(value: Any, name: str) -> None:
    if isinstance(value, tuple):
        for item in value:
            _refuse_unbounded(item, name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}: got {value}, wanted a finite number")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise UserError(f"{name}: got {value}, wanted at most {LARGEST}")


def unknown_setting(name: str, known: list[str]) -> str:
    """One line: what was got, and the nearest known names."""
    hint = nearest(name, known) or f"known: {', '.join(sorted(known))}"
    return f"unknown setting {name!r}; {hint}"


def write_toml(config: Any, path: Path) -> None:
    """Write `config` as TOML."""
    path.write_text(tomli_w.dumps(to_dict(config)))


def read_toml(path: Path) -> TrainConfig:
    """The settings of a run on games or robots."""
    return read_settings(path, TrainConfig)


def read_settings(path: Path, cls: type[T]) -> T:
    """Read what `write_toml` wrote of a `cls`.

    Raises:
        UserError: unreadable, or not the settings of a run.
    """
    if not path.is_file():
        raise UserError(f"{path} not found: is {path.parent} a run directory?")
    data = plain_toml(path)
    try:
        return from_dict(cls, data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def differences(old: Any, new: Any) -> dict[str, str]:
    """Setting -> `name was old, now new`, wherever two of a kind differ."""
    flat_old, flat_new = _flatten(to_dict(old)), _flatten(to_dict(new))
    return {
        name: f"{name} was {flat_old[name]}, now {flat_new[name]}"
        for name in flat_old
        if flat_old[name] != flat_new[name]
    }


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            out |= _flatten(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{name}: got {value!r}, wanted a table of settings")
        return from_dict(hint, value, prefix=name + ".")  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value in (None, "none") and type(None) in args:
            return None
        return _value(next(a for a in args if a is not type(None)), value, name)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{name}: got {value!r}, wanted one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        return _tuple(args, value, name)
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not hint:
        raise UserError(f"{name}: got {value!r}, wanted {hint.__name__}")
    return value


def _tuple(hints: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    """Of any length where `hints` ends in an ellipsis."""
    if not isinstance(value, list | tuple):
        raise UserError(f"{name}: got {value!r}, wanted a list")
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(value) != len(hints):
        raise UserError(f"{name}: got {value!r}, wanted a list of {len(hints)}")
    return tuple(_value(hint, item, name) for hint, item in zip(hints, value, strict=True))
