"""The pretraining term: language modelling beside PPO, so that it does not unlearn language.

Ouyang et al. 2022 (arXiv:2203.02155, eq. 2) call the mixture PPO-ptx. Their coefficient of 27.8
hangs on how their loss is averaged; here it is the mean over tokens, and about .1 to 1 is a
start. The norm of its gradient is logged, and that of the sum of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.models import logprobs
from prefrl.language.policy import LanguagePolicy
from prefrl.language.tokenizer import Tokenizer
from prefrl.language.tokens import Completions, completions_of
from prefrl.ppo import ALONE, Processes


class PretrainingLoss:
    """Minus the mean log-probability of a token of pretraining texts, drawn anew each time.

    Args:
        texts: [N, 1] first tokens and [N, T] what follows.
        weight: gamma of the objective.
        batch: texts for each minibatch of PPO.
        generator: draws them; on the CPU.
    """

    name = "pretraining_loss"

    def __init__(
        self,
        policy: LanguagePolicy,
        texts: Completions,
        *,
        weight: float,
        batch: int,
        generator: torch.Generator,
        processes: Processes = ALONE,
    ) -> None:
        self.policy, self.texts = policy, texts
        self.weight, self.batch, self.generator = weight, batch, generator
        self.processes = processes

    def __call__(self) -> Tensor:
        drawn = torch.randint(len(self.texts), (self.batch,), generator=self.generator)
        drawn = drawn.to(self.texts.mask.device)
        tokens = self.texts.mask[drawn].sum()
        share, count = self.processes.even_share(drawn)
        with self.policy.arithmetic():
            logp = logprobs(self.policy.model, self.texts.rows(share))
        return -logp[:count].sum() / tokens


def pretraining_texts(
    texts: Sequence[str | tuple[str, str]], tokenizer: Tokenizer, *, limit: int
) -> Completions:
    """Texts as first token and rest, cut at `limit` tokens.

    Args:
        texts: plain ones, or (prompt, completion), which become the ids that all other stages
            make of them.

    Raises:
        UserError: a text of fewer than two tokens.
    """
    rows = [_ids(text, tokenizer)[:limit] for text in texts]
    for i, row in enumerate(rows):
        if len(row) < 2:
            raise UserError(f"pretraining text {i}: got {texts[i]!r}, wanted two tokens or more")
    return completions_of([row[:1] for row in rows], [row[1:] for row in rows], pad=tokenizer.pad)


def _ids(text: str | tuple[str, str], tokenizer: Tokenizer) -> list[int]:
    if isinstance(text, str):
        return [*tokenizer.encode_prompt(text), tokenizer.eos]
    prompt, completion = text
    return [*tokenizer.encode_prompt(prompt), *tokenizer.encode_completion(completion)]
