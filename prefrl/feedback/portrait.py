"""Raters as one picture and one page: `raters.png` and a `raters.html` that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prefrl.feedback.agreement import Interval, Share
from prefrl.feedback.quality import Quality, RaterQuality
from prefrl.feedback.records import Label

# Okabe and Ito 2008: told apart with any colour vision; shapes differ as well
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = "#666666"
COLUMNS = (
    "rater", "answers", "per hour", "seconds", "left", "ties", "gold", "repeats", "as others",
    "kappa", "skips", "flags", "look at",
)  # fmt: skip


def cells(one: RaterQuality) -> tuple[str, ...]:
    """A rater as a row under `COLUMNS`."""
    return (
        one.name,
        f"{one.answers:,}",
        _number(one.per_hour, ".0f"),
        _number(one.seconds[1], ".1f"),
        share_text(one.left),
        share_text(one.ties),
        share_text(one.gold),
        share_text(one.repeats),
        share_text(one.others),
        interval_text(one.kappa),
        str(one.skips),
        str(one.flags),
        "; ".join(one.warnings) or "-",
    )


def share_text(share: Share) -> str:
    """Per cent with its interval.

    >>> share_text(Share.of(17, 20))
    '85 % (64-95)'
    """
    if not share.n:
        return "-"
    low, middle, high = (round(100 * x) for x in (share.low, share.value, share.high))
    return f"{middle} % ({low}-{high})"


def interval_text(interval: Interval) -> str:
    """A figure with its interval."""
    if math.isnan(interval.value):
        return "-"
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def agreement_text(quality: Quality) -> str:
    """One line about all raters together."""
    rated = ""
    if not math.isnan(quality.alpha_ratings.value):
        rated = f"Of ratings alpha is {interval_text(quality.alpha_ratings)} (ordinal)."
    if not quality.raw.n:
        nothing = "Nobody has answered the same comparison as another: agreement is not known."
        return rated or nothing
    compared = (
        f"Raw agreement {share_text(quality.raw)} of {quality.raw.n:,} pairs of answers; "
        f"Krippendorff's alpha {interval_text(quality.alpha)}, which takes chance off: raters who "
        "are right 85 % of the time agree on 74 % and have an alpha of about .47."
    )
    return f"{compared} {rated}".strip()


def write_picture(quality: Quality, labels: Sequence[Label], path: Path) -> Path:
    """Draw all raters: rates with intervals, response times, agreement and errors over time."""
    raters = quality.raters
    figure = Figure(figsize=(13, 4.6 + 0.5 * len(raters)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    rates = (("gold", "Right on gold", 0.75), ("repeats", "As before on repeats", 0.6),
             ("others", "As others", 0.5), ("left", "For the clip on the left", 0.5))  # fmt: skip
    colours = (GREEN, PURPLE, BLUE, ORANGE)
    for ax, (name, title, line), colour in zip(axes.flat, rates, colours, strict=False):
        _draw_shares(ax, raters, name, title, line, colour)
    _draw_seconds(axes.flat[4], raters)
    _draw_pace(axes.flat[5], raters, labels)
    figure.suptitle("Raters", fontsize=15, fontweight="bold", x=0.01, ha="left")
    return _save(path, lambda file: figure.savefig(file, format="png"))


def write_page(quality: Quality, picture: Path, path: Path, *, title: str) -> Path:
    """A page with the table and the picture in it; names and notes are text, never markup."""
    image = base64.b64encode(picture.read_bytes()).decode()
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in cells(one)) + "</tr>"
        for one in quality.raters
    )
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
style-src 'unsafe-inline'"><title>{html.escape(title)}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:90rem}}
table{{border-collapse:collapse;margin:1rem 0}}td,th{{padding:.35rem .7rem;text-align:left;
border-bottom:1px solid #ddd;vertical-align:top}}img{{max-width:100%}}</style>
<h1>{html.escape(title)}</h1><p>{html.escape(agreement_text(quality))}</p>
<table><tr>{head}</tr>{rows}</table><img alt="Rates, response times and pace of each rater"
src="data:image/png;base64,{image}"></html>
"""
    return _save(path, lambda file: file.write(page.encode()))


def _draw_shares(
    ax: Axes, raters: Sequence[RaterQuality], name: str, title: str, line: float, colour: str
) -> None:
    for y, one in enumerate(raters):
        share: Share = getattr(one, name)
        if share.n:
            ax.plot([share.low, share.high], [y, y], color=colour, lw=2.5, alpha=0.5)
            ax.plot(share.value, y, marker="D" if one.warnings else "o", color=colour, ms=7)
    ax.axvline(line, color=GREY, ls=":", lw=1)
    _by_rater(ax, raters, title)
    ax.set_xlim(-0.03, 1.03)


def _draw_seconds(ax: Axes, raters: Sequence[RaterQuality]) -> None:
    for y, one in enumerate(raters):
        low, middle, high = one.seconds
        if not math.isnan(middle):
            ax.plot([low, high], [y, y], color=GREY, lw=6, alpha=0.4)
            ax.plot(middle, y, marker="|", color="black", ms=14, mew=2)
    _by_rater(ax, raters, "Seconds to answer (quartiles)")
    ax.set_xlim(left=0)


def _draw_pace(ax: Axes, raters: Sequence[RaterQuality], labels: Sequence[Label]) -> None:
    """Answers over time, a line for each rater."""
    styles, names = ("-", "--", ":", "-."), []
    for i, one in enumerate(raters):
        times = [x.time for x in labels if x.rater == one.name and x.time is not None]
        if times:
            hours = (np.array(times) - times[0]) / 3600
            counts = np.arange(1, len(times) + 1)
            colour = (BLUE, ORANGE, GREEN, PURPLE)[i % 4]
            ax.plot(hours, counts, color=colour, ls=styles[i // 4 % 4], label=f"rater {i}")
            names.append(one.name[:24])
    ax.set_title("Answers since each rater's first", loc="left", fontsize=11)
    ax.set_xlabel("hours")
    if ax.lines:
        legend = ax.legend(fontsize=9, framealpha=0.8, edgecolor="none")
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_parse_math(False)
            text.set_text(name)  # as a label, a name that begins with _ would be left out
    ax.spines[["top", "right"]].set_visible(False)


def _by_rater(ax: Axes, raters: Sequence[RaterQuality], title: str) -> None:
    names = [one.name[:24] for one in raters]
    ax.set_yticks(range(len(raters)), names, parse_math=False)  # a name may hold a $
    ax.set_ylim(len(raters) - 0.5, -0.5)
    ax.set_title(title, loc="left", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", color="#e2e2e2", lw=0.8)
    ax.set_axisbelow(True)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _save(path: Path, write: Callable[[io.BytesIO], object]) -> Path:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    box = io.BytesIO()
    write(box)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(box.getvalue())
    os.replace(temporary, path)
    return path
