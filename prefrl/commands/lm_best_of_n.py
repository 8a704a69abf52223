"""`prefrl lm best-of-n`: what choosing the best of n completions by a reward model gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrl.commands.lm_source import load_policy, model_in, task_or_data
from prefrl.commands.parse import parse
from prefrl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from prefrl.language.evaluate import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNArgs:
    """Draw N completions of each prompt, keep the best, and estimate the reward for every n.

    Writes chosen.jsonl (prompt, completion, reward), best_of_n.json and best_of_n.png.
    """

    model: str = ""
    """The policy: a run of `prefrl lm sft|ppo|online|dpo`, or a checkpoint by path or name."""
    reward: str = ""
    """The run of `prefrl lm reward`, or a classifier of one label by path or name."""
    task: str = ""
    """A task, whose gold reward is reported too: reviews, docstrings."""
    data: Path | None = None
    """Prompts: JSON lines or Parquet with a column prompt."""
    samples: int = 64
    """N, completions of each prompt."""
    prompts: int = 50
    """The first so many; those a task holds out."""
    max_completion: int = 512
    """Tokens; a task has its own."""
    temperature: float = 1.0
    """Of sampling."""
    seed: int = 0
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or auto: cuda where there is one."""
    offline: bool = False
    """Fetch nothing; checkpoints must be on this machine."""
    out: Path | None = None
    """An empty or new directory. Default: runs/STAGE-NAME-TIME."""

    def __post_init__(self) -> None:
        for name in ("samples", "prompts", "max_completion"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        if not self.temperature > 0:
            raise UserError(f"temperature: got {self.temperature}, wanted more than 0")


def main(args: list[str], *, prog: str) -> None:
    """Check everything, sample, score, write."""
    given = parse(BestOfNArgs, args, prog=prog, default=BestOfNArgs())
    if not given.model or not given.reward:
        raise UserError(f"wanted `{prog} --model RUN --reward RUN`, a policy and a reward model")
    from prefrl.commands.lm_stage import default_directory
    from prefrl.language.data import chat_template, read_prompts
    from prefrl.language.models import check_room
    from prefrl.language.reward import load_text_reward, score_texts
    from prefrl.language.tokenizer import load_tokenizer
    from prefrl.loop.hardware import choose_device

    task = task_or_data(given.task, given.data)
    policy, tokenizer = load_policy(given.model, device=given.device, offline=given.offline)
    where = model_in(given.reward)
    learned = load_text_reward(where, offline=given.offline).to(choose_device(given.device))
    reads = load_tokenizer(where, offline=given.offline)
    if task is not None:
        prompts = list(task.held_out_prompts)
    else:
        assert given.data is not None
        prompts = read_prompts(given.data, template=chat_template(tokenizer))
    prompts = prompts[: given.prompts]
    cap = given.max_completion if task is None else task.max_completion
    check_room(policy, tokenizer, prompts, cap=cap, name="model")
    learned.check_room(reads, prompts, cap=cap)
    out = given.out or default_directory("best-of-n", given.task or str(given.data))
    new_directory(out)
    said = _samples(given, policy, tokenizer, prompts, cap)
    scores = (
        score_texts(learned, reads, said.pairs).cpu().double().numpy().reshape(len(prompts), -1)
    )
    gold = None if task is None else said.gold(task.gold).reshape(scores.shape)
    _write(out, said, scores, gold)


def new_directory(out: Path) -> None:
    """Raises UserError where something lies there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty: give a new directory as --out")
    out.mkdir(parents=True, exist_ok=True)


def _samples(
    given: BestOfNArgs, policy: Any, tokenizer: Any, prompts: list[str], cap: int
) -> Samples:
    import torch

    from prefrl.language.evaluate import sample
    from prefrl.language.policy import Sampling

    return sample(
        policy,
        [prompt for prompt in prompts for _ in range(given.samples)],
        tokenizer=tokenizer,
        sampling=Sampling(temperature=given.temperature, never_said=tokenizer.never_said),
        max_completion=cap,
        generator=torch.Generator().manual_seed(given.seed),
    )


def _write(out: Path, said: Samples, scores: np.ndarray, gold: np.ndarray | None) -> None:
    import numpy as np

    from prefrl.language.best_of_n import best_of_n, best_of_n_kl

    N = scores.shape[1]
    sizes = [n for i in range(20) if (n := 2**i) <= N]
    rows = []
    by_score = best_of_n(scores, scores, sizes).mean(0)
    by_gold = None if gold is None else best_of_n(scores, gold, sizes).mean(0)
    for i, n in enumerate(sizes):
        row = {"n": n, "kl": best_of_n_kl(n), "learned": float(by_score[i])}
        rows.append(row if by_gold is None else {**row, "gold": float(by_gold[i])})
    (out / "best_of_n.json").write_text(json.dumps(rows, indent=1) + "\n")
    with (out / "chosen.jsonl").open("w") as file:
        for p, best in enumerate(np.argmax(scores, 1)):
            place = p * N + int(best)
            text = said.completions[place].text
            chosen = {"prompt": said.prompts[place], "completion": text,
                      "reward": float(scores[p, best])}  # fmt: skip
            file.write(json.dumps(chosen) + "\n")
    _draw(out / "best_of_n.png", rows)
    for row in rows:
        print("  ".join(f"{k} {v:.3g}" for k, v in row.items()))
    print(out)


def _draw(path: Path, rows: list[dict[str, float]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    for name, colour in (("learned", "#D55E00"), ("gold", "#0072B2")):
        if name in rows[0]:
            ax.plot([r["n"] for r in rows], [r[name] for r in rows], "o-", color=colour, label=name)
    ax.set_xscale("log", base=2)
    ax.set(xlabel="n", ylabel="reward of the best of n", title="Best of n by the learned reward")
    ax.grid(color="#e2e2e2")
    ax.legend(frameon=False)
    figure.savefig(path)
