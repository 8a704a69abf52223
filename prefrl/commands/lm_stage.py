"""What the stages of a language model share: a run directory, the loop of a fit."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from prefrl.commands.lm_source import MODEL, Inputs, check_inputs, read_inputs
from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from prefrl.commands.lm_pictures import Panel
    from prefrl.language.optimise import Fit, Objective, OptimConfig
    from prefrl.language.records import TextLabel, Thumb
    from prefrl.loop.rundir import RunDir

log = logging.getLogger(__name__)

STATE = "state.json"  # within a checkpoint
Figures = dict[str, float]
C = TypeVar("C")


def read_settings(
    settings: type[C], arguments: type[C], args: Sequence[str], *, prog: str
) -> tuple[C, Path | None]:
    """Settings of a stage, and its run directory if one was named.

    Args:
        settings: what `config.toml` keeps.
        arguments: the same and `out`, all with defaults: what can be typed.
    """
    given: Any = parse(arguments, args, prog=prog, default=arguments())
    names = [field.name for field in fields(settings)]  # type: ignore[arg-type]
    return settings(**{name: getattr(given, name) for name in names}), given.out


def held_out_split(
    about: Sequence[Hashable], share: float, *, seed: int
) -> tuple[list[int], list[int]]:
    """Indices to fit on and to hold out: a share of them, at least one where there are two.

    Args:
        about: of each example what it is about; examples about the same thing are fitted on, or
            held out, together.
        share: 0 to below 1.
    """
    import numpy as np

    groups: dict[Hashable, list[int]] = {}
    for i, thing in enumerate(about):
        groups.setdefault(thing, []).append(i)
    parts = list(groups.values())
    wanted = min(max(round(share * len(about)), 1), len(about) - 1) if share > 0 else 0
    held_out: list[int] = []
    for part in np.random.default_rng(seed).permutation(len(parts)):
        if len(held_out) + len(parts[part]) <= wanted:
            held_out += parts[part]
    if wanted and not held_out and len(parts) > 1:  # each is more than that
        held_out = min(parts, key=len)
    return sorted(set(range(len(about))) - set(held_out)), sorted(held_out)


def subject(example: TextLabel | Thumb) -> tuple[str, ...]:
    """What an answer is about: prompt and completions, in whatever order they were shown."""
    several = getattr(example, "completions", None) or (example.completion,)  # type: ignore[union-attr]
    return (example.prompt, *sorted(completion.text for completion in several))


def held_out_figures(asides: Sequence[Objective], config: OptimConfig) -> dict[str, float]:
    """`fit/held_out_...` of what was put aside, the mean over models; none where nothing was."""
    from prefrl.language.optimise import measure

    each = [measure(aside, precision=config.precision) for aside in asides if len(aside)]
    names = each[0] if each else {}
    return {f"fit/held_out_{k}": sum(e[k] for e in each) / len(each) for k in names}


def adapters_on(policy: Any, config: OptimConfig) -> Any:
    """The policy as the fit trains it: with adapters, where the settings say so."""
    from prefrl.language.lora import adapted

    rank, alpha = config.lora_rank, config.lora_alpha
    return adapted(policy, rank=rank, alpha=alpha, seed=config.seed)


@dataclass
class Stage:
    """A fit in a run directory: progress, metrics, checkpoints, and the finished model.

    Args:
        fits: one, or one for each member of an ensemble, taken one after the other.
        held_out: figures on what is not fitted on, measured ten times and at the end.
        picture: draws `report/learning.png`.
        inputs: what the fit begins with, as `check_inputs` keeps it.
    """

    run: RunDir
    fits: Sequence[Fit]
    held_out: Callable[[], Figures]
    finish: Callable[[Path], None]
    checkpoint_every: int
    picture: Callable[[RunDir], object]
    inputs: Inputs

    @property
    def step(self) -> int:
        """Of all fits together."""
        return sum(fit.step for fit in self.fits)

    @property
    def steps(self) -> int:
        return sum(fit.steps for fit in self.fits)

    def execute(self) -> None:
        """Begin or go on, to the end; a signal such as Ctrl-C saves and leaves."""
        from prefrl.loop.metrics import MetricsLog, ProgressLine
        from prefrl.loop.rundir import RunLock
        from prefrl.loop.train import Stop

        with RunLock(self.run), Stop().on_signals() as stop:
            check_inputs(self.run, self.inputs)
            self._resume()
            metrics = MetricsLog(self.run, step=self.step)
            progress = ProgressLine(self.steps, step=self.step)
            try:
                self._loop(metrics, progress, stop)
            finally:
                progress.close()
                metrics.close()
            self._save()
            self.picture(self.run)
            if self.step < self.steps:
                where = self.run.path
                log.info(
                    "stopped at step %d: the same command with --out %s goes on", self.step, where
                )
            else:
                self._publish()
                stop.complete()

    def _loop(self, metrics: Any, progress: Any, stop: Any) -> None:
        every = max(self.steps // 10, 1)
        began, first = time.monotonic(), self.step
        if self.step == 0:
            metrics.write(0, self.held_out())
        for fit in self.fits:
            while not fit.done and not stop.asked:
                figures = {f"fit/{name}": value for name, value in fit.advance().items()}
                speed = (self.step - first) / max(time.monotonic() - began, 1e-9)
                figures["time/steps_per_second"] = speed
                if self.step % every == 0 or self.step == self.steps:
                    figures |= self.held_out()
                metrics.write(self.step, figures)
                progress.update(self.step, figures)
                if self.step % self.checkpoint_every == 0:
                    self._save()

    def _save(self) -> None:
        from prefrl.loop.checkpoint import write_checkpoint

        write_checkpoint(self.run.checkpoints, self.step, self._fill)

    def _fill(self, path: Path) -> None:
        from safetensors.torch import save_file

        from prefrl.loop.checkpoint import optimiser_tensors

        for e, fit in enumerate(self.fits):
            # tied weights are stored twice: safetensors refuses views of each other
            state = fit.objective.model.state_dict()
            weights = {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}
            optimiser = optimiser_tensors(fit.optimiser.state_dict())
            save_file(weights, path / f"model-{e}.safetensors")
            save_file({k: v.cpu().contiguous() for k, v in optimiser.items()},
                      path / f"optimiser-{e}.safetensors")  # fmt: skip
        (path / STATE).write_text(json.dumps({"steps": [fit.step for fit in self.fits]}))

    def _resume(self) -> None:
        from safetensors.torch import load_file

        from prefrl.loop.checkpoint import load_optimiser, newest_checkpoint

        path = newest_checkpoint(self.run.checkpoints)
        if path is None:
            return
        state = json.loads((path / STATE).read_text())
        for e, (fit, step) in enumerate(zip(self.fits, state["steps"], strict=True)):
            weights: dict[str, Tensor] = load_file(path / f"model-{e}.safetensors")
            fit.objective.model.load_state_dict(weights)
            load_optimiser(fit.optimiser, load_file(path / f"optimiser-{e}.safetensors"))
            fit.step = step
        log.info("going on from step %d of %d", self.step, self.steps)

    def _publish(self) -> None:
        """The finished model, whole or absent."""
        import shutil

        final, temporary = self.run.path / MODEL, self.run.path / ".model.part"
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
        self.finish(temporary)
        temporary.rename(final)
        log.info("%s", final)


class FitSettings(Protocol):
    """What every stage that fits has among its settings."""

    @property
    def held_out(self) -> float: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def optim(self) -> OptimConfig: ...


def check_fit(config: FitSettings) -> None:
    """Raises UserError where a share is none or leaves nothing to fit on, or checkpoints never."""
    if not 0 <= config.held_out < 1:
        raise UserError(f"held_out: got {config.held_out}, wanted 0 to below 1")
    if config.checkpoint_every < 1:
        raise UserError(f"checkpoint_every: got {config.checkpoint_every}, wanted 1 or more")


def run_stage(
    config: FitSettings,
    out: Path,
    *,
    fits: Sequence[Fit],
    held_out: Callable[[], Figures],
    finish: Callable[[Path], None],
    panels: Mapping[str, Panel],
    title: str,
    inputs: Inputs,
) -> None:
    """Begin the run `out`, or go on with it.

    Args:
        panels: of the picture, as `draw_stage` reads them.
        title: above it, before the seed.
        inputs: fingerprints of the model and of all that is fitted on and held out; and of a
            store the `seq` up to where its answers were read.

    Raises:
        UserError: other inputs than the run began with.
    """
    from prefrl.commands.lm_pictures import draw_stage
    from prefrl.loop.rundir import RunDir

    run = RunDir.prepare(out, config)
    Stage(
        run=run,
        fits=fits,
        held_out=held_out,
        finish=finish,
        checkpoint_every=config.checkpoint_every,
        picture=lambda run: draw_stage(run, panels, title=f"{title} · seed {config.optim.seed}"),
        inputs=inputs,
    ).execute()


def finished_there(out: Path, config: object) -> bool:
    """Is there the finished run of these settings?

    Raises:
        UserError: `out` is a run with other settings.
    """
    from prefrl.loop.rundir import RunDir

    return (out / "config.toml").is_file() and finished(RunDir.prepare(out, config))


def began_with(out: Path, config: object) -> int | None:
    """Up to which `seq` the fit in `out` has read its store; None: it begins now, or reads none.

    Raises:
        UserError: `out` is a run with other settings.
    """
    from prefrl.loop.rundir import RunDir

    run = RunDir(path=out)
    if not run.config.is_file():
        return None
    RunDir.prepare(out, config)
    seq = read_inputs(run).get("seq")
    return None if seq is None else int(seq)


def default_directory(stage: str, name: str, *, now: float | None = None) -> Path:
    """runs/STAGE-NAME-TIME; `now` in seconds since 1970, None: what the clock says."""
    short = Path(name).stem or "data"
    moment = time.localtime(now)
    return Path("runs") / f"{stage}-{short}-{time.strftime('%Y%m%d-%H%M%S', moment)}"


def finished(run: RunDir) -> bool:
    """Is there a finished model already?"""
    if (run.path / MODEL).is_dir():
        log.info("%s is finished: nothing to do", run.path)
        return True
    return False
