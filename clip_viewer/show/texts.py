"""Texts on the screen: a prompt and completions side by side, or one that is being edited."""

from __future__ import annotations

import pygame
from pygame import Rect

from ..control.material import Broken
from ..control.views import EditBody, QuestionBody
from . import theme
from .clips import (
    below_height,
    border_colour,
    draw_asked,
    draw_below,
    draw_flash,
    draw_rank,
    pick,
)
from .pen import BODY, SMALL, Pen, spans, wrap
from .ranks import draw_dragged

PROMPT = -1  # its number among the panes
HEAD = 40  # of a text that is to be ranked: its number and its rank


def draw_texts(pen: Pen, area: Rect, body: QuestionBody) -> None:
    """The prompt above, the texts side by side below; a scale or a row of ranks last."""
    top, tall = draw_asked(pen, area, body), below_height(pen, area, body)
    below = Rect(area.left, top, area.width, max(area.bottom - tall - top, 1))
    below = _draw_prompt(pen, below, body.prompt, body.prompt_scroll)
    gap, count = pen.px(18), len(body.panes)
    width = max((below.width - gap * (count - 1)) // count, 1)
    cells = [
        Rect(below.left + i * (width + gap), below.top, width, below.height) for i in range(count)
    ]
    for place, cell in enumerate(cells):
        _draw_text(pen, cell.inflate(-pen.px(8), -pen.px(8)), place, body)
    draw_below(pen, Rect(area.left, area.bottom - tall, area.width, tall), body)
    draw_flash(pen, below, cells, body)
    draw_dragged(pen, cells, body)


def _draw_prompt(pen: Pen, area: Rect, prompt: str | None, scroll: int) -> Rect:
    """Returns what is left below it."""
    if not prompt or area.height < pen.px(200):
        return area
    inner = area.width - pen.px(40)
    lines = len(wrap(prompt, pen.size(BODY), inner))
    tall = min(lines * pen.line(BODY) + pen.px(24), round(area.height * 0.32))
    panel = Rect(area.left + pen.px(4), area.top, area.width - pen.px(8), tall)
    pen.panel(panel, theme.GROUND, border=theme.LINE)
    scrolled(pen, panel, PROMPT, prompt, scroll, colour=theme.DIM)
    rest = panel.bottom + pen.px(8)
    return Rect(area.left, rest, area.width, max(area.bottom - rest, 1))


def _draw_text(pen: Pen, area: Rect, place: int, body: QuestionBody) -> None:
    pane = body.panes[place]
    material = pane.material
    hovered = body.form != "rating" and pen.zone(area, pick(place))
    colour = theme.TEXT if hovered else border_colour(pane, body)
    pen.panel(area, theme.PANEL, border=colour, thick=3, radius=8)
    head = pen.px(HEAD) if body.form == "ranking" else 0
    under = Rect(area.left, area.top + head, area.width, max(area.height - head, 1))
    if isinstance(material, str):
        scrolled(pen, under, place, material or "(nothing)", pane.scroll)
    else:
        said = material.reason if isinstance(material, Broken) else "on its way"
        pen.paragraph(said, under.inflate(-pen.px(40), -pen.px(40)), colour=theme.FAINT)
    if body.form == "ranking":
        draw_rank(pen, area, place, pane)
    elif body.form == "comparison":
        side = area.left + 1 if place == 0 else area.right - 2
        pen.mark(pane.mark, (side, area.centery), pen.px(13))


def scrolled(
    pen: Pen,
    area: Rect,
    number: int,
    text: str,
    scroll: int,
    *,
    colour: theme.Colour = theme.TEXT,
) -> None:
    """A text in a panel, from line `scroll` on, with a bar that says how much there is."""
    inner = area.inflate(-pen.px(40), -pen.px(24))
    step = pen.line(BODY)
    lines = wrap(text, pen.size(BODY), max(inner.width, 1))
    rows = max(inner.height // step, 1)
    most = max(len(lines) - rows, 0)
    scroll = min(scroll, most)
    for row, line in enumerate(lines[scroll : scroll + rows]):
        pen.text(line, (inner.left, inner.top + row * step + step // 2), colour=colour)
    pen.drawn.panes.append((area, number))
    pen.drawn.limits[number] = most
    if most:
        _draw_bar(pen, area, scroll / len(lines), rows / len(lines))
    if theme.missing(text):
        said = "? stands for characters that this font lacks"
        at = (area.right - pen.px(16), area.bottom - pen.px(14))
        pen.text(said, at, height=SMALL, colour=theme.ORANGE, anchor="right")


def _draw_bar(pen: Pen, area: Rect, start: float, share: float) -> None:
    rail = Rect(area.right - pen.px(12), area.top + pen.px(10), pen.px(5), area.height - pen.px(20))
    pen.panel(rail, theme.LINE, radius=3)
    thumb = Rect(rail.left, 0, rail.width, max(round(rail.height * share), pen.px(12)))
    thumb.top = rail.top + round(rail.height * start)
    pen.panel(thumb, theme.FAINT, radius=3)


def draw_edit(pen: Pen, area: Rect, body: EditBody) -> None:
    """The text with its cursor, which stays in sight."""
    y = area.top + pen.line(24) // 2
    pen.text(body.question, (area.centerx, y), height=24, anchor="centre")
    top = y + pen.line(24) // 2 + pen.px(8)
    below = Rect(area.left, top, area.width, max(area.bottom - top, 1))
    below = _draw_prompt(pen, below, body.prompt, body.prompt_scroll)
    panel = below.inflate(-pen.px(8), -pen.px(8))
    border = theme.GREEN if body.changed else theme.SKY
    pen.panel(panel, theme.PANEL, border=border, thick=3, radius=8)
    _draw_lines(pen, panel, body)
    if body.flash is not None:
        pen.veil(panel, 150)
        radius = pen.px(30)
        pen.disc(panel.center, radius, theme.GREEN)
        pen.tick(panel.center, round(radius * 0.8), theme.WHITE)
        under = (panel.centerx, panel.centery + pen.px(60))
        pen.text(body.flash.text, under, height=24, anchor="centre")


def _draw_lines(pen: Pen, panel: Rect, body: EditBody) -> None:
    inner = panel.inflate(-pen.px(40), -pen.px(28))
    step, size = pen.line(BODY), pen.size(BODY)
    lines = spans(body.text, size, max(inner.width, 1))
    row = max(i for i, (start, _) in enumerate(lines) if start <= body.cursor)
    rows = max(inner.height // step, 1)
    first = min(max(row - rows // 2, 0), max(len(lines) - rows, 0))
    for i, (start, stop) in enumerate(lines[first : first + rows]):
        y = inner.top + i * step + step // 2
        pen.text(body.text[start:stop], (inner.left, y))
        if first + i == row:
            before = body.text[start : min(body.cursor, stop)]
            draw_cursor(pen, (inner.left + theme.width(before, size), y))
    if len(lines) > rows:
        _draw_bar(pen, panel, first / len(lines), rows / len(lines))


def draw_cursor(pen: Pen, at: tuple[int, int]) -> None:
    """Where the next character goes."""
    bar = Rect(0, 0, max(pen.px(2), 2), pen.line(BODY) - pen.px(4))
    bar.midleft = at
    pygame.draw.rect(pen.surface, theme.SKY, bar)
