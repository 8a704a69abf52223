"""TRL's RewardTrainer and DPOTrainer on the model and the pairs of `language_speed.py`.

Needs `pip install trl`, which prefrl itself does not.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from prefrl.language.models import save_model
from prefrl.language.optimise import OptimConfig
from prefrl.language.records import Preference, TextLabel
from prefrl.language.tokenizer import Tokenizer


def trl_works(
    model: nn.Module, tokenizer: Tokenizer, labels: Sequence[TextLabel], optim: OptimConfig
) -> dict[str, Callable[[], object]]:
    """What TRL is asked to do; datasets are tokenized beforehand, as ours are.

    Gradient checkpointing is off and arithmetic is float32, both against TRL's defaults, which
    would slow it down on a CPU.
    """
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    with tempfile.TemporaryDirectory() as folder:
        save_model(model, tokenizer, Path(folder))
        common = {
            "output_dir": folder,
            "per_device_train_batch_size": optim.batch,
            "num_train_epochs": optim.epochs,
            "learning_rate": optim.lr,
            "lr_scheduler_type": "linear",
            "max_grad_norm": optim.max_grad_norm,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "logging_strategy": "no",
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
        }
        reward = RewardTrainer(
            model=folder,  # which TRL loads with one number on top
            args=RewardConfig(
                **common,
                model_init_kwargs={"dtype": "float32"},
                pad_token=tokenizer.backend.pad_token,
            ),
            train_dataset=_dataset(labels),
            processing_class=tokenizer.backend,
        )
        direct: dict[str, Any] = {
            name: DPOTrainer(
                model=copy.deepcopy(model),
                ref_model=copy.deepcopy(model),
                args=DPOConfig(**common, beta=0.1, precompute_ref_log_probs=ahead),
                train_dataset=_dataset(labels),
                processing_class=tokenizer.backend,
            )
            for name, ahead in (("trl_dpo", False), ("trl_dpo_reference_ahead", True))
        }
    return {"trl_reward": reward.train} | {name: of.train for name, of in direct.items()}


def _dataset(labels: Sequence[TextLabel]) -> Any:
    from datasets import Dataset

    rows = []
    for label in labels:
        assert isinstance(label.verdict, Preference)
        first, second = (f" {completion.text}" for completion in label.completions)
        chosen, rejected = (second, first) if label.verdict.second > 0.5 else (first, second)
        rows.append({"prompt": label.prompt, "chosen": chosen, "rejected": rejected})
    return Dataset.from_list(rows)
