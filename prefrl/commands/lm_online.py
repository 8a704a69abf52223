"""`prefrl lm online`: reward model and policy in turn, with labels from the policy as it is.

    for each round
        1. the policy writes completions, which are put to raters
        2. a reward model is fitted, from the SFT model, to all answers so far
        3. PPO improves the policy on it, for its share of the updates

The loop of games and robots (Christiano et al. 2017; Bai et al. 2022, "iterated online mode"),
with rounds in the place of sessions. Trainer and raters meet in the store alone.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.commands.lm_policy import Diary, check_batch, conclude, draw
from prefrl.commands.lm_ppo import Judgement
from prefrl.commands.lm_raters import (
    AnnotatorConfig,
    Questions,
    ask_about,
    check_members,
    open_store,
    reference_texts,
)
from prefrl.commands.lm_source import (
    check_inputs,
    check_positions,
    fingerprint,
    limits_for,
    load_policy,
    task_or_data,
)
from prefrl.commands.lm_stage import default_directory, finished, read_settings
from prefrl.errors import UserError, refuse_idle
from prefrl.language.config import LanguageConfig
from prefrl.language.encoded import Limits
from prefrl.language.optimise import OptimConfig
from prefrl.language.reward import TextRewardConfig

if TYPE_CHECKING:
    from torch import nn

    from prefrl.feedback import FeedbackStore
    from prefrl.language.records import TextLabel
    from prefrl.language.reward import TextRewardModel
    from prefrl.language.tokenizer import Tokenizer
    from prefrl.language.trainer import LanguageTrainer
    from prefrl.loop.rundir import RunDir

log = logging.getLogger(__name__)

PANELS = {
    "Reward of completions": {"lm/score": "learned", "lm/gold": "gold (hidden)"},
    "KL to the SFT model, nats a completion": {"lm/kl": "k1", "lm/kl_k3": "k3"},
    "Length": {"lm/length": "tokens"},
    "Labels": {"feedback/labels": "answered"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineConfig:
    """Settings of one run."""

    model: str = ""
    """The SFT model, where policy and reward models start: a run of `prefrl lm sft`, or a
    checkpoint by path or name."""
    task: str = ""
    """A task that needs no download: reviews, docstrings."""
    data: Path | None = None
    """Prompts of your own: JSON lines or Parquet with a column prompt. People answer, or a model by
    `prefrl lm judge --store RUN` (annotator.rater human)."""
    rounds: int = 4
    """How often the policy as it is is asked about; the first round is about the SFT model."""
    annotator: AnnotatorConfig = field(default_factory=lambda: AnnotatorConfig(labels=500))
    """Who answers; `labels` are those of all rounds together."""
    reward: TextRewardConfig = field(default_factory=TextRewardConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2e-3, batch=16, epochs=8))
    """Of each round's reward model."""
    reference_samples: int = 512
    """Completions of the SFT model on which each reward model has mean 0 and deviation 1."""
    batch: int = 128
    """Completions of an update, a multiple of lm.samples."""
    seed: int = 0
    """Of prompts, sampling, minibatches and the annotator."""
    threads: int = 0
    """Threads for torch on the CPU; 0: all cores."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    checkpoint_every: int = 50
    """Updates."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    limits: Limits = field(default_factory=Limits)
    """Of data; a task has its own."""
    lm: LanguageConfig = field(default_factory=LanguageConfig)

    def __post_init__(self) -> None:
        for name in ("rounds", "batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        if self.reference_samples < 2:
            raise UserError(f"reference_samples: got {self.reference_samples}, wanted 2 or more")
        if self.rounds > min(self.lm.updates, self.annotator.labels):
            raise UserError(
                f"rounds: got {self.rounds}, wanted at most one for each of the {self.lm.updates} "
                f"updates and {self.annotator.labels} labels"
            )
        check_batch(self.batch, self.lm)
        check_members(self.reward.members, self.labels(0))
        if not self.reward.normalise:
            default = next(f.default for f in fields(self) if f.name == "reference_samples")
            beside = "reward.normalise off"
            refuse_idle("reference_samples", self.reference_samples, default, beside=beside)
        if self.lm.shard:
            raise UserError("lm.shard: got it, but this stage is of one process")
        if self.lm.pretraining:
            raise UserError("lm.pretraining: got a weight, which `prefrl lm ppo` alone has")

    def begins(self, round: int) -> int:
        """The update before which a round begins."""
        return round * self.lm.updates // self.rounds

    def labels(self, round: int) -> int:
        """How many are asked for in a round."""
        total = self.annotator.labels
        return (round + 1) * total // self.rounds - round * total // self.rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineArgs(OnlineConfig):
    """Fit reward models and optimise them in turn, on labels about what the policy now says."""

    out: Path | None = None
    """Run directory; the same command with the same one goes on. Default: runs/STAGE-NAME-TIME."""


def main(args: list[str], *, prog: str) -> None:
    """Read and check everything, then learn."""
    config, out = read_settings(OnlineConfig, OnlineArgs, args, prog=prog)
    if not config.model:
        raise UserError(f"wanted `{prog} --model RUN --task NAME`, or --data FILE")
    online(config, out or default_directory("online", config.task or str(config.data)))


def online(config: OnlineConfig, out: Path) -> None:
    """One run, begun or resumed."""
    from prefrl.language.models import check_room
    from prefrl.loop.hardware import set_threads
    from prefrl.loop.rundir import RunDir, RunLock

    task = task_or_data(config.task, config.data)
    config = replace(config, lm=config.lm.of_task(task))
    config.annotator.check_task(task)
    limits = limits_for(config.limits, task, written=True)
    set_threads(config.threads)
    model, tokenizer = load_policy(config.model, device=config.device, offline=config.offline)
    check_positions(model, limits)
    if task is not None:
        about = Questions.of_task(task)
    else:
        assert config.data is not None
        if config.lm.cap > limits.max_completion:
            raise UserError(
                f"lm.max_tokens: got {config.lm.cap}, wanted at most {limits.max_completion}, "
                "limits.max_completion"
            )
        read = Questions.read(config.data, tokenizer, config.limits)
        about = replace(read, max_completion=config.lm.cap)
    check_room(model, tokenizer, about.prompts, cap=config.lm.cap, name="model")
    inputs = {"model": fingerprint(model), "prompts": fingerprint(about.prompts)}
    run = RunDir.prepare(out, config)
    if finished(run):
        return
    with RunLock(run):
        check_inputs(run, inputs)
        with open_store(run, about.name, seed=config.seed) as store:
            Online(config, run, about, model, tokenizer, store, limits).learn()


class Online:
    """One run: the SFT model, the store, and the rounds.

    Args:
        model: the SFT model; a copy of it is kept, and it becomes the policy.
        store: owned by the caller.
        limits: of the texts.
    """

    def __init__(
        self,
        config: OnlineConfig,
        run: RunDir,
        about: Questions,
        model: nn.Module,
        tokenizer: Tokenizer,
        store: FeedbackStore,
        limits: Limits,
    ) -> None:
        self.config, self.run, self.about, self.store = config, run, about, store
        self.tokenizer, self.limits = tokenizer, limits
        self.sft, self.policy = copy.deepcopy(model), model

    def learn(self) -> None:
        """All rounds, or until a signal."""
        from prefrl.loop.train import Stop

        total = self.config.lm.updates
        with Stop().on_signals() as stop:
            trainer = self._trainer(self._reward_model(0, self.policy))
            if trainer.resume(self.run.checkpoints):
                log.info("going on from update %d of %d", trainer.step, total)
            diary, judge, of = Diary(self.run, trainer, total=total), None, -1
            try:
                while trainer.step < total and not stop.asked:
                    if judge is None or self._round(trainer.step) != of:
                        of = self._round(trainer.step)
                        trainer.save(self.run.checkpoints)  # people may take their time
                        judge = self._judge(self._reward_model(of, trainer.policy.model))
                    prompts = draw(self.about.prompts, self.config, step=trainer.step)
                    batch = trainer.collect(prompts)
                    figures = trainer.update(batch, judge.scores(batch)) | judge.hidden(batch)
                    figures |= {"lm/round": of, "feedback/labels": self.store.counts()["labels"]}
                    diary.write(figures, tokens=int(batch.rollout.mask.sum()))
                    if trainer.step % self.config.checkpoint_every == 0:
                        trainer.save(self.run.checkpoints)
            finally:
                diary.close()
            conclude(self.run, trainer, total=total, stop=stop, picture=self._draw)

    # ---- rounds -----------------------------------------------------------------------

    def _round(self, step: int) -> int:
        """Which one the update after `step` belongs to."""
        begun = [r for r in range(self.config.rounds) if self.config.begins(r) <= step]
        return begun[-1]

    def _reward_model(self, round: int, policy: nn.Module) -> TextRewardModel:
        """Of a round: read, or asked about, fitted and kept.

        Raises:
            UserError: people have not answered yet.
        """
        from prefrl.language.reward import load_text_reward

        path = self.run.path / f"reward-{round}"
        if not path.is_dir():
            self._ask(round, policy)
            self._fit(path, self._labels(round))
        device = next(self.sft.parameters()).device
        return load_text_reward(path).to(device)

    def _ask(self, round: int, policy: nn.Module) -> None:
        """Put what the policy says to raters."""
        ask_about(
            self.store,
            self.config.annotator,
            self.about,
            policy,
            self.tokenizer,
            count=self.config.labels(round),
            step=self.config.begins(round),
            seed=(self.config.seed, round),
        )

    def _labels(self, round: int) -> list[TextLabel]:
        """All answers so far, once those of the round are there."""
        from prefrl.language.forms import labels_from

        found, asked = labels_from(self.store), self.store.asked_here()
        if asked:
            raise UserError(
                f"round {round + 1} of {self.config.rounds}: {asked} answers are missing: "
                f"`prefrl rate {self.run.path}` asks for them; then give the same command with the "
                "same --out again"
            )
        if not found:
            raise UserError(
                f"{self.run.path}: all is answered, and no answer prefers anything: texts were "
                "left as they were, or could not be compared"
            )
        return found

    def _fit(self, path: Path, labels: Sequence[TextLabel]) -> None:
        """A reward model from the SFT model; whole or absent."""
        import shutil

        from prefrl.language.reward import TextRewardModel, encode_labels, fit_reward

        log.info("%s: fitting to %d answers", path.name, len(labels))
        made = TextRewardModel.from_sft(self.sft, self.config.reward, seed=self.config.optim.seed)
        fit_reward(
            made, encode_labels(labels, self.tokenizer, limits=self.limits), self.config.optim
        )
        if self.config.reward.normalise:
            about: Any = (self.config, self.sft, self.tokenizer, self.about.prompts)
            made.normalise_on(reference_texts(*about, cap=self.about.max_completion))
        temporary = path.with_name(f".{path.name}.part")
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
        made.save(temporary, self.tokenizer)
        temporary.rename(path)

    # ---- parts ------------------------------------------------------------------------

    def _judge(self, learned: TextRewardModel) -> Judgement:
        return Judgement(learned=learned, tokenizer=None, gold=self.about.gold)

    def _trainer(self, learned: TextRewardModel) -> LanguageTrainer:
        from prefrl.language.trainer import LanguageTrainer

        config = self.config.lm
        trainer = LanguageTrainer(
            self.policy,
            self.tokenizer,
            config,
            seed=self.config.seed,
            critic=self._judge(learned).critic() if config.critic == "separate" else None,
        )
        trainer.check_room(self.about.prompts)  # the critic too
        return trainer

    def _draw(self) -> None:
        from prefrl.commands.lm_pictures import draw_stage

        title = f"Online · {self.about.name} · {self.config.rounds} rounds"
        title += f" · beta {self.config.lm.beta:g} · seed {self.config.seed}"
        log.info("curves: %s", draw_stage(self.run, PANELS, title=title))
