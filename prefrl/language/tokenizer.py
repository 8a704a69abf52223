"""Between text and token ids: a tokenizer whose end and padding are sure to differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.tokens import Completions, Prompts, completions_of, prompts_of

BOS, EOS, PAD, UNKNOWN = "<bos>", "<eos>", "<pad>", "<unk>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """A Hugging Face tokenizer, with what the stages agree on.

    Completions end with EOS at every stage, else a policy never learns to stop; PAD is another
    token than EOS, else EOS would be masked out of every loss.
    """

    backend: Any
    """`transformers.PreTrainedTokenizerBase`."""
    eos: int
    """Id of the token that ends a completion."""
    pad: int
    """Id of the token that fills up, which nothing ever predicts."""
    bos: int | None
    """Id of the token before every prompt; None: there is none."""

    @property
    def size(self) -> int:
        """V, tokens including added ones."""
        return len(self.backend)

    @property
    def never_said(self) -> tuple[int, ...]:
        """Ids that a policy must not emit."""
        others = (self.pad, self.bos, self.backend.unk_token_id)
        return tuple(sorted({i for i in others if i is not None and i != self.eos}))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, nothing added before or behind."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False)
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, BOS first where the tokenizer has one and the text has not."""
        ids = self.encode(text)
        begins = self.bos is None or ids[:1] == [self.bos]
        return ids if begins or self.bos is None else [self.bos, *ids]

    def encode_completion(self, text: str) -> list[int]:
        """Ids of a completion, EOS last."""
        ids = self.encode(text)
        return ids if ids[-1:] == [self.eos] else [*ids, self.eos]

    def prompts(self, texts: Sequence[str], *, limit: int | None = None) -> Prompts:
        """Texts -> [B, P].

        Args:
            limit: tokens a prompt may have; None: any number.

        Raises:
            UserError: a prompt that is empty or longer than `limit`.
        """
        rows = [self.encode_prompt(text) for text in texts]
        for i, row in enumerate(rows):
            if limit is not None and len(row) > limit:
                raise UserError(
                    f"prompt {i}: got {len(row)} tokens, wanted at most {limit}: "
                    "shorten it, or raise the limit if the model has the positions"
                )
        return prompts_of(rows, pad=self.pad)

    def completions(self, prompts: Sequence[str], completions: Sequence[str]) -> Completions:
        """Texts -> [B, P] and [B, T], EOS behind every completion.

        Raises:
            UserError: an empty prompt or completion.
        """
        for i, text in enumerate(completions):
            if not text.strip():
                raise UserError(f"completion {i}: got {text!r}, wanted some text")
        return completions_of(
            [self.encode_prompt(text) for text in prompts],
            [self.encode_completion(text) for text in completions],
            pad=self.pad,
        )

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """[B, T] -> B texts, padding and special tokens left out."""
        rows = [row[keep].tolist() for row, keep in zip(ids.cpu(), mask.cpu(), strict=True)]
        return [self.backend.decode(row, skip_special_tokens=True) for row in rows]

    def save(self, path: Path) -> None:
        """Write the files that `load_tokenizer` reads."""
        self.backend.save_pretrained(path)


def load_tokenizer(path: str | Path, *, offline: bool = False) -> Tokenizer:
    """The tokenizer of a checkpoint, by local path or name.

    A tokenizer without PAD, or with PAD = EOS, gets a PAD of its own; `load_model` makes room
    for it when the model is loaded with this tokenizer.

    Raises:
        UserError: not found, or without EOS.
    """
    from transformers import AutoTokenizer

    try:
        backend = AutoTokenizer.from_pretrained(
            str(path), local_files_only=offline, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer at {str(path)!r}: wanted a folder with tokenizer.json, or a name that "
            f"can be fetched ({first_line(error)})"
        ) from error
    return checked(backend, str(path))


def checked(backend: Any, name: str) -> Tokenizer:
    """A tokenizer that is sure to have EOS, and a PAD of its own.

    Raises:
        UserError: it has no EOS.
    """
    if backend.eos_token_id is None:
        raise UserError(
            f"the tokenizer {name} has no EOS token, so no completion could end: set eos_token in "
            "its tokenizer_config.json"
        )
    if backend.pad_token_id in (None, backend.eos_token_id):
        backend.add_special_tokens({"pad_token": PAD})
    return Tokenizer(
        backend=backend,
        eos=backend.eos_token_id,
        pad=backend.pad_token_id,
        bos=backend.bos_token_id,
    )


def train_tokenizer(
    texts: Iterable[str], *, kind: Literal["words", "bytes"], size: int = 2000
) -> Tokenizer:
    """A tokenizer learned from texts, without any download.

    Args:
        kind: "words", one token for each word between spaces, for closed vocabularies; or
            "bytes", byte pairs (BPE), for real text, of which nothing is ever unknown.
        size: V at most.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, BOS, EOS, UNKNOWN]
    trainer: Any
    if kind == "words":
        core = tokenizers.Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=special)
    else:
        core = tokenizers.Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    core.train_from_iterator(texts, trainer)
    backend = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNKNOWN
    )
    return checked(backend, "learned here")


def first_line(error: Exception) -> str:
    """What an error says in short."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
