"""The preference loop (Christiano et al. 2017, section 2.2).

    repeat
        1. the policy acts; segments of what it did are recorded
        2. segments are put to a rater, in pairs or more at a time
        3. the reward model is fitted to the answers
        4. the rollout is rewarded by the model
        5. PPO improves the policy on it

The score is hidden in all five: oracles read it in step 2, metrics beside step 5.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from prefrl.errors import program
from prefrl.loop.metrics import MetricsLog, ProgressLine
from prefrl.loop.queries import choose_queries
from prefrl.loop.state import Run
from prefrl.ppo import add_rewards

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.5  # between looks for people's answers
HOLDOUT_LABELS = 100  # newest labels on which the hold-out accuracy is measured


def learn(run: Run, *, stop: Stop | None = None) -> None:
    """Go on until `config.steps`, or until `stop` is asked for; checkpoints on the way."""
    config, stop = run.config, stop or Stop()
    metrics = MetricsLog(run.directory, step=run.step)
    progress = ProgressLine(config.steps, step=run.step)
    clock = Clock()
    try:
        while run.step < config.steps and not stop.asked:
            restarts = run.restarts
            experience = run.collector.collect(run.rollout_steps)
            run.step += experience.true_reward.size
            run.episodes.add(experience.episode_returns, experience.episode_lengths)
            clock.lap("act")

            run.recorder.add(experience, policy_step=run.step)
            clock.lap("record")

            ask(run)
            wait_for_people(run, stop, progress)
            figures = fit(run, progress)
            clock.lap("feedback")

            rollout, rewards = add_rewards(experience, run.terms)
            clock.lap("reward")

            if run.learns:
                figures |= run.ppo.update(rollout, progress=run.step / config.steps)
            run.policy.observe(experience.observation)
            clock.lap("learn")

            figures |= rewards | run.episodes.figures() | run.asking.figures(run.step)
            figures |= reward_fidelity(run, experience.true_reward, rollout.reward.cpu().numpy())
            figures |= clock.figures(experience.true_reward.size)
            metrics.write(run.step, figures)
            progress.update(run.step, figures | run.latest)
            if run.checkpoint_due():
                run.checkpoint(restart=True)
            elif restarts:  # after the first fit once more, into different phases of episodes
                run.restart()
        run.checkpoint(restart=False)
    finally:
        progress.close()
        metrics.close()


def ask(run: Run) -> None:
    """Step 2, when the schedule says so."""
    asking, step = run.asking, run.step
    asking.tell_people(step)
    asking.hear_people(step)
    if not asking.session_due(step):
        return
    asked = choose_queries(
        list(run.recorder.pool),
        asking.queries_wanted(step),
        config=run.config.queries,
        model=run.model,
        policy_step=step,
        generator=run.query_generator,
        covered=asking.covered(),
    )
    asking.put(asked, step)


def wait_for_people(run: Run, stop: Stop, progress: ProgressLine) -> None:
    """Until they have answered, where the run may not go on without; the policy stands still."""
    asking, step = run.asking, run.step
    asking.take_in_labels(step)  # of a synthetic rater, who has answered by now
    asking.hear_people(step)
    while asking.waits(step) and not stop.asked:
        missing = asking.labels_due(step) - asking.labels_used
        progress.wait(f"waiting for {missing} answers: {program()} rate {run.directory.path}")
        asking.tell_people(step)
        time.sleep(WAIT_SECONDS)
        asking.hear_people(step)


def fit(run: Run, progress: ProgressLine) -> dict[str, float]:
    """Step 3, when there are new labels."""
    asking = run.asking
    if not asking.fit_due(run.step):
        return {}
    steps = asking.fit_steps()
    if not steps:  # too few labels for one, which wait for others
        return {}
    progress.wait(f"fitting the reward model to {asking.labels_used:,} labels")
    figures = run.fitter.fit(steps)
    asking.unfitted = 0
    figures |= run.fitter.holdout(HOLDOUT_LABELS)
    run.latest |= {k: v for k, v in figures.items() if k == "reward/holdout_accuracy"}
    return figures


def reward_fidelity(run: Run, true_reward: np.ndarray, learned: np.ndarray) -> dict[str, float]:
    """Correlation of learned with true return over the segments of a rollout: [B, T] both."""
    length = run.segment_steps
    if run.config.reward == "true" or true_reward.shape[1] < length:
        return {}
    T = true_reward.shape[1] // length * length
    true, model = (x[:, :T].reshape(-1, length).sum(1) for x in (true_reward, learned))
    if true.std() < 1e-12 or model.std() < 1e-12:
        return {}
    return {"reward/correlation_with_true": float(np.corrcoef(true, model)[0, 1])}


class Stop:
    """Set by the first SIGINT, SIGTERM or SIGUSR1; what is under way then saves and returns."""

    _signal: int | None = None

    def __init__(self) -> None:
        self.asked = False

    def complete(self) -> None:
        """Nothing is left to do, so nobody needs to know of a signal."""
        self._signal = None

    @contextmanager
    def on_signals(self) -> Iterator[Stop]:
        """Listen while inside; a second SIGINT interrupts at once.

        Raises:
            KeyboardInterrupt, SystemExit: at the end, when all is saved: whoever waits for the
                program learns that it did not come to its own end. Other threads than the main one
                cannot listen.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {number: signal.signal(number, self._ask) for number in watched}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal is not None:
            raise SystemExit(128 + self._signal)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked, self._signal = True, number
        log.warning("stopping: saving a checkpoint first (Ctrl-C stops at once)")


class Clock:
    """Seconds spent in each part of the loop."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._parts: dict[str, float] = {}

    def lap(self, part: str) -> None:
        """The time since the last lap belongs to `part`."""
        now = time.perf_counter()
        self._parts[part] = self._parts.get(part, 0.0) + now - self._last
        self._last = now

    def figures(self, steps: int) -> dict[str, float]:
        """`time/...` of the rollout that ends here."""
        self.lap("other")
        parts: dict[str, Any] = {f"time/{k}": v for k, v in self._parts.items()}
        total = sum(self._parts.values())
        self._parts = {}
        return {**parts, "time/steps_per_second": steps / total if total else math.nan}
