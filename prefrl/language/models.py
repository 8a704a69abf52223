"""Causal language models from Hugging Face, and the log-probabilities of what they say.

Any checkpoint that `AutoModelForCausalLM` reads will do, by local path or by name: safetensors
only, and no code from the checkpoint is ever run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefrl.errors import UserError
from prefrl.language.tokenizer import Tokenizer, first_line
from prefrl.language.tokens import Completions, at_end
from prefrl.ppo import whole

LOGITS = 2**26  # numbers of float32
Precision = Literal["fp32", "bf16"]
"""Of the arithmetic of forward passes."""


def load_model(path: str | Path, tokenizer: Tokenizer, *, offline: bool = False) -> nn.Module:
    """A causal language model in float32, without dropout, by local path or name.

    Raises:
        UserError: not found, no safetensors, needs code of its own, or fewer tokens than the
            tokenizer has of its own.
    """
    from transformers import AutoModelForCausalLM

    refuse_pickles(Path(path))
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(path),
            local_files_only=offline,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"no model at {str(path)!r}: wanted a folder with config.json and safetensors, or a "
            f"name that can be fetched ({first_line(error)})"
        ) from error
    make_room(model, tokenizer.size)
    return prepared(model, tokenizer)


def make_room(model: Any, size: int) -> None:
    """Rows for tokens that were added, a PAD say: each the mean of those there are.

    Drawn around 0 such a token would take all the probability wherever the logits of real ones
    lie far below it.
    """
    old = model.get_input_embeddings().num_embeddings
    if old >= size:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            for rows in (getattr(table, "weight", None), getattr(table, "bias", None)):
                if rows is not None:
                    rows[old:] = rows[:old].mean(0)


def new_model(
    kind: Literal["llama", "gpt2"],
    tokenizer: Tokenizer,
    *,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    positions: int = 128,
    seed: int,
) -> nn.Module:
    """A small model with random weights.

    Args:
        kind: "llama" has rotary positions, "gpt2" absolute ones.
        width: size of the hidden state, a multiple of `heads`.
        positions: longest prompt and completion together.
        seed: of the weights.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    names: dict[str, Any] = {
        "vocab_size": tokenizer.size,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
        "bos_token_id": tokenizer.bos,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "llama":
            llama = LlamaConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                max_position_embeddings=positions,
                **names,
            )
            model: Any = LlamaForCausalLM(llama)
        else:
            gpt2 = GPT2Config(
                n_embd=width, n_layer=layers, n_head=heads, n_positions=positions, **names
            )
            model = GPT2LMHeadModel(gpt2)
    return prepared(model, tokenizer)


def prepared(model: Any, tokenizer: Tokenizer) -> Any:
    """The model as all stages use it: no dropout, and no sampling settings of its own.

    A checkpoint's repetition penalty or top_p would make samples come from another
    distribution than the one whose log-probabilities are trained.
    """
    from transformers import GenerationConfig

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos, pad_token_id=tokenizer.pad, bos_token_id=tokenizer.bos
    )
    model.config.pad_token_id = tokenizer.pad
    model.eval()
    return model


def save_model(
    model: nn.Module, tokenizer: Tokenizer, path: Path, *, weights: dict[str, Tensor] | None = None
) -> None:
    """Write model and tokenizer as a checkpoint that transformers and `load_model` read.

    Args:
        weights: `whole_state` of a sharded model; None: the model has all of them.
    """
    model.save_pretrained(path, state_dict=weights)  # type: ignore[operator]
    tokenizer.save(path)


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """`state_dict` of a model that may be sharded; then all processes must ask for it."""
    put_together: dict[Tensor, Tensor] = {}  # tied weights once
    for tensor in (*model.parameters(), *model.buffers()):
        put_together[tensor] = whole(tensor.detach())
    named = model.state_dict(keep_vars=True)
    return {name: put_together[tensor] for name, tensor in named.items()}


def positions(attention: Tensor) -> Tensor:
    """[B, L] bool -> [B, L] the position of each token, wherever the padding is.

    Models with absolute positions give other results without it as soon as prompts are padded.

    >>> positions(torch.tensor([[False, True, True], [True, True, False]])).tolist()
    [[0, 0, 1], [0, 1, 1]]
    """
    return (attention.long().cumsum(1) - 1).clamp_min(0)


def check_room(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[str], *, cap: int, name: str
) -> None:
    """Raises UserError where the longest prompt and `cap` tokens more are beyond its positions."""
    room = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(tokenizer.encode_prompt(prompt)) for prompt in prompts)
    if room is not None and longest + cap > room:
        raise UserError(
            f"{name}: got {room} positions, wanted {longest + cap}: the longest prompt has "
            f"{longest} tokens, a completion up to {cap}; shorten the prompts or lower the cap"
        )


def read(model: nn.Module, texts: Completions, **options: Any) -> Any:
    """The model's output for prompts and completions, [B, P + T, ...]."""
    return model(
        input_ids=texts.ids,
        attention_mask=texts.attention.long(),
        position_ids=positions(texts.attention),
        use_cache=False,
        **options,
    )


def rows_at_once(model: Any, *, tokens: int, most: int) -> int:
    """Completions of one forward: `most`, or as many as have 256 MB of logits.

    >>> from types import SimpleNamespace
    >>> rows_at_once(SimpleNamespace(config=SimpleNamespace(vocab_size=50_000)), tokens=512, most=9)
    2

    Args:
        tokens: of the longest completion.
    """
    return max(min(most, LOGITS // (tokens * model.config.vocab_size)), 1)


def next_token_logp(
    logits: Tensor, *, temperature: float = 1.0, never_said: Sequence[int] = ()
) -> Tensor:
    """[..., V] logits -> [..., V] log-probabilities of the next token, in float32.

    Args:
        temperature: of sampling; it belongs in the log-probabilities too.
        never_said: ids that are not sampled: about 0 probability.
    """
    logits = logits.float() / temperature
    if never_said:
        banned = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        banned[list(never_said)] = True
        # finite, because 0 * -inf would make the entropy nan
        logits = logits.masked_fill(banned, torch.finfo(torch.float32).min)
    return logits.log_softmax(-1)


def completion_logits(model: nn.Module, texts: Completions, **options: Any) -> Any:
    """The model's output, whose `.logits` are the [B, T, V] from which completions were drawn."""
    T = texts.completion.shape[1]
    output = read(model, texts, logits_to_keep=T + 1, **options)
    output.logits = output.logits[:, :-1]
    return output


def logprobs(
    model: nn.Module,
    texts: Completions,
    *,
    temperature: float = 1.0,
    never_said: Sequence[int] = (),
) -> Tensor:
    """[B, T] log-probability of each token of the completions; 0 at padding.

    The same for a text however wide its padding, on the left or on the right, and whichever
    texts it shares a batch with, up to rounding.
    """
    logits = completion_logits(model, texts).logits
    logp = next_token_logp(logits, temperature=temperature, never_said=never_said)
    taken = logp.gather(-1, texts.completion.unsqueeze(-1)).squeeze(-1)
    return torch.where(texts.mask, taken, 0.0)


class ScalarModel(nn.Module):
    """A language model's trunk with one number for each position: reward model or critic.

    The head starts as N(0, 1 / sqrt(d + 1)) with bias 0 (Stiennon et al. 2020), or at zero.

    Args:
        model: a causal language model; its trunk is used, not copied.
        head: "random", or "zero" for a critic that begins without an opinion.
        generator: draws the head.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        generator: torch.Generator,
        head: Literal["random", "zero"] = "random",
    ) -> None:
        super().__init__()
        self.trunk: nn.Module = model.base_model  # type: ignore[assignment]
        width: int = model.config.hidden_size  # type: ignore[union-attr, assignment]
        self.head = scalar_head(width, generator=generator, head=head)

    def forward(self, texts: Completions) -> Tensor:
        """[B, P + T] one number for each token of prompt and completion."""
        hidden = read(self.trunk, texts).last_hidden_state
        # a copy: FSDP does not stand views of what a layer returns
        scalar: Tensor = torch.squeeze_copy(self.head(hidden), -1).float()
        return scalar

    def before_each_token(self, texts: Completions) -> Tensor:
        """[B, T] the number at the token before each of the completion: V(s_t) of a critic."""
        scalar: Tensor = self(texts)
        return scalar[:, texts.prompt.shape[1] - 1 : -1]

    def at_end(self, texts: Completions) -> Tensor:
        """[B] the number at the last token of each completion, EOS: score of a reward model."""
        return at_end(self(texts)[:, texts.prompt.shape[1] :], texts.mask)


def scalar_head(
    width: int, *, generator: torch.Generator, head: Literal["random", "zero"]
) -> nn.Linear:
    """Linear [d] -> [1], bias 0."""
    linear = nn.Linear(width, 1)
    with torch.no_grad():
        linear.bias.zero_()
        if head == "zero":
            linear.weight.zero_()
        else:
            linear.weight.normal_(0, 1 / math.sqrt(width + 1), generator=generator)
    return linear


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Arithmetic of the forward pass; weights stay float32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def refuse_pickles(path: Path) -> None:
    """Raises UserError where weights are pickles, before transformers says something less clear."""
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.glob(pattern))
    if pickles:
        raise UserError(
            f"{path}: got {pickles[0]}, a pickle, which can run code when it is opened; wanted "
            "safetensors: convert it where you trust it, with model.save_pretrained"
        )
