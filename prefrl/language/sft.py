"""Supervised fine-tuning: imitate demonstrations, completion tokens only.

The loss is the mean over all completion tokens of a batch, ends included, whatever the lengths;
prompts are read and not imitated. With a text as the completion of an empty prompt it is plain
language modelling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prefrl.language.encoded import Encoded, flat
from prefrl.language.models import completion_logits, next_token_logp
from prefrl.language.optimise import Sums, Units, measure


class SftObjective:
    """-log pi(completion | prompt), in nats a token.

    Args:
        model: a causal language model without dropout, as `prefrl.language.models` makes them.
    """

    def __init__(self, model: nn.Module, texts: Encoded) -> None:
        self.model, self.texts = model, texts

    def __len__(self) -> int:
        return len(self.texts)

    def shared(self, index: Tensor) -> Units:
        """Units are completion tokens."""
        return Units(units=self.texts.tokens(flat(index)))

    def sums(self, index: Tensor, shared: Units) -> Sums:
        """Cross-entropy and correct guesses, summed over tokens."""
        device = next(self.model.parameters()).device
        texts = self.texts.batch(flat(index)).to(device)
        logp = next_token_logp(completion_logits(self.model, texts).logits)
        taken = logp.gather(-1, texts.completion.unsqueeze(-1)).squeeze(-1)
        right = (logp.argmax(-1) == texts.completion) & texts.mask
        return Sums(
            loss=-torch.where(texts.mask, taken, 0.0).sum(),
            figures={"token_accuracy": right.sum()},
        )


def language_loss(model: nn.Module, texts: Encoded) -> float:
    """Mean cross-entropy of completion tokens in nats: the held-out loss of a model."""
    return measure(SftObjective(model, texts))["loss"]
