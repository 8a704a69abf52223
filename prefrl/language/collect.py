"""The policy speaks: completions drawn by transformers' `generate`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.policy import LanguagePolicy, Sampling
from prefrl.language.tokenizer import Tokenizer
from prefrl.language.tokens import Completions, Prompts, until_eos
from prefrl.ppo import Rollout


def generate(
    model: Any,
    prompts: Prompts,
    *,
    sampling: Sampling,
    tokenizer: Tokenizer,
    max_tokens: int,
    generator: torch.Generator,
    sharded: bool = False,
) -> Completions:
    """One completion for each prompt, from the whole distribution: no top-k, no top-p.

    Truncated sampling would draw from another distribution than the one that is trained, and
    make the KL estimate negative.

    Args:
        sampling: temperature 0 takes the likeliest token each time.
        max_tokens: T at most; what has not ended by then is cut off.
        generator: draws the tokens; on the CPU.
        sharded: other processes hold parts of the model, and all speak until all have ended.
    """
    _check_room(model, prompts.ids.shape[1] + max_tokens)
    seed = int(torch.randint(2**62, (), generator=generator))
    devices = [prompts.ids.device] if prompts.ids.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        ids = model.generate(
            input_ids=prompts.ids,
            attention_mask=prompts.mask.long(),
            generation_config=settings(sampling, tokenizer, max_tokens),
            synced_gpus=sharded,
        )
    completion = ids[:, prompts.ids.shape[1] :].clone()
    return Completions(
        prompt=prompts.ids,
        prompt_mask=prompts.mask,
        completion=completion,
        mask=until_eos(completion, tokenizer.eos),
    )


def settings(sampling: Sampling, tokenizer: Tokenizer, max_tokens: int) -> Any:
    """transformers' `GenerationConfig`, everything that would bend the distribution off."""
    from transformers import GenerationConfig

    draws = sampling.temperature > 0
    how = {"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0} if draws else {}
    return GenerationConfig(
        do_sample=draws,
        max_new_tokens=max_tokens,
        suppress_tokens=list(sampling.never_said) or None,
        eos_token_id=tokenizer.eos,
        pad_token_id=tokenizer.pad,
        bos_token_id=tokenizer.bos,
        use_cache=True,
        **how,
    )


def rollout_of(
    texts: Completions, policy_says: Tensor, critic_says: Tensor, *, gamma: float
) -> Rollout:
    """Completions as PPO reads them; a completion is an episode, which its last token ends.

    One that was cut off has ended too: what it misses is for the missing-EOS rule to say.

    Args:
        texts: [B, T]
        policy_says: [B, T] log-probabilities.
        critic_says: [B, T] values.
        gamma: discount per token.
    """
    mask = texts.mask
    goes_on = torch.zeros_like(mask)
    goes_on[:, :-1] = mask[:, 1:]
    value = torch.where(mask, critic_says, 0.0)
    next_value = torch.zeros_like(value)
    next_value[:, :-1] = value[:, 1:]
    return Rollout(
        inputs=texts,
        mask=mask,
        logp=torch.where(mask, policy_says, 0.0),
        value=value,
        reward=torch.zeros_like(value),
        next_value=next_value,
        discount=gamma * goes_on.float(),
        trace=goes_on.float(),
    )


def speak(
    policy: LanguagePolicy,
    prompts: Prompts,
    *,
    tokenizer: Tokenizer,
    max_tokens: int,
    generator: torch.Generator,
    sharded: bool = False,
) -> Completions:
    """`generate` as the policy speaks in training."""
    with policy.arithmetic():
        return generate(
            policy.model,
            prompts,
            sampling=policy.sampling,
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            generator=generator,
            sharded=sharded,
        )


def _check_room(model: Any, tokens: int) -> None:
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None and tokens > room:
        raise UserError(
            f"prompt and completion: got up to {tokens} tokens, wanted at most {room}, the "
            "positions of the model: shorten the prompts or lower max_tokens"
        )
