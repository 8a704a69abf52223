"""Records of prompts and completions, and what counts as said."""

from dataclasses import replace

import pytest
import torch

from prefrl.errors import UserError
from prefrl.language.tokens import (
    Completions,
    Prompts,
    at_end,
    check_padding,
    completions_of,
    joined,
    place_at_end,
    prompts_of,
    until_eos,
)
from tests.language.small import tokenizer

PAD, EOS = 0, 1


def test_prompts_are_padded_on_the_left_and_completions_on_the_right() -> None:
    texts = completions_of([[5], [6, 7]], [[8, EOS], [EOS]], pad=PAD)
    assert texts.ids.tolist() == [[PAD, 5, 8, EOS], [6, 7, EOS, PAD]]
    assert texts.attention.tolist() == [[False, True, True, True], [True, True, True, False]]
    assert texts.lengths.tolist() == [2, 1]


def test_what_is_said_goes_up_to_the_first_end_even_through_padding_ids() -> None:
    ids = torch.tensor([[5, PAD, EOS, 5], [EOS, EOS, 5, 5], [5, 5, 5, 5]])
    assert until_eos(ids, EOS).long().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]


def test_a_completion_has_ended_only_where_its_end_was_said() -> None:
    texts = completions_of([[5]] * 2, [[8, EOS], [8, 8]], pad=PAD)
    assert texts.ended(EOS).tolist() == [True, False]


def test_the_end_is_the_last_unmasked_step() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    placed = place_at_end(torch.tensor([2.0, 3.0]), mask)
    assert placed.tolist() == [[0, 2, 0], [0, 0, 3]]
    assert at_end(placed, mask).tolist() == [2, 3]


def test_repeated_prompts_stand_next_to_each_other() -> None:
    assert prompts_of([[5], [6]], pad=PAD).repeat(2).ids.tolist() == [[5], [5], [6], [6]]


@pytest.mark.parametrize(("prompts", "completions"), [([[]], [[1]]), ([[1]], [[]]), ([], [])])
def test_nothing_to_say_is_refused(prompts: list[list[int]], completions: list[list[int]]) -> None:
    with pytest.raises(UserError, match="wanted at least one"):
        completions_of(prompts, completions, pad=PAD)


def test_parts_are_joined_at_the_longest() -> None:
    one = completions_of([[5]], [[7, 1]], pad=0)
    other = completions_of([[6]], [[8, 8, 1]], pad=0)
    both = joined([one, other], pad=0)
    assert both.completion.tolist() == [[7, 1, 0], [8, 8, 1]]
    assert both.mask.tolist() == [[True, True, False], [True, True, True]]
    assert both.prompt.tolist() == [[5], [6]]


def test_single_tokens_have_no_meaning_of_their_own() -> None:
    with pytest.raises(UserError, match="rows='sequences'"):
        completions_of([[5]], [[6]], pad=PAD).by_step()


def test_prompts_begin_with_bos_once_and_completions_end_with_eos_once() -> None:
    token = tokenizer()
    assert token.encode_prompt("a") == token.encode_prompt("<bos> a") == [token.bos, 4]
    assert token.encode_completion("a") == token.encode_completion("a <eos>") == [4, token.eos]


def test_a_prompt_that_is_too_long_is_refused_by_its_number() -> None:
    with pytest.raises(UserError, match="prompt 1: got 4 tokens, wanted at most 3"):
        tokenizer().prompts(["a b", "a b c"], limit=3)


def test_an_empty_completion_is_refused_by_its_number() -> None:
    with pytest.raises(UserError, match="completion 1: got ' ', wanted some text"):
        tokenizer().completions(["a", "a"], ["b", " "])


def test_decoding_leaves_out_padding_and_special_tokens() -> None:
    texts = tokenizer().completions(["a", "a b c"], ["b c", "d"])
    assert tokenizer().decode(texts.completion, texts.mask) == ["b c", "d"]
    assert tokenizer().decode(texts.prompt, texts.prompt_mask) == ["a", "a b c"]


def test_padding_on_the_wrong_side_is_refused() -> None:
    right = Prompts(ids=torch.tensor([[5, 6], [5, 0]]), mask=torch.tensor([[1, 1], [1, 0]]) > 0)
    with pytest.raises(UserError, match="prompt 1: got padding elsewhere than on the left"):
        check_padding(right)
    whole = Prompts(ids=right.ids, mask=right.mask.flip(1))
    check_padding(whole)
    texts = Completions(
        prompt=whole.ids, prompt_mask=whole.mask, completion=right.ids, mask=right.mask
    )
    check_padding(texts)
    gap = torch.tensor([[True, False, True]] * 2)
    for mask, ids in ((whole.mask, right.ids), (gap, torch.ones(2, 3, dtype=torch.int64))):
        wrong = replace(texts, completion=ids, mask=mask)
        with pytest.raises(UserError, match=r"completion \d: got padding elsewhere than on the r"):
            check_padding(wrong)
