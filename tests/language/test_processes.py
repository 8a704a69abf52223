"""Two processes compute what one does."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch.distributed import destroy_process_group

from prefrl.errors import UserError
from prefrl.language.models import load_model
from prefrl.language.processes import gather_completions, join
from prefrl.language.tokens import Completions, completions_of
from prefrl.language.trainer import LanguageTrainer
from prefrl.ppo import ALONE, Processes, whole
from tests.language.small import config, model, tokenizer

SAID = [["b c"], ["d"], ["e f g"], ["h"], ["i j a b"], ["a"]]


def all_texts() -> Completions:
    prompts = ["a b c", "d", "e f", "g", "h i", "j"]
    return tokenizer().completions(prompts, [row[0] for row in SAID])


def share_of(rank: int, count: int) -> Completions:
    """Every `count`-th text, padded among themselves only."""
    texts = all_texts()
    rows = range(rank, len(texts), count)
    prompts = [texts.prompt[i][texts.prompt_mask[i]].tolist() for i in rows]
    said = [texts.completion[i][texts.mask[i]].tolist() for i in rows]
    return completions_of(prompts, said, pad=tokenizer().pad)


def trainer(processes: Processes, **settings: Any) -> LanguageTrainer:
    settings = {"pretraining": 0.5, "pretraining_batch": 3, "epochs": 2, "chunk": 2} | settings
    corpus = ["a b c d e", "f g", "h i j"]
    kind = settings.pop("kind", "llama")
    return LanguageTrainer(
        model(kind), tokenizer(), config(**settings), seed=0, pretraining=corpus,
        processes=processes,
    )  # fmt: skip


def learn(of: LanguageTrainer, texts: Completions) -> dict[str, float]:
    batch = of.take(texts)
    return of.update(batch, [text.count("a") + len(text) / 10 for text in batch.completions])


def weights(of: LanguageTrainer) -> list[float]:
    return torch.cat([whole(p.detach()).flatten() for p in of.policy.parameters()]).tolist()


def updated(texts: Completions, processes: Processes, **settings: Any) -> dict[str, Any]:
    """Figures and weights after one update."""
    of = trainer(processes, **settings)
    figures = learn(of, texts)
    said = of.collect(["a b", "c"]).completions
    return {"figures": figures, "weights": weights(of), "said": said}


def one_of_two(rank: int, port: int, out: str, settings: dict[str, Any]) -> None:
    """What torchrun would start."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes, _ = join(torch.device("cpu"))
    assert (processes.rank, processes.count) == (rank, 2)
    texts = gather_completions(share_of(rank, 2), processes, pad=tokenizer().pad)
    found = updated(texts, processes, **settings)
    if settings.get("shard"):
        found |= resumed(texts, processes, Path(out), **settings)
    Path(out, f"{rank}.json").write_text(json.dumps(found))
    destroy_process_group()


def resumed(texts: Completions, processes: Processes, out: Path, **settings: Any) -> dict[str, Any]:
    """Weights after two updates in one go, and after a checkpoint in between."""
    through = trainer(processes, **settings)
    learn(through, texts)
    through.save(out / "checkpoints")
    learn(through, texts)
    processes.wait()
    again = trainer(processes, **settings)
    assert again.resume(out / "checkpoints")
    again.take(texts)  # reading leaves no weight whole
    held = sum(p.to_local().numel() for p in again.policy.parameters())  # type: ignore[attr-defined]
    learn(again, texts)
    again.export(out / "model")
    return {"through": weights(through), "again": weights(again), "held": held}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def of_two(out: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each of two processes found."""
    # each process imports this file by its name, which it finds from the root
    sys.path.insert(0, str(Path(__file__).parents[2]))
    multiprocessing.spawn(one_of_two, args=(free_port(), str(out), settings), nprocs=2)
    left, right = (json.loads((out / f"{i}.json").read_text()) for i in range(2))
    return left, right


# 3 rows a minibatch, of which one process has 2 and the other 1; or one of which has none
SETTINGS = [
    {"minibatches": 2},
    {"minibatches": 2, "shard": True},
    {"minibatches": 6, "shard": True, "kind": "gpt2", "critic": "shared"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_two_processes_make_the_update_of_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    # the order of the gathered texts is by rank: 0, 2, 4, then 1, 3, 5
    of_one = settings | {"shard": False}
    alone = updated(all_texts().rows(torch.tensor([0, 2, 4, 1, 3, 5])), ALONE, **of_one)
    left, right = of_two(tmp_path, **settings)
    assert left["weights"] == right["weights"]
    assert left["weights"] == pytest.approx(alone["weights"], rel=1e-4, abs=1e-5)
    for name, value in alone["figures"].items():
        assert left["figures"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    moved = torch.tensor(left["weights"]) - torch.tensor(weights(trainer(ALONE, **of_one)))
    assert moved.abs().max() > 1e-3
    assert left["said"] == right["said"]
    assert len(left["said"]) == 2
    if settings.get("shard"):
        assert left["again"] == right["again"] == left["through"]
        assert left["again"] != left["weights"]
        assert 0.4 * len(left["weights"]) < left["held"] < 0.6 * len(left["weights"])
        exported = load_model(tmp_path / "model", tokenizer(), offline=True)
        learned = torch.cat([p.flatten() for p in exported.parameters()])
        assert learned.tolist() == left["again"][: len(learned)]


def test_sharding_wants_several_processes_and_whole_weights() -> None:
    with pytest.raises(UserError, match=r"shard: got one process, wanted several: torchrun"):
        trainer(ALONE, shard=True)
    with pytest.raises(UserError, match=r"shard: got it with lora_rank 4, wanted one of them"):
        config(shard=True, lora_rank=4)


def test_shares_cover_everything_once() -> None:
    index = torch.arange(7)
    shares = [Processes(rank=i, count=3).share(index) for i in range(3)]
    assert sorted(torch.cat(shares).tolist()) == list(range(7))
    assert torch.equal(ALONE.share(index), index)


def test_alone_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes, _ = join(torch.device("cpu"))
    assert processes == ALONE


def test_prompts_that_cannot_be_shared_evenly_are_refused() -> None:
    two = Processes(rank=0, count=2)
    of = LanguageTrainer(model(), tokenizer(), config(), seed=0, processes=two)
    with pytest.raises(UserError, match="got 3, wanted a multiple of 2"):
        of.collect(["a", "b", "c"])


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert join(torch.device("cuda:1")) == (ALONE, torch.device("cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="got 'cuda:1' for several processes, wanted auto, cuda or"):
        join(torch.device("cuda:1"))
