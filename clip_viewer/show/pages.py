"""Pages of text, each with a picture; the sign-in; a note over a question."""

from __future__ import annotations

from pygame import Rect

from ..control.views import FormBody, NoteBody, PageBody
from . import theme
from .pen import BODY, LARGE, SMALL, TITLE, Pen, balanced, wrap
from .texts import draw_cursor

COLUMN = 760  # units of width
PICTURE, FIGURES, SHARES = 110, 100, 110  # units of height
COLOURS: dict[str, theme.Colour] = {
    "instructions": theme.SKY,
    "waiting": theme.SKY,
    "break": theme.ORANGE,
    "pause": theme.YELLOW,
    "summary": theme.GREEN,
    "trouble": theme.VERMILION,
}


def draw_page(pen: Pen, area: Rect, body: PageBody) -> None:
    """Picture, title, paragraphs, figures, in the middle; less where there is no room."""
    column = Rect(0, 0, min(area.width, pen.px(COLUMN)), area.height)
    column.midtop = area.midtop
    lines = _lines(pen, body, column.width)
    height = _height(pen, body, lines)
    y = column.top + max((column.height - height) // 2, 0)
    if height <= column.height:
        _draw_picture(pen, (column.centerx, y + pen.px(44)), body)
        y += pen.px(PICTURE)
    y = _draw_title(pen, column, y, body.title)
    y = _draw_paragraphs(pen, Rect(column.left, y, column.width, column.bottom - y), body, lines)
    _draw_figures(pen, Rect(column.left, y, column.width, max(column.bottom - y, 1)), body)


def _lines(pen: Pen, body: PageBody, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in body.paragraphs:
        broken = wrap if body.kind == "instructions" else balanced
        lines += [*([""] if lines else []), *broken(paragraph, pen.size(BODY), width)]
    return lines


def _height(pen: Pen, body: PageBody, lines: list[str]) -> int:
    """Of everything, the picture included."""
    head = pen.px(PICTURE) + pen.line(TITLE) + pen.px(16)
    figures = (pen.px(FIGURES) if body.rows else 0) + (pen.px(SHARES) if body.shares else 0)
    return head + len(lines) * pen.line(BODY) + figures


def _draw_title(pen: Pen, column: Rect, y: int, title: str) -> int:
    middle = (column.centerx, y + pen.line(TITLE) // 2)
    pen.text(title, middle, height=TITLE, anchor="centre", within=column.width)
    return y + pen.line(TITLE) + pen.px(16)


def _draw_paragraphs(pen: Pen, area: Rect, body: PageBody, lines: list[str]) -> int:
    step = pen.line(BODY)
    rows = max(area.height // step, 1)
    most = max(len(lines) - rows, 0)
    scroll = min(body.scroll, most)
    pen.drawn.panes.append((area, 0))
    pen.drawn.limits[0] = most
    y = area.top
    centred = body.kind != "instructions"
    for line in lines[scroll : scroll + rows]:
        at = (area.centerx if centred else area.left, y + step // 2)
        pen.text(line, at, colour=theme.DIM, anchor="centre" if centred else "left")
        y += step
    return y


def _draw_figures(pen: Pen, area: Rect, body: PageBody) -> None:
    y = area.top + pen.px(20)
    if body.rows and y + pen.px(70) <= area.bottom:
        width = area.width // len(body.rows)
        for i, (name, value) in enumerate(body.rows):
            x = area.left + i * width + width // 2
            pen.text(value, (x, y + pen.px(24)), height=TITLE, anchor="centre")
            under = (x, y + pen.px(60))
            pen.text(name, under, height=SMALL, colour=theme.FAINT, anchor="centre")
        y += pen.px(FIGURES)
    if body.shares and y + pen.px(66) <= area.bottom:
        _draw_shares(pen, Rect(area.left, y, area.width, pen.px(100)), body)


def _draw_shares(pen: Pen, area: Rect, body: PageBody) -> None:
    """A bar in the colours of the answers, and what each part means."""
    x, bar = area.left, pen.px(14)
    for mark, _, share in body.shares:
        part = Rect(x, area.top + pen.px(6), round(area.width * share), bar)
        if part.width > 2:
            pen.panel(part.inflate(-2, 0), theme.MARKS[mark], radius=4)
        x += part.width
    width = area.width // len(body.shares)
    for i, (mark, name, share) in enumerate(body.shares):
        middle = area.left + i * width + width // 2
        text = f"{name} {share:.0%}"
        left = middle - (pen.wide(text, SMALL) + pen.px(28)) // 2
        y = area.top + bar + pen.px(36)
        pen.mark(mark, (left + pen.px(9), y), pen.px(9))
        pen.text(text, (left + pen.px(28), y), height=SMALL, colour=theme.DIM)


def _draw_picture(pen: Pen, centre: tuple[int, int], body: PageBody) -> None:
    colour, r = COLOURS[body.kind], pen.px(36)
    if body.kind == "waiting":
        for i in (-1, 0, 1):
            lit = (body.tick % 3) - 1 == i
            radius = pen.px(11 if lit else 8)
            pen.disc((centre[0] + i * pen.px(40), centre[1]), radius, colour if lit else theme.LINE)
    elif body.kind == "instructions":
        draw_emblem(pen, centre)
    elif body.kind == "trouble":
        pen.polygon(((0, -1), (1.1, 0.9), (-1.1, 0.9)), centre, r, colour)
        at = (centre[0], centre[1] + pen.px(10))
        pen.text("!", at, height=TITLE, colour=theme.WHITE, anchor="centre")
    else:
        pen.disc(centre, r, colour)
        if body.kind == "summary":
            pen.tick(centre, round(r * 0.8), theme.WHITE)
        elif body.kind == "pause":
            pen.bars(centre, round(r * 0.8), theme.GROUND, upright=True)
        else:  # a moon, for a rest
            moved = (centre[0] + round(r * 0.45), centre[1] - round(r * 0.3))
            pen.disc(moved, round(r * 0.82), theme.GROUND)


def draw_emblem(pen: Pen, centre: tuple[int, int]) -> None:
    """Two clips, one in each colour."""
    for side, mark in ((-1, "left"), (1, "right")):
        clip = Rect(0, 0, pen.px(64), pen.px(80))
        clip.center = (centre[0] + side * pen.px(40), centre[1])
        colour = theme.MARKS[mark]  # type: ignore[index]
        pen.panel(clip, theme.PANEL, border=colour, thick=3, radius=8)
        pen.mark(mark, clip.center, pen.px(15))  # type: ignore[arg-type]


def draw_form(pen: Pen, area: Rect, body: FormBody) -> None:
    """A name, and what one agrees to, which must be there in full: the rest gives way."""
    column = Rect(0, 0, min(area.width, pen.px(COLUMN)), area.height)
    column.midtop = area.midtop
    fixed = pen.px(90) + pen.line(SMALL)
    text: float = BODY
    if fixed + _consent_height(pen, body, column.width, BODY) > column.height:
        text = SMALL
    spare = column.height - fixed - _consent_height(pen, body, column.width, text)
    title, picture = pen.line(TITLE) + pen.px(16), pen.px(PICTURE)
    y = column.top
    if spare >= title + picture:
        y += (spare - title - picture) // 2
        draw_emblem(pen, (column.centerx, y + pen.px(44)))
        y += picture
    if spare >= title:
        y = _draw_title(pen, column, y, body.title)
    y = _draw_field(pen, Rect(column.left, y, column.width, pen.px(54)), body) + pen.px(14)
    for paragraph in body.paragraphs:
        rest = Rect(column.left, y, column.width, max(column.bottom - y, 0))
        y = pen.paragraph(paragraph, rest, height=text, colour=theme.DIM) + pen.px(10)


def _consent_height(pen: Pen, body: FormBody, width: int, height: float) -> int:
    lines = sum(len(wrap(p, pen.size(height), width)) for p in body.paragraphs)
    return lines * pen.line(height) + len(body.paragraphs) * pen.px(10)


def _draw_field(pen: Pen, area: Rect, body: FormBody) -> int:
    label = pen.text("Your name or pseudonym", (area.left, area.top + pen.px(10)), height=SMALL,
                     colour=theme.FAINT)  # fmt: skip
    if body.problem:
        at = (area.right, label.centery)
        pen.text(body.problem, at, height=SMALL, colour=theme.ORANGE, anchor="right")
    field = Rect(area.left, label.bottom + pen.px(6), area.width, pen.px(48))
    pen.panel(field, theme.PANEL, border=theme.SKY, thick=2, radius=8)
    draw_entry(pen, field, body.text, body.cursor)
    return field.bottom


def draw_entry(pen: Pen, field: Rect, text: str, cursor: int) -> None:
    """A line of text with its cursor, which stays in sight."""
    inner = field.inflate(-pen.px(28), 0)
    size = pen.size(BODY)
    start = 0
    while theme.width(text[start:cursor], size) > inner.width and start < cursor:
        start += max((cursor - start) // 8, 1)
    pen.text(text[start:], inner.midleft, within=max(inner.width, 1))
    draw_cursor(pen, (inner.left + theme.width(text[start:cursor], size), inner.centery))


def draw_note(pen: Pen, area: Rect, note: NoteBody) -> None:
    """A box over what lies below."""
    box = Rect(0, 0, min(area.width, pen.px(COLUMN)), pen.px(190))
    box.center = area.center
    pen.panel(box, theme.PANEL, border=theme.SKY, thick=2, radius=14)
    left = box.left + pen.px(26)
    width = box.width - pen.px(52)
    pen.text(note.title, (left, box.top + pen.px(36)), height=LARGE, within=width)
    field = Rect(left, box.top + pen.px(66), width, pen.px(52))
    pen.panel(field, theme.GROUND, border=theme.LINE, radius=8)
    draw_entry(pen, field, note.text, note.cursor)
    under = (left, field.bottom + pen.px(26))
    pen.text(note.hint, under, height=SMALL, colour=theme.FAINT, within=width)
