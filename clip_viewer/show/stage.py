"""The whole window: header, middle, legend."""

from __future__ import annotations

import pygame
from pygame import Rect

from ..control.views import Body, EditBody, FormBody, NoteBody, PageBody, View
from . import theme
from .chrome import draw_header, draw_legend, draw_toast, legend_height
from .clips import draw_question
from .pages import draw_form, draw_note, draw_page
from .pen import Drawn, Pen
from .texts import draw_edit, draw_texts


def draw(
    surface: pygame.Surface,
    view: View,
    *,
    scale: float,
    pointer: tuple[int, int] | None,
    dragged: int | None = None,
) -> Drawn:
    """Draw a view; returns where a click, a drag or the wheel means what."""
    pen = Pen(surface, scale=scale, pointer=pointer, dragged=dragged)
    surface.fill(theme.GROUND)
    middle, legend = _split(pen, view)
    if view.header is not None:
        top = Rect(middle.left, 0, middle.width, pen.px(42))
        draw_header(pen, top, view.header)
    _draw_body(pen, middle, view.body)
    if view.over is not None:
        pen.veil(surface.get_rect(), 215)
        pen.drawn = Drawn()  # nothing below can be clicked
        _draw_over(pen, middle, view.over)
    draw_legend(pen, legend, view.hints)
    if view.toast:
        draw_toast(pen, middle, view.toast)
    return pen.drawn


def _split(pen: Pen, view: View) -> tuple[Rect, Rect]:
    """The middle and the legend, with a margin around."""
    width, height = pen.surface.get_size()
    margin = pen.px(24)
    inner = max(width - 2 * margin, 1)
    top = pen.px(44) if view.header is not None else pen.px(16)
    tall = legend_height(pen, view.hints, inner)
    bottom = max(height - tall - pen.px(10), top + 1)
    middle = Rect(margin, top, inner, max(bottom - pen.px(8) - top, 1))
    return middle, Rect(margin, bottom, inner, tall)


def _draw_body(pen: Pen, area: Rect, body: Body) -> None:
    if isinstance(body, PageBody):
        draw_page(pen, area, body)
    elif isinstance(body, FormBody):
        draw_form(pen, area, body)
    elif isinstance(body, EditBody):
        draw_edit(pen, area, body)
    elif any(isinstance(pane.material, str) for pane in body.panes):
        draw_texts(pen, area, body)
    else:
        draw_question(pen, area, body)


def _draw_over(pen: Pen, area: Rect, over: NoteBody | PageBody) -> None:
    if isinstance(over, NoteBody):
        draw_note(pen, area, over)
    else:
        draw_page(pen, area, over)
