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
from prefrl.language.processes import gather_completions, join
from prefrl.language.tokens import Completions, completions_of
from prefrl.language.trainer import LanguageTrainer
from prefrl.ppo import ALONE, Processes
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


def updated(texts: Completions, processes: Processes) -> dict[str, Any]:
    """Figures and weights after one update."""
    settings = config(pretraining=0.5, pretraining_batch=3, epochs=2, minibatches=2, chunk=2)
    corpus = ["a b c d e", "f g", "h i j"]
    of = LanguageTrainer(
        model(), tokenizer(), settings, seed=0, pretraining=corpus, processes=processes
    )
    batch = of.take(texts)
    figures = of.update(batch, [text.count("a") + len(text) / 10 for text in batch.completions])
    weights = torch.cat([p.detach().flatten() for p in of.policy.parameters()])
    answers = len(of.collect(["a b", "c"]).completions)
    return {"figures": figures, "weights": weights.tolist(), "answers": answers}


def one_of_two(rank: int, port: int, out: str) -> None:
    """What torchrun would start."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes, _ = join()
    assert (processes.rank, processes.count) == (rank, 2)
    texts = gather_completions(share_of(rank, 2), processes, pad=tokenizer().pad)
    Path(out, f"{rank}.json").write_text(json.dumps(updated(texts, processes)))
    destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_processes_make_the_update_of_one(tmp_path: Path) -> None:
    # the order of the gathered texts is by rank: 0, 2, 4, then 1, 3, 5
    alone = updated(all_texts().rows(torch.tensor([0, 2, 4, 1, 3, 5])), ALONE)
    # each process imports this file by its name, which it finds from the root
    sys.path.insert(0, str(Path(__file__).parents[2]))
    multiprocessing.spawn(one_of_two, args=(free_port(), str(tmp_path)), nprocs=2)
    left, right = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    assert left["weights"] == right["weights"]
    assert left["weights"] == pytest.approx(alone["weights"], rel=1e-4, abs=1e-5)
    for name, value in alone["figures"].items():
        assert left["figures"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    before = torch.cat([p.flatten() for p in model().parameters()])
    moved = torch.tensor(left["weights"])[: len(before)] - before
    assert moved.abs().max() > 1e-3
    assert left["answers"] == right["answers"] == 2


def test_shares_cover_everything_once() -> None:
    index = torch.arange(7)
    shares = [Processes(rank=i, count=3).share(index) for i in range(3)]
    assert sorted(torch.cat(shares).tolist()) == list(range(7))
    assert torch.equal(ALONE.share(index), index)


def test_alone_nothing_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes, _ = join()
    assert processes == ALONE


def test_prompts_that_cannot_be_shared_evenly_are_refused() -> None:
    two = Processes(rank=0, count=2)
    of = LanguageTrainer(model(), tokenizer(), config(), seed=0, processes=two)
    with pytest.raises(UserError, match="got 3, wanted a multiple of 2"):
        of.collect(["a", "b", "c"])
