"""What the stages that optimise a language policy share: prompts, figures, and the end of a run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from prefrl.commands.lm_source import MODEL
from prefrl.errors import UserError
from prefrl.language.config import LanguageConfig

if TYPE_CHECKING:
    from prefrl.language.trainer import LanguageTrainer
    from prefrl.loop.rundir import RunDir
    from prefrl.loop.train import Stop

log = logging.getLogger(__name__)


def check_batch(batch: int, lm: LanguageConfig) -> None:
    """Raises UserError where completions do not go into minibatches or groups."""
    if lm.ppo.minibatches > batch:
        raise UserError(
            f"lm.ppo.minibatches: got {lm.ppo.minibatches}, wanted at most {batch}, the batch"
        )
    if batch % lm.samples:
        raise UserError(
            f"batch: got {batch} completions, wanted a multiple of lm.samples ({lm.samples})"
        )


class Drawing(Protocol):
    """What of the settings decides which prompts an update has."""

    @property
    def batch(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def lm(self) -> LanguageConfig: ...


def draw(prompts: Sequence[str], config: Drawing, *, step: int) -> list[str]:
    """The prompts of an update: the same for the same seed and step, resumed or not."""
    import numpy as np

    count = config.batch // config.lm.samples
    rng = np.random.default_rng([config.seed, step])
    chosen = rng.choice(len(prompts), count, replace=count > len(prompts))
    return [prompts[i] for i in chosen]


class Diary:
    """Metrics and the progress line."""

    def __init__(self, run: RunDir, trainer: LanguageTrainer, *, total: int) -> None:
        from prefrl.loop.metrics import MetricsLog, ProgressLine
        from prefrl.loop.train import Clock

        self.trainer = trainer
        self.metrics = MetricsLog(run, step=trainer.step)
        self.progress = ProgressLine(total, step=trainer.step)
        self.clock = Clock()

    def write(self, figures: dict[str, float], *, tokens: int) -> None:
        """Figures of the update just done."""
        figures = figures | self.clock.figures(tokens)
        self.metrics.write(self.trainer.step, figures)
        self.progress.update(self.trainer.step, figures)

    def close(self) -> None:
        """Flush both."""
        self.progress.close()
        self.metrics.close()


def conclude(
    run: RunDir, trainer: LanguageTrainer, *, total: int, stop: Stop, picture: Callable[[], None]
) -> None:
    """The checkpoint and the picture, and once the run is complete the model."""
    trainer.save(run.checkpoints)
    writes, complete = trainer.processes.rank == 0, trainer.step >= total
    if writes:
        picture()
    if complete:
        temporary = run.path / ".model.part"
        if writes and temporary.exists():
            shutil.rmtree(temporary)
        trainer.export(temporary)
        if writes:
            temporary.rename(run.path / MODEL)  # whole or absent
            log.info("%s", run.path / MODEL)
        stop.complete()
    elif writes:
        log.info(
            "stopped at update %d: the same command with --out %s goes on", trainer.step, run.path
        )
