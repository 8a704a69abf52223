"""Segments of text: a completion is one step, taken at its prompt.

    observations  [1, P] uint8    the prompt, UTF-8
    actions       [1, C] uint8    the completion, UTF-8
    true_reward   [1]             gold, where there is one; hidden

Bytes and not tokens, so that raters and reward models with other tokenizers read the same.
What a rater sees is kept as JSON behind a mark that no recipe of a clip begins with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from prefrl.feedback.segment import Provenance, Segment

MARK = b"PFTXT\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What a rater reads."""

    prompt: str
    completion: str
    ended: bool
    """By itself; False: it was cut off."""


def text_segment(text: Text, *, gold: float, provenance: Provenance) -> Segment:
    """A completion as a segment.

    Args:
        gold: the hidden reward; 0 where nobody knows it.
        provenance: `episode` tells completions of one batch apart.
    """
    about = {"prompt": text.prompt, "completion": text.completion, "ended": text.ended}
    return Segment(
        observations=_bytes(text.prompt),
        actions=_bytes(text.completion),
        true_reward=np.array([gold], dtype=np.float64),
        ended=text.ended,
        provenance=provenance,
        clip=MARK + json.dumps(about).encode(),
    )


def read_text(clip: bytes) -> Text | None:
    """What `text_segment` wrote into a clip; None: it is no text.

    Raises:
        ValueError: marked as text, but something else follows.
    """
    if not clip.startswith(MARK):
        return None
    about = json.loads(clip.removeprefix(MARK))
    if not isinstance(about, dict) or set(about) != set(Text.__dataclass_fields__):
        raise ValueError("text: wanted a prompt, a completion, and whether it ended")
    if not isinstance(about["prompt"], str) or not isinstance(about["completion"], str):
        raise ValueError("text: wanted a prompt and a completion in words")
    return Text(prompt=about["prompt"], completion=about["completion"], ended=bool(about["ended"]))


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)[None].copy()
