"""PPO on a language model, one step at a time.

    trainer = LanguageTrainer(model, tokenizer, LanguageConfig(), seed=0)
    for prompts in batches:
        batch = trainer.collect(prompts)
        rewards = [len(set(text.split())) for text in batch.completions]  # any function
        figures = trainer.update(batch, rewards)

Rollout, advantages, loss and update are those of games and robots (`prefrl.ppo`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prefrl.errors import UserError
from prefrl.language import doctor
from prefrl.language.collect import rollout_of, speak
from prefrl.language.config import LanguageConfig
from prefrl.language.lora import adapted, merged
from prefrl.language.models import ScalarModel, check_room, save_model, whole_state
from prefrl.language.policy import (
    LanguagePolicy,
    Reference,
    Sampling,
    frozen_copy,
    in_chunks,
)
from prefrl.language.pretraining import PretrainingLoss, pretraining_texts
from prefrl.language.processes import gather_completions
from prefrl.language.terms import (
    Beta,
    KLPenalty,
    Score,
    TextExperience,
    checked_scores,
    kl_figures,
    speech_figures,
    texts_of,
    whitened,
)
from prefrl.language.tokenizer import Tokenizer
from prefrl.language.tokens import Completions, Prompts, check_padding
from prefrl.loop.checkpoint import (
    load_optimiser,
    newest_checkpoint,
    optimiser_tensors,
    write_checkpoint,
)
from prefrl.ppo import (
    ALONE,
    PPO,
    AdvantageOf,
    Auxiliary,
    Gradient,
    GroupAdvantage,
    Processes,
    add_rewards,
    part_of,
    whole,
)

log = logging.getLogger(__name__)


class LanguageTrainer:
    """Everything that lives as long as a run.

    Args:
        model: the SFT model, a causal language model of `load_model` or `new_model`; it is
            trained, and a frozen copy of it is the reference.
        critic: a reward model whose copy becomes the critic, where the critic is separate and
            there is one; None: a copy of `model` with a zero head.
        pretraining: texts for the pretraining term, plain or as (prompt, completion).
        seed: of sampling and minibatches.
        processes: those that compute together; each gets the same arguments.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        config: LanguageConfig,
        *,
        seed: int,
        critic: ScalarModel | None = None,
        pretraining: Sequence[str | tuple[str, str]] = (),
        processes: Processes = ALONE,
    ) -> None:
        if config.shard and processes.count == 1:
            raise UserError(
                "shard: got one process, wanted several: torchrun --nproc-per-node N -m prefrl.cli "
                "lm ppo ..."
            )
        self.tokenizer, self.config = tokenizer, config
        self.processes = processes = replace(processes, sharded=config.shard)
        self.generators = {
            "minibatches": torch.Generator().manual_seed(seed),
            "pretraining": torch.Generator().manual_seed(seed),
        }
        self.policy = _policy(model, tokenizer, config, critic, seed=seed)
        self.reference = Reference(self.policy)
        if config.shard:
            self.policy.shard()
            self.reference.shard()
        self.beta = Beta(config.beta, target=config.kl_target, horizon=config.kl_horizon)
        gradient = Gradient(
            self.policy,
            config.ppo,
            chunk=config.chunk,
            auxiliary=self._auxiliary(pretraining),
            processes=processes,
        )
        self.ppo = PPO(
            gradient,
            config.ppo,
            generator=self.generators["minibatches"],
            rows="sequences",
            advantage=_advantage(config),
        )
        self.seed = seed
        self.step = 0
        """Updates done."""
        self.collected = 0
        """Times that completions were drawn."""
        self.findings: list[doctor.Finding] = []
        """What the doctor has found so far, each kind once."""

    # ---- one update -------------------------------------------------------------------

    def check_room(self, prompts: Sequence[str]) -> None:
        """Raises UserError where a prompt and its completion would not fit into model or critic."""
        cap = self.config.cap
        room = getattr(self.policy.model.config, "max_position_embeddings", None)
        if room is not None and cap >= room:
            raise UserError(
                f"max_tokens: got {cap}, wanted less than {room}, the positions of the model for "
                "prompt and completion"
            )
        self.tokenizer.prompts(prompts, limit=None if room is None else room - cap)
        if self.policy.critic is not None:
            check_room(self.policy.critic.trunk, self.tokenizer, prompts, cap=cap, name="critic")

    def collect(self, prompts: Sequence[str] | Prompts) -> TextExperience:
        """Answer each prompt `config.samples` times.

        Of several processes each answers its share, and all get all answers.
        """
        given = None if isinstance(prompts, Prompts) else texts_of(prompts)
        if not isinstance(prompts, Prompts):
            prompts = self.tokenizer.prompts(prompts)
        check_padding(prompts)
        share = self.processes.share(torch.arange(len(prompts)))
        if self.processes.count * len(share) != len(prompts):
            raise UserError(
                f"prompts: got {len(prompts)}, wanted a multiple of {self.processes.count}, the "
                "number of processes"
            )
        self.collected += 1
        said = speak(
            self.policy,
            prompts.rows(share).repeat(self.config.samples).to(self.policy.device),
            tokenizer=self.tokenizer,
            max_tokens=self.config.cap,
            generator=self._sampling_generator(),
            sharded=self.processes.sharded,
        )
        found = self.take(gather_completions(said, self.processes, pad=self.tokenizer.pad))
        if given is None:
            return found
        count, samples = self.processes.count, self.config.samples
        asked = [x for rank in range(count) for x in given[rank::count] for _ in range(samples)]
        return replace(found, prompts=tuple(asked))  # with the special tokens of a chat

    def take(self, texts: Completions) -> TextExperience:
        """Completions that came from elsewhere, another sampler for instance.

        They must be drawn from the policy as it is, at `config.temperature` and untruncated;
        the doctor says so if they were not. Those of one prompt stand next to each other.
        """
        check_padding(texts)
        on_padding = doctor.reward_on_padding(texts, self.tokenizer.eos)
        experience = self.read(texts)
        self._report([on_padding] if on_padding else doctor.sampling(self.policy, experience))
        return experience

    def read(self, texts: Completions) -> TextExperience:
        """What policy, critic and reference think of any completions, drawn or written."""
        with torch.no_grad():
            now = in_chunks(self.policy.evaluate, texts, size=self.config.chunk)
        before = in_chunks(self.reference.evaluate, texts, size=self.config.chunk)
        return TextExperience(
            rollout=rollout_of(texts, now.logp, now.value, gamma=self.config.ppo.gamma),
            reference=torch.where(texts.mask, before, 0.0),
            entropy=torch.where(texts.mask, now.entropy, 0.0),
            ended=texts.ended(self.tokenizer.eos),
            prompts=tuple(self.tokenizer.decode(texts.prompt, texts.prompt_mask)),
            completions=tuple(self.tokenizer.decode(texts.completion, texts.mask)),
        )

    def update(self, experience: TextExperience, rewards: Any) -> dict[str, float]:
        """Learn from what was said.

        Args:
            rewards: [B] a number for each completion, in any form torch reads.

        Returns:
            Figures under `lm/...`, `reward/...` and `ppo/...`.

        Raises:
            UserError: a reward is missing or not finite; nothing has been changed.
        """
        rollout = experience.rollout
        scores = checked_scores(rewards, rows=len(rollout.mask), device=rollout.mask.device)
        judged = self.config.missing_eos_rule(scores, experience.ended)
        rollout, terms = add_rewards(
            experience, [Score(scores=judged), KLPenalty(beta=self.beta.value)]
        )
        if self.config.whiten_rewards:
            rollout = replace(rollout, reward=whitened(rollout))
        experience = replace(experience, rollout=rollout)
        figures = kl_figures(experience) | speech_figures(experience, scores) | terms
        figures["lm/beta"] = self.beta.value
        figures |= self.ppo.update(rollout, progress=self.step / self.config.updates)
        self._report(doctor.examine(self.policy, figures, target=self.config.kl_target))
        self.beta.observe(figures["lm/kl"], episodes=len(scores))
        self.step += 1
        return figures

    def _report(self, findings: list[doctor.Finding]) -> None:
        """Each kind of trouble once, by one process."""
        known = {finding.name for finding in self.findings}
        for finding in findings:
            if finding.name not in known:
                if self.processes.rank == 0:
                    log.warning("%s", finding)
                self.findings.append(finding)

    def _auxiliary(self, pretraining: Sequence[str | tuple[str, str]]) -> list[Auxiliary]:
        if not self.config.pretraining:
            return []
        if not pretraining:
            raise UserError(
                f"pretraining: got the weight {self.config.pretraining} and no texts; wanted some"
            )
        limit = getattr(self.policy.model.config, "max_position_embeddings", 512)
        texts = pretraining_texts(pretraining, self.tokenizer, limit=min(limit, 512))
        loss = PretrainingLoss(
            self.policy,
            texts.to(self.policy.device),
            weight=self.config.pretraining,
            batch=self.config.pretraining_batch,
            generator=self.generators["pretraining"],
            processes=self.processes,
        )
        return [loss]

    # ---- checkpoints ------------------------------------------------------------------

    def save(self, root: Path) -> Path | None:
        """Write a checkpoint below `root`: safetensors and JSON, whole or absent.

        Of several processes all call it; the first one writes.
        """
        learned, tensors = _on_cpu(self._learned()), _on_cpu(self._trainer_tensors())
        if self.processes.rank:
            return None

        def fill(path: Path) -> None:
            save_file(learned, path / "policy.safetensors")
            save_file(tensors, path / "trainer.safetensors")
            (path / "state.json").write_text(json.dumps(self._state(), indent=1))

        return write_checkpoint(root, self.step, fill)

    def resume(self, root: Path) -> bool:
        """Go on from the newest whole checkpoint below `root`, if there is any, bit for bit.

        The trainer must have been made with the same arguments as the one that saved.
        """
        path = newest_checkpoint(root)
        if path is None:
            return False
        state = json.loads((path / "state.json").read_text())
        learned = load_file(path / "policy.safetensors", device=str(self.policy.device))
        mine = self._learned()
        if learned.keys() != mine.keys() or any(learned[k].shape != mine[k].shape for k in mine):
            raise UserError(
                f"{path} is a checkpoint of another model or other settings: wanted one with the "
                "same weights; make the trainer as it was made before, or save elsewhere"
            )
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(part_of(learned[name], parameter))
        tensors = load_file(path / "trainer.safetensors")
        for name, generator in self.generators.items():
            generator.set_state(tensors[f"rng.{name}"])
        optimiser = {k: v for k, v in tensors.items() if not k.startswith("rng.")}
        load_optimiser(self.ppo.optimiser, optimiser, held=part_of)
        self.step, self.collected = state["step"], state["collected"]
        self.beta.value = state["beta"]
        self.findings = [doctor.Finding(**finding) for finding in state["findings"]]
        return True

    def export(self, path: Path) -> None:
        """Write the policy as a checkpoint that transformers and `load_model` read.

        Of several processes all call it; the first one writes.
        """
        model = merged(self.policy.model)
        weights = whole_state(model)
        if self.processes.rank == 0:
            save_model(model, self.tokenizer, path, weights=weights)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "collected": self.collected,
            "beta": self.beta.value,
            "findings": [finding.plain() for finding in self.findings],
        }

    def _learned(self) -> dict[str, Tensor]:
        """What training changes; all else comes from the model that the trainer was given."""
        return {k: p for k, p in self.policy.named_parameters() if p.requires_grad}

    def _trainer_tensors(self) -> dict[str, Tensor]:
        rng = {f"rng.{k}": g.get_state() for k, g in self.generators.items()}
        return rng | optimiser_tensors(self.ppo.optimiser.state_dict())

    def _sampling_generator(self) -> torch.Generator:
        """Another for each time and each process, so that a resumed run draws the same."""
        words = f"{self.seed} {self.collected} {self.processes.rank}".encode()
        seed = int.from_bytes(hashlib.blake2b(words, digest_size=7).digest())
        return torch.Generator().manual_seed(seed)


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors takes them: whole, and in memory of their own."""
    return {k: whole(v.detach()).cpu().contiguous() for k, v in tensors.items()}


def _policy(
    model: Any,
    tokenizer: Tokenizer,
    config: LanguageConfig,
    critic: ScalarModel | None,
    *,
    seed: int,
) -> LanguagePolicy:
    """The policy with the critic that `config` asks for."""
    generator = torch.Generator().manual_seed(seed)
    watching: Any = None
    if config.advantage == "critic" and config.critic == "shared":
        watching = "shared"
    elif config.advantage == "critic":
        critic = critic or ScalarModel(model, generator=generator, head="zero")
        watching = frozen_copy(critic).requires_grad_(True)
    model = adapted(model, rank=config.lora_rank, alpha=config.lora_alpha, seed=seed)
    policy = LanguagePolicy(
        model,
        sampling=Sampling(temperature=config.temperature, never_said=tokenizer.never_said),
        critic=watching,
        entropy_gradient=config.ppo.entropy_coef != 0,
        precision=config.precision,
    )
    return policy.to(model.device)


def _advantage(config: LanguageConfig) -> AdvantageOf | None:
    if config.advantage == "critic":
        return None
    return GroupAdvantage(kind=config.advantage, size=config.samples)
