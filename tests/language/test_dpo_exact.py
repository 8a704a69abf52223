"""DPO against the enumerated optimum of *Exact*."""

import copy

import torch
from torch import Tensor

from prefrl.language.dpo import DirectConfig, direct_loss
from prefrl.language.models import logprobs
from prefrl.language.policy import Sampling
from prefrl.language.records import Completion, Preference, TextLabel
from prefrl.language.tasks.exact import (
    exact_task,
    optimum,
    reference_model,
    sequence_logp,
    total_variation,
)
from prefrl.language.verdicts import read_verdicts


def population(reward: Tensor, pairs: Tensor) -> list[TextLabel]:
    """Soft labels: the probability with which a Bradley-Terry rater prefers the second."""
    both = (Completion(text="a"), Completion(text="b"))
    p = torch.sigmoid(reward[pairs[:, 1]] - reward[pairs[:, 0]])
    return [TextLabel(prompt="", completions=both, verdict=Preference(second=float(x))) for x in p]


def test_dpo_on_population_pairs_reaches_the_optimum() -> None:
    # 4 symbols, at most 2 tokens: 21 completions, a ring of 21 pairs and 21 chords
    task = exact_task(symbols=4, length=2, seed=0)
    sampling = Sampling(temperature=1.0, never_said=tuple(
        i for i in range(task.tokenizer.size)
        if i not in (*task.symbols, task.tokenizer.eos)
    ))  # fmt: skip
    policy = reference_model(task, width=32, seed=0)
    reference = sequence_logp(policy, task, sampling)
    best = optimum(reference, task.reward, beta=1.0)
    assert total_variation(reference, best) > 0.2  # there is something to learn

    N = len(task.completions)
    ring = torch.arange(N)
    pairs = torch.cat([torch.stack([ring, (ring + k) % N], 1) for k in (1, 5)])
    verdicts = read_verdicts(population(task.reward, pairs))
    policy = copy.deepcopy(policy)
    config, steps = DirectConfig(beta=1.0), 300
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        logp = logprobs(policy, task.completions, never_said=sampling.never_said).sum(1)
        loss = direct_loss((logp - reference)[pairs.flatten()], verdicts, config).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    got = sequence_logp(policy, task, sampling)
    assert total_variation(got, best) <= 0.005
