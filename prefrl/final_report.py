"""`report/index.html`: what a run has learned, and what its reward model gets most surely wrong."""

from __future__ import annotations

import html
import logging
import math
import os
from pathlib import Path

from PIL import Image

from envs import TaskError, find_task
from prefrl.errors import UserError
from prefrl.feedback import FeedbackStore
from prefrl.film import check_drawing
from prefrl.loop.mistakes import certain_mistakes, learned_from
from prefrl.loop.report import Summary, summarise, write_learning_curves
from prefrl.loop.rundir import RunDir
from prefrl.loop.storyboard import Story, strip
from prefrl.query_films import tell, write_film
from prefrl.rewards import RewardModel

log = logging.getLogger(__name__)

MISTAKES = 4  # each is drawn and filmed: some seconds of a game


def write_report(run: RunDir, *, films: bool = True) -> Path:
    """Draw the curves, film the most certain mistakes, and put both on a page.

    Args:
        films: False: the curves and figures alone.

    Raises:
        UserError: nothing has been logged yet.
    """
    write_learning_curves(run)
    summary = summarise(run)
    stories = _mistakes(run) if films else []
    report = run.path / "report"
    for old in (report / "mistakes").glob("*.mp4"):
        old.unlink()
    (report / "mistakes.png").unlink(missing_ok=True)
    if stories:
        _save(Image.fromarray(strip(stories)), report / "mistakes.png")
    names = [f"{number:02}-{story.id[:12]}.mp4" for number, story in enumerate(stories, 1)]
    for name, story in zip(names, stories, strict=True):
        write_film(story, report / "mistakes" / name)
    path = report / "index.html"
    temporary = path.with_name(".index.html.part")
    temporary.write_text(_page(run, summary, stories, names))
    os.replace(temporary, path)
    return path


def _mistakes(run: RunDir) -> list[Story]:
    """The stories of what the reward model gets wrong, the surest first."""
    if not (run.path / "labels.db").is_file():
        return []
    with FeedbackStore.open(run.path) as store:
        model = RewardModel.load_if_any(run.path)
        if model is None:
            return []
        learned = learned_from(run.path, store)
        answers = store.labels(after=0)
        wrong = certain_mistakes(model, store, answers, count=MISTAKES, learned=learned)
        try:
            check_drawing(find_task(store.task))
            return [
                tell(store, x.label.query, model, about=x.label, learned=learned) for x in wrong
            ]
        except (UserError, TaskError) as error:
            log.warning("no films of mistakes: %s", " ".join(str(error).split()))
            return []


def _save(picture: Image.Image, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.part")
    picture.save(temporary, format="png", optimize=True)
    os.replace(temporary, path)


def _page(run: RunDir, summary: Summary, stories: list[Story], names: list[str]) -> str:
    title = html.escape(f"{summary.task}, {summary.rater}, seed {summary.seed}")
    figures = "".join(
        f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>"
        for name, value in _figures(summary).items()
    )
    links = [
        f'<a href="{path}">{name}</a>'
        for path, name in (
            ("../videos/final.mp4", "film of the final policy"),
            ("raters.html", "how well the raters rate"),
            ("../config.toml", "settings"),
        )
        if (run.path / "report" / path).resolve().is_file()
    ]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.2rem 1rem .2rem 0;text-align:left}}
img,video{{max-width:100%}}figure{{margin:1rem 0}}</style>
<h1>{title}</h1><table>{figures}</table><p>{" &middot; ".join(links)}</p>
<img alt="Learning curves" src="learning.png">
{_mistakes_section(stories, names)}</html>
"""


def _figures(summary: Summary) -> dict[str, str]:
    return {
        "steps": f"{summary.step:,} of {summary.steps:,}",
        "labels": f"{summary.labels:,}",
        "true return": _number(summary.true_return, "{:.1f}"),
        "hold-out accuracy": _number(summary.holdout, "{:.0%}"),
        "minutes": f"{summary.minutes:.1f}",
    }


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)


def _mistakes_section(stories: list[Story], names: list[str]) -> str:
    if not stories:
        return ""
    films = "".join(
        f'<figure><video controls loop muted preload="metadata" src="mistakes/{name}"></video>'
        f"<figcaption>{html.escape('; '.join(story.lines))}</figcaption></figure>"
        for story, name in zip(stories, names, strict=True)
    )
    return f"""<h2>The reward model's most certain mistakes</h2>
<p>Of the newest comparisons those that its members get wrong most surely, each asked of members
that never saw the answer. Below each clip: its learned and true return.</p>
<img alt="Frames of the mistaken pairs" src="mistakes.png">{films}"""
