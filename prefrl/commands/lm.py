"""`prefrl lm STAGE ...`: the stages of a language model, each a command of its own."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from prefrl.errors import UserError, nearest

STAGES = {
    "sft": "imitate demonstrations",
    "reward": "learn what is preferred",
    "ppo": "optimise the learned reward: PPO, RLOO or GRPO",
    "online": "both in turn, round by round: labels from the policy as it is",
    "dpo": "fit the policy to preferences directly: DPO, IPO, KTO",
    "best-of-n": "choose the best of n completions",
    "generate": "complete prompts",
    "judge": "have a language model compare completions by a constitution",
    "eval": "reward, win rate, KL and length of a policy",
}


def main(args: list[str], *, prog: str) -> None:
    """Load the stage that is asked for."""
    stage = args[0] if args else "--help"
    if stage in ("-h", "--help"):
        print(usage(prog))
        return
    if stage not in STAGES:
        hint = nearest(stage, STAGES) or f"known: {', '.join(STAGES)}"
        raise UserError(f"unknown stage {stage!r}; {hint}")
    if find_spec("transformers") is None:
        raise UserError("language models need the extra packages: pip install 'prefrl[language]'")
    module = importlib.import_module(f"prefrl.commands.lm_{stage.replace('-', '_')}")
    module.main(args[1:], prog=f"{prog} {stage}")


def usage(prog: str) -> str:
    """What `prefrl lm --help` prints."""
    lines = [f"  {name:<10} {about}" for name, about in STAGES.items()]
    return "\n".join(
        [
            f"usage: {prog} STAGE ...",
            "",
            "Language models from demonstrations to a policy, in this order:",
            "",
            *lines,
            "",
            f"`{prog} STAGE --help` shows its options; docs/language.md tells the whole.",
        ]
    )
