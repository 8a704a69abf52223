"""Loading, and log-probabilities that do not depend on padding."""

import contextlib
import copy
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from prefrl.errors import UserError
from prefrl.language.models import (
    ScalarModel,
    load_model,
    logprobs,
    next_token_logp,
    positions,
    rows_at_once,
    save_model,
)
from prefrl.language.tokenizer import checked, load_tokenizer
from tests.language.small import KINDS, model, texts, tokenizer, widened


def test_positions_begin_at_the_first_token() -> None:
    attention = torch.tensor([[False, False, True, True], [True, True, True, False]])
    assert positions(attention).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 4), (2, 2)])
def test_padding_on_either_side_changes_no_log_probability(
    kind: str, left: int, right: int
) -> None:
    network, said = model(kind), texts()
    plain = logprobs(network, said)
    wide = logprobs(network, widened(said, left=left, right=right))
    torch.testing.assert_close(wide[:, : plain.shape[1]], plain)
    assert (wide[:, plain.shape[1] :] == 0).all()
    assert plain.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_batch_mates_change_no_log_probability(kind: str) -> None:
    network, said = model(kind), texts()
    alone = logprobs(network, said.rows(torch.tensor([1])))
    torch.testing.assert_close(logprobs(network, said)[1:], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_the_model_token_by_token(kind: str) -> None:
    # second text: BOS d | g h i EOS, each token read off a pass over what came before
    network, said = model(kind), texts()
    ids = said.ids[1][said.attention[1]].tolist()
    wanted = []
    for end in range(2, len(ids)):
        logits = network(torch.tensor([ids[:end]])).logits[0, -1]
        wanted.append(logits.log_softmax(-1)[ids[end]].item())
    assert logprobs(network, said)[1].tolist() == pytest.approx(wanted, abs=1e-5)


def test_temperature_and_forbidden_tokens_are_part_of_the_distribution() -> None:
    # logits 0, 2 log 2, 9 at temperature 2 without the last: e^0 : e^(log 2) = 1 : 2
    logits = torch.tensor([0.0, 2 * torch.tensor(2.0).log(), 9.0])
    logp = next_token_logp(logits, temperature=2.0, never_said=[2])
    assert logp.exp().tolist() == pytest.approx([1 / 3, 2 / 3, 0.0])
    assert (-logp.exp() * logp).sum().isfinite()


def test_dropout_is_off_even_in_training_mode() -> None:
    network, said = model("gpt2").train(), texts()
    assert torch.equal(logprobs(network, said), logprobs(network, said))


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_does_not_depend_on_padding_or_batch_mates(kind: str) -> None:
    scalar = ScalarModel(model(kind), generator=torch.Generator().manual_seed(0))
    said = texts()
    scores = scalar.at_end(said)
    torch.testing.assert_close(scalar.at_end(widened(said, left=2, right=3)), scores)
    torch.testing.assert_close(scalar.at_end(said.rows(torch.tensor([0]))), scores[:1])
    assert scores[0] != scores[1]


def test_a_critic_reads_the_state_before_each_token() -> None:
    # V(s_t) may not depend on the token t, nor on those behind it
    scalar = ScalarModel(model(), generator=torch.Generator().manual_seed(0))
    said = texts()
    other = copy.deepcopy(said)
    other.completion[:, 1:] = 7
    same, moved = scalar.before_each_token(said), scalar.before_each_token(other)
    torch.testing.assert_close(same[:, :2], moved[:, :2])
    assert not torch.allclose(same[:, 2:], moved[:, 2:])


def test_the_random_head_has_deviation_one_over_root_of_width_plus_one() -> None:
    # 400 draws of N(0, 1 / sqrt(400)): the deviation is known to 1 / sqrt(800) = 3.5 %
    from prefrl.language.models import scalar_head

    head = scalar_head(399, generator=torch.Generator().manual_seed(0), head="random")
    assert head.weight.std().item() == pytest.approx(400**-0.5, rel=0.12)
    assert head.bias.item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_checkpoint_is_loaded_by_its_path(kind: str, tmp_path: Path) -> None:
    network = model(kind)
    save_model(network, tokenizer(), tmp_path)
    token = load_tokenizer(tmp_path, offline=True)
    loaded = load_model(tmp_path, token, offline=True)
    assert (token.eos, token.pad, token.bos) == (2, 0, 1)
    assert torch.equal(logprobs(loaded, texts()), logprobs(network, texts()))


def test_sampling_settings_of_a_checkpoint_are_put_aside(tmp_path: Path) -> None:
    save_model(model(), tokenizer(), tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "repetition_penalty": 1.5}))
    loaded: Any = load_model(tmp_path, tokenizer(), offline=True)
    assert loaded.generation_config.repetition_penalty in (None, 1.0)


def test_a_pickle_is_refused_and_the_remedy_named(tmp_path: Path) -> None:
    save_model(model(), tokenizer(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"got pytorch_model.bin, a pickle.*wanted safetensors"):
        load_model(tmp_path, tokenizer(), offline=True)


def test_a_missing_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model at"):
        load_model(tmp_path, tokenizer(), offline=True)
    with pytest.raises(UserError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "nowhere", offline=True)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    backend = copy.deepcopy(tokenizer().backend)
    backend.eos_token = None
    with pytest.raises(UserError, match="has no EOS token"):
        checked(backend, "x")


def test_padding_that_is_the_end_becomes_a_token_of_its_own(tmp_path: Path) -> None:
    network = model()
    backend = copy.deepcopy(tokenizer().backend)
    backend.pad_token = backend.eos_token
    network.save_pretrained(tmp_path)
    backend.save_pretrained(tmp_path)
    token = load_tokenizer(tmp_path, offline=True)
    assert token.pad != token.eos
    loaded = load_model(tmp_path, token, offline=True)

    def said(pad: int) -> Tensor:
        return logprobs(loaded, token.completions(["a"], ["b"]))

    assert loaded.get_input_embeddings().num_embeddings >= token.size
    assert said(token.pad).isfinite().all()


def test_padding_that_was_added_takes_no_probability(tmp_path: Path) -> None:
    network, backend = model("gpt2"), copy.deepcopy(tokenizer().backend)
    with torch.no_grad():  # logits of about -30, as of released checkpoints
        network.transformer.ln_f.weight[0], network.transformer.ln_f.bias[0] = 0.0, 1.0
        network.lm_head.weight[:, 0] = -30.0
    backend.pad_token = backend.eos_token
    network.save_pretrained(tmp_path)
    backend.save_pretrained(tmp_path)
    core = tmp_path / "tokenizer.json"
    core.write_text(core.read_text().replace('"<pad>"', '"word"'))  # it has none unused either
    token = load_tokenizer(tmp_path, offline=True)
    assert token.pad == tokenizer().size
    loaded = load_model(tmp_path, token, offline=True)
    said = token.completions(["a b"], ["c"])
    wanted = network(said.ids).logits.log_softmax(-1)[0, said.prompt.shape[1] - 1, said.ids[0, -2]]
    got = logprobs(loaded, said)[0, 0]
    assert got.item() == pytest.approx(wanted.item(), abs=0.2)  # one token more, as likely as most


def test_code_of_a_tokenizer_s_own_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "odd"
    tokenizer().save(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "odd.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Odd: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with contextlib.suppress(UserError):
        load_tokenizer(folder, offline=True)
    assert not (tmp_path / "ran").exists()


def test_few_completions_at_a_time_where_the_vocabulary_is_large() -> None:
    large = SimpleNamespace(config=SimpleNamespace(vocab_size=50_000))
    assert rows_at_once(large, tokens=512, most=256) == 2
    assert rows_at_once(large, tokens=10**6, most=256) == 1
    assert rows_at_once(model(), tokens=30, most=256) == 256
