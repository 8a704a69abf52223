"""`prefrl lm ppo`: optimise a learned reward by PPO, RLOO or GRPO, near the SFT model."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.commands.lm_policy import Diary, check_batch, conclude, draw
from prefrl.commands.lm_source import (
    check_inputs,
    fingerprint,
    load_policy,
    model_in,
    task_or_data,
)
from prefrl.commands.lm_stage import default_directory, finished, read_settings
from prefrl.errors import UserError
from prefrl.language.config import LanguageConfig

if TYPE_CHECKING:
    import torch

    from prefrl.language.models import ScalarModel
    from prefrl.language.reward import TextRewardModel
    from prefrl.language.tasks import Gold, TextTask
    from prefrl.language.terms import TextExperience
    from prefrl.language.tokenizer import Tokenizer
    from prefrl.language.trainer import LanguageTrainer
    from prefrl.loop.rundir import RunDir

log = logging.getLogger(__name__)

GOLD = "gold"
PANELS = {
    "Reward of completions": {"lm/score": "learned", "lm/gold": "gold (hidden)"},
    "KL to the SFT model, nats a completion": {"lm/kl": "k1", "lm/kl_k3": "k3"},
    "Length": {"lm/length": "tokens"},
    "Share": {"lm/ended": "ended by themselves", "ppo/clip_fraction": "ratios clipped"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LmPPOConfig:
    """Settings of one run."""

    model: str = ""
    """The SFT model, where the policy starts and its reference stays: a run of `prefrl lm sft`,
    or a checkpoint by path or name."""
    reward: str = ""
    """The run of `prefrl lm reward`, a classifier of one label by path or name, or "gold": the
    task's hidden reward itself, as the baseline."""
    task: str = ""
    """A task that needs no download: reviews, docstrings."""
    data: Path | None = None
    """Prompts: JSON lines or Parquet with a column prompt."""
    pretraining_data: Path | None = None
    """Texts of the pretraining term: JSON lines or Parquet with prompt and completion; a task has
    its demonstrations."""
    batch: int = 128
    """Completions of an update, a multiple of lm.samples."""
    seed: int = 0
    """Of prompts, sampling and minibatches."""
    threads: int = 0
    """Threads for torch on the CPU; 0: all cores."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one. Of several processes each takes
    its own."""
    checkpoint_every: int = 50
    """Updates."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    lm: LanguageConfig = field(default_factory=LanguageConfig)

    def __post_init__(self) -> None:
        for name in ("batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        if self.pretraining_data is not None and not self.lm.pretraining:
            raise UserError("pretraining_data: got texts, with lm.pretraining 0; wanted a weight")
        check_batch(self.batch, self.lm)


@dataclass(frozen=True, slots=True, kw_only=True)
class LmPPOArgs(LmPPOConfig):
    """Optimise a learned reward, near the SFT model.

    Several devices: `torchrun --nproc-per-node N -m prefrl.cli lm ppo ...`.
    """

    out: Path | None = None
    """Run directory; the same command with the same one goes on. Default: runs/STAGE-NAME-TIME."""


def main(args: list[str], *, prog: str) -> None:
    """Read and check everything, then learn."""
    config, out = read_settings(LmPPOConfig, LmPPOArgs, args, prog=prog)
    if not config.model or not config.reward:
        raise UserError(f"wanted `{prog} --model RUN --reward RUN`, a policy and a reward model")
    ppo(config, out)


def ppo(config: LmPPOConfig, out: Path | None) -> None:
    """One run, begun or resumed, on one process or several."""
    from prefrl.language.processes import join
    from prefrl.loop.hardware import choose_device, set_threads
    from prefrl.loop.rundir import RunDir

    set_threads(config.threads)
    processes, device = join(choose_device(config.device))
    task = task_or_data(config.task, config.data)
    config = replace(config, lm=config.lm.of_task(task))
    model, tokenizer = load_policy(config.model, device="cpu", offline=config.offline)
    judge = Judgement.of(config, task, tokenizer)
    pretraining = _pretraining(config, task, tokenizer)
    inputs = {"model": fingerprint(model), "reward": fingerprint(judge.learned)}  # before sharding
    if not config.lm.shard:  # else a device may have no room for all of it
        model = model.to(device)
    trainer = _trainer(config, model, tokenizer, judge, pretraining, processes)
    judge.settle(device, shard=config.lm.shard)
    prompts = _prompts(config, task, tokenizer)
    inputs |= {"prompts": fingerprint(prompts), "pretraining": fingerprint(pretraining)}
    judge.check_room(tokenizer, prompts, cap=config.lm.cap)
    trainer.check_room(prompts)
    if out is None:
        how = "ppo" if config.lm.advantage == "critic" else config.lm.advantage
        now = processes.largest(int(time.time()), device)  # one name for all
        out = default_directory(how, config.task or str(config.data), now=now)
    if processes.rank == 0:
        RunDir.prepare(out, config)
    processes.wait()
    run = RunDir.existing(out)
    if not finished(run):
        _run(config, run, trainer, prompts, judge, inputs)


def _run(
    config: LmPPOConfig,
    run: RunDir,
    trainer: LanguageTrainer,
    prompts: list[str],
    judge: Judgement,
    inputs: dict[str, str],
) -> None:
    """Updates to the end, or until a signal; the first process alone writes."""
    from contextlib import nullcontext

    from prefrl.loop.rundir import RunLock
    from prefrl.loop.train import Stop

    writes = trainer.processes.rank == 0
    with RunLock(run) if writes else nullcontext(), Stop().on_signals() as stop:
        if writes:
            check_inputs(run, inputs)
        if trainer.resume(run.checkpoints):
            log.info("going on from update %d of %d", trainer.step, config.lm.updates)
        diary = Diary(run, trainer, total=config.lm.updates) if writes else None
        try:
            while trainer.step < config.lm.updates and not _asked(trainer, stop):
                batch = trainer.collect(draw(prompts, config, step=trainer.step))
                figures = trainer.update(batch, judge.scores(batch))
                if diary is not None:
                    diary.write(figures | judge.hidden(batch), tokens=int(batch.rollout.mask.sum()))
                if trainer.step % config.checkpoint_every == 0:
                    trainer.save(run.checkpoints)
        finally:
            if diary is not None:
                diary.close()
        total, picture = config.lm.updates, lambda: _draw(config, run)
        conclude(run, trainer, total=total, stop=stop, picture=picture)


def _asked(trainer: LanguageTrainer, stop: Any) -> bool:
    """Has any process been told to stop? Then all do, at the same update."""
    return bool(trainer.processes.largest(int(stop.asked), trainer.policy.device))


def _draw(config: LmPPOConfig, run: RunDir) -> None:
    from prefrl.commands.lm_pictures import draw_stage

    how = {"critic": "PPO", "rloo": "RLOO", "grpo": "GRPO"}[config.lm.advantage]
    title = f"{how} · {config.task or config.data} · beta {config.lm.beta:g} · seed {config.seed}"
    log.info("curves: %s", draw_stage(run, PANELS, title=title))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Where rewards come from: a reward model, or a task's gold reward as the baseline."""

    learned: TextRewardModel | None
    tokenizer: Tokenizer | None
    """The reward model's, where it is another than the policy's."""
    gold: Gold | None
    """A task's, for metrics, and as the baseline."""

    @classmethod
    def of(cls, config: LmPPOConfig, task: TextTask | None, tokenizer: Tokenizer) -> Judgement:
        """What `config` names.

        Raises:
            UserError: gold without a task, or no reward model there.
        """
        from prefrl.language.reward import load_text_reward
        from prefrl.language.tokenizer import load_tokenizer

        if config.reward == GOLD:
            if task is None:
                raise UserError("reward: got 'gold' without --task; only tasks have a gold reward")
            return cls(learned=None, tokenizer=None, gold=task.gold)
        where = model_in(config.reward)
        reads = load_tokenizer(where, offline=config.offline)
        same = reads.backend.get_vocab() == tokenizer.backend.get_vocab() and (
            reads.eos,
            reads.bos,
            reads.pad,
        ) == (tokenizer.eos, tokenizer.bos, tokenizer.pad)
        return cls(
            learned=load_text_reward(where, offline=config.offline),
            tokenizer=None if same else reads,
            gold=None if task is None else task.gold,
        )

    def check_room(self, tokenizer: Tokenizer, prompts: list[str], *, cap: int) -> None:
        """Raises UserError where the reward model has not the positions; `tokenizer`: the policy's.

        Counted in its own tokens, so that a completion in other ones may still have more.
        """
        if self.learned is not None:
            self.learned.check_room(self.tokenizer or tokenizer, prompts, cap=cap)

    def settle(self, device: torch.device, *, shard: bool) -> None:
        """Onto the device, whole or in parts; the critic has been copied."""
        from prefrl.language.processes import shard as in_parts

        if self.learned is None:
            return
        if shard:
            for member in self.learned.members:
                in_parts(member)
        self.learned.to(device)

    def scores(self, batch: TextExperience) -> Any:
        """[B] what the policy learns from."""
        from prefrl.language.records import Completion
        from prefrl.language.reward import score_texts

        if self.learned is None:
            assert self.gold is not None
            return self.worth(batch, self.gold)
        if self.tokenizer is None:
            return self.learned.score(batch.rollout.inputs)  # type: ignore[arg-type]
        ended = batch.ended.tolist()
        completions = [
            Completion(text=text, ended=whole)
            for text, whole in zip(batch.completions, ended, strict=True)
        ]
        texts = list(zip(batch.prompts, completions, strict=True))
        return score_texts(self.learned, self.tokenizer, texts)

    def worth(self, batch: TextExperience, gold: Gold) -> list[float]:
        """[B] what completions are worth."""
        rows = zip(batch.prompts, batch.completions, batch.ended.tolist(), strict=True)
        return [gold(*row) for row in rows]

    def hidden(self, batch: TextExperience) -> dict[str, float]:
        """The gold reward beside the learned one, for metrics only."""
        if self.gold is None:
            return {}
        gold = self.worth(batch, self.gold)
        return {"lm/gold": sum(gold) / len(gold)}

    def critic(self) -> ScalarModel | None:
        """The first member as a critic, on the scale of the learned reward."""
        import torch

        if self.learned is None or self.tokenizer is not None:
            return None
        critic: Any = copy.deepcopy(self.learned.members[0])
        mean, std = self.learned.mean[0], self.learned.std[0]
        with torch.no_grad():
            critic.head.weight /= std
            critic.head.bias.sub_(mean).div_(std)
        return critic


def _trainer(
    config: LmPPOConfig,
    model: Any,
    tokenizer: Tokenizer,
    judge: Judgement,
    pretraining: list[tuple[str, str]],
    processes: Any,
) -> LanguageTrainer:
    from prefrl.language.trainer import LanguageTrainer

    return LanguageTrainer(
        model,
        tokenizer,
        config.lm,
        seed=config.seed,
        critic=judge.critic() if config.lm.critic == "separate" else None,
        pretraining=pretraining,
        processes=processes,
    )


def _prompts(config: LmPPOConfig, task: TextTask | None, tokenizer: Tokenizer) -> list[str]:
    from prefrl.language.data import chat_template, read_prompts

    if task is not None:
        return list(task.prompts)
    assert config.data is not None
    return read_prompts(config.data, template=chat_template(tokenizer))


def _pretraining(
    config: LmPPOConfig, task: TextTask | None, tokenizer: Tokenizer
) -> list[tuple[str, str]]:
    """Prompts and completions."""
    from prefrl.language.data import chat_template, read_demonstrations

    if not config.lm.pretraining:
        return []
    if config.pretraining_data is not None:
        template = chat_template(tokenizer)
        demonstrations = read_demonstrations(config.pretraining_data, template=template)
    elif task is not None:
        demonstrations = list(task.demonstrations(2000, config.seed))
    else:
        raise UserError("lm.pretraining needs texts: give --pretraining-data FILE")
    return [(d.prompt, d.completion) for d in demonstrations]
