"""Clips on the screen: a pair, a grid, or one with a scale of nine."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pygame
from pygame import Rect

from ..control.actions import Action, Press
from ..control.material import Broken, Clip
from ..control.views import Mark, Pane, QuestionBody
from . import theme
from .pen import BODY, LARGE, SMALL, TITLE, Pen, wrap
from .ranks import RANKS, draw_dragged, draw_ranks, ranks_height

WHOLE = 0.9  # of the room that a whole factor must fill, to be taken
SHARP = 1.5  # factor from which pixels stay squares, smooth only at their edges


@dataclass(frozen=True, slots=True)
class Fit:
    """How large a clip is drawn."""

    size: tuple[int, int]
    """Pixels."""
    smooth: bool
    """Not by a whole factor."""


def fit(width: int, height: int, room: tuple[int, int]) -> Fit:
    """The size of a clip in `room`: by a whole factor where that fills it, else smoothly.

    >>> fit(160, 210, (500, 650)), fit(160, 210, (470, 620))
    (Fit(size=(480, 630), smooth=False), Fit(size=(470, 616), smooth=True))
    """
    factor = min(room[0] / width, room[1] / height)
    whole = int(factor)
    if whole >= 1 and whole >= WHOLE * factor:
        return Fit((width * whole, height * whole), smooth=False)
    return Fit((max(int(width * factor), 1), max(int(height * factor), 1)), smooth=True)


def draw_question(pen: Pen, area: Rect, body: QuestionBody) -> None:
    """What is asked, the clips, and the clock they share."""
    top = draw_asked(pen, area, body)
    below = below_height(pen, area, body)
    bottom = area.bottom - below
    bar = pen.px(26) if body.position is not None else 0
    room = Rect(area.left, top, area.width, max(bottom - bar - top, 1))
    cells = grid(room, len(body.panes), pen.px(18), _shape(body))
    shown = [_draw_pane(pen, cell, place, body) for place, cell in enumerate(cells)]
    whole = shown[0].unionall(shown[1:])
    if body.position is not None:
        _draw_clock(pen, Rect(whole.left, whole.bottom, whole.width, bar), body)
    draw_below(pen, Rect(area.left, bottom, area.width, below), body)
    draw_flash(pen, whole, shown, body)
    draw_dragged(pen, shown, body)


def below_height(pen: Pen, area: Rect, body: QuestionBody) -> int:
    """What a rating's scale takes, or a ranking's row of ranks."""
    return {"rating": pen.px(64), "ranking": ranks_height(pen, area)}.get(body.form, 0)


def draw_below(pen: Pen, area: Rect, body: QuestionBody) -> None:
    """The scale or the row, where there is room for it."""
    if body.form == "rating":
        _draw_scale(pen, area, body)
    elif body.form == "ranking" and area.height:
        draw_ranks(pen, area, body)


def draw_asked(pen: Pen, area: Rect, body: QuestionBody) -> int:
    """The question and what to prefer, side by side or below; returns the y below."""
    if area.height < pen.px(330):
        return area.top
    asked = "Watch a moment longer" if body.nudge else body.question
    colour = theme.YELLOW if body.nudge else theme.TEXT
    gap, tag = pen.px(18), pen.px(100) if body.practice else 0
    first, second = pen.wide(asked, LARGE), pen.wide(body.guide, BODY)
    beside = first + second + gap + tag <= area.width
    y = area.top + pen.line(LARGE) // 2
    x = area.centerx - (first + tag + (second + gap if beside else 0)) // 2
    x = pen.text(asked, (x, y), height=LARGE, colour=colour).right
    if body.practice:
        _draw_tag(pen, (x + pen.px(12), y), "practice")
    if not beside:
        x, y = area.left - gap, y + pen.line(BODY)
        x += max(area.width - second, 0) // 2
        tag = 0
    at = (x + tag + gap, y + pen.px(2))
    pen.text(body.guide, at, colour=theme.DIM, within=area.right - at[0])
    return y + pen.line(LARGE) // 2 + pen.px(4)


def _draw_tag(pen: Pen, at: tuple[int, int], text: str) -> None:
    tag = Rect(0, 0, pen.wide(text, SMALL) + pen.px(18), pen.px(24))
    tag.midleft = at
    pen.panel(tag, theme.GROUND, border=theme.YELLOW, radius=13)
    pen.text(text, tag.center, height=SMALL, colour=theme.YELLOW, anchor="centre")


def grid(room: Rect, count: int, gap: int, shape: tuple[int, int]) -> list[Rect]:
    """`count` cells, close together, in the columns that make a clip of `shape` largest."""

    def cell(columns: int) -> tuple[int, int]:
        rows = -(-count // columns)
        width = (room.width - gap * (columns - 1)) // columns
        return max(width, 1), max((room.height - gap * (rows - 1)) // rows, 1)

    def size(columns: int) -> float:
        width, height = cell(columns)
        return min(width / shape[0], height / shape[1])

    options = (2,) if count == 2 else range(1, count + 1)
    columns = max(options, key=size)
    width, height = cell(columns)
    width = min(width, round(size(columns) * shape[0]) + gap)
    height = min(height, round(size(columns) * shape[1]) + gap)
    rows = -(-count // columns)
    top = room.centery - (rows * (height + gap) - gap) // 2
    cells = []
    for place in range(count):
        row, column = divmod(place, columns)
        in_row = min(columns, count - row * columns)
        left = room.centerx - (in_row * (width + gap) - gap) // 2
        corner = (left + column * (width + gap), top + row * (height + gap))
        cells.append(Rect(corner, (width, height)))
    return cells


def _shape(body: QuestionBody) -> tuple[int, int]:
    """Width and height of the first clip; a guess before it is there."""
    clips = [pane.material for pane in body.panes if isinstance(pane.material, Clip)]
    return (clips[0].frames.shape[2], clips[0].frames.shape[1]) if clips else (4, 5)


def _draw_pane(pen: Pen, cell: Rect, place: int, body: QuestionBody) -> Rect:
    """Returns the part of the cell that is filled."""
    pane = body.panes[place]
    inner = cell.inflate(-pen.px(8), -pen.px(8))
    if not isinstance(pane.material, Clip):
        shape = _shape(body)
        size = fit(*shape, (max(inner.width, 1), max(inner.height, 1))).size
        area = Rect((0, 0), size)
        area.center = cell.center
        _draw_placeholder(pen, area, pane)
        return area
    picture = scaled(pane.material, pane.frame, (max(inner.width, 1), max(inner.height, 1)))
    area = picture.get_rect(center=cell.center)
    pen.surface.blit(picture, area)
    _draw_border(pen, area, place, pane, body)
    return area


def _draw_placeholder(pen: Pen, area: Rect, pane: Pane) -> None:
    broken = pane.material if isinstance(pane.material, Broken) else None
    pen.panel(area, theme.PANEL, border=theme.VERMILION if broken else theme.LINE, thick=2)
    text = area.inflate(-pen.px(40), 0)
    if broken is None:
        pen.text("on its way", area.center, colour=theme.FAINT, anchor="centre", within=text.width)
        return
    pen.cross((area.centerx, area.centery - pen.px(60)), pen.px(34), theme.VERMILION)
    text.top = area.centery - pen.px(10)
    text.height = max(area.bottom - text.top, 0)
    said = "This clip is damaged. It is flagged." if broken.damaged else "It cannot be drawn here."
    text.top = pen.paragraph(said, text, centred=True) + pen.px(6)
    text.height = max(area.bottom - text.top - pen.px(8), 0)
    pen.paragraph(broken.reason, text, height=SMALL, colour=theme.FAINT, centred=True)


def _draw_border(pen: Pen, area: Rect, place: int, pane: Pane, body: QuestionBody) -> None:
    """What choosing it means: colour and shape; a number or a rank in a grid."""
    hovered = body.form != "rating" and pen.zone(area, pick(place))
    around = area.inflate(2 * pen.px(4), 2 * pen.px(4))
    colour = theme.TEXT if hovered else border_colour(pane, body)
    pen.frame(around, colour, thick=4 if hovered else 3, radius=6)
    if body.form == "comparison":
        _draw_side(pen, around, place, pane.mark)
    elif body.form == "ranking":
        draw_rank(pen, area, place, pane)


def border_colour(pane: Pane, body: QuestionBody) -> theme.Colour:
    """What choosing it means, whether it has a rank, whether it is the next to get one."""
    if pane.rank is not None:
        return theme.YELLOW
    if pane.aimed:
        return theme.SKY
    return theme.MARKS[pane.mark] if body.form == "comparison" else theme.LINE


def _draw_side(pen: Pen, around: Rect, place: int, mark: Mark) -> None:
    """The shape of the answer, beside the clip: on it, a ball might be hidden."""
    radius = pen.px(15)
    x = around.left - 2 * radius if place == 0 else around.right + 2 * radius
    if radius < x < pen.surface.get_width() - radius:
        pen.mark(mark, (x, around.centery), radius)


def draw_rank(pen: Pen, area: Rect, place: int, pane: Pane) -> None:
    """Its number, and its rank if it has one; from here on it can be dragged."""
    pen.drawn.clips.append((area, place))
    corner = (area.left + pen.px(8), area.top + pen.px(20))
    pen.cap(str(place + 1), corner, height=BODY, colour=theme.SKY if pane.aimed else theme.LINE)
    if pane.rank is not None:
        text = RANKS[pane.rank - 1]
        tag = Rect(0, 0, pen.wide(text, LARGE) + pen.px(22), pen.px(40))
        tag.topright = (area.right - pen.px(6), area.top + pen.px(6))
        pen.panel(tag, theme.YELLOW, radius=8)
        pen.text(text, tag.center, height=LARGE, colour=theme.GROUND, anchor="centre")


def pick(place: int) -> Press:
    """A click on that clip or text."""
    return Press(action=Action.PICK, key="mouse", number=place)


def _draw_clock(pen: Pen, area: Rect, body: QuestionBody) -> None:
    """Where in the loop, at which speed, and whether it stands."""
    y = area.top + pen.px(17)
    radius = pen.px(7)
    icon = (area.left + radius, y)
    if body.paused:
        pen.bars(icon, radius, theme.YELLOW, upright=True)
    else:
        pen.arrow("Right", icon, radius, theme.DIM)
    speed = f"{body.speed:g}x" + ("  paused" if body.paused else "")
    colour = theme.YELLOW if body.paused or body.speed != 1 else theme.FAINT
    told = pen.text(speed, (area.right, y), height=SMALL, colour=colour, anchor="right")
    left = area.left + radius * 2 + pen.px(10)
    rail = Rect(left, y - pen.px(2), max(told.left - pen.px(12) - left, 1), pen.px(4))
    pen.panel(rail, theme.LINE, radius=2)
    done = Rect(rail.left, rail.top, round(rail.width * (body.position or 0.0)), rail.height)
    pen.panel(done, theme.DIM, radius=2)


def _draw_scale(pen: Pen, area: Rect, body: QuestionBody) -> None:
    """Nine cells, from bad to good."""
    gap, side = pen.px(8), pen.px(48)
    words = pen.wide("very good", SMALL) + pen.px(24)
    side = min(side, max((area.width - 2 * words - 8 * gap) // 9, pen.px(20)))
    left = area.centerx - (9 * side + 8 * gap) // 2
    y = area.centery + pen.px(6)
    pen.text("very bad", (left - pen.px(14), y), height=SMALL, colour=theme.DIM, anchor="right")
    for value in range(1, 10):
        cell = Rect(left + (value - 1) * (side + gap), 0, side, min(side, pen.px(44)))
        cell.centery = y
        hovered = pen.zone(cell, Press(action=Action.NUMBER, key="mouse", number=value))
        aimed = value == body.value
        ground = theme.SKY if aimed else theme.HOVER if hovered else theme.PANEL
        pen.panel(cell, ground, border=theme.SKY if aimed else theme.LINE, radius=8)
        colour = theme.GROUND if aimed else theme.TEXT
        pen.text(str(value), cell.center, height=LARGE, colour=colour, anchor="centre")
    right = left + 9 * side + 8 * gap + pen.px(14)
    pen.text("very good", (right, y), height=SMALL, colour=theme.DIM)


def draw_flash(pen: Pen, whole: Rect, shown: list[Rect], body: QuestionBody) -> None:
    """Names the choice on the clip it is about, or over all; or what practice teaches."""
    flash = body.flash
    if flash is not None:
        for place, area in enumerate(shown):
            if flash.place in (None, place):
                around = area.inflate(2 * pen.px(4), 2 * pen.px(4))
                pen.frame(around, theme.MARKS[flash.mark], thick=7, radius=6)
            else:
                pen.veil(area.inflate(2 * pen.px(5), 2 * pen.px(5)), 150)
        middle = whole if flash.place is None else shown[flash.place]
        _draw_badge(pen, middle.center, flash.mark, flash.text)
    elif body.verdict is not None:
        pen.veil(whole.inflate(pen.px(10), pen.px(10)), 150)
        colour = theme.GREEN if body.verdict.right else theme.ORANGE
        _draw_verdict(pen, whole, body.verdict.text, colour, right=body.verdict.right)


def _draw_badge(pen: Pen, centre: tuple[int, int], mark: Mark, text: str) -> None:
    shape = mark in ("left", "right", "equal", "cannot")
    radius = pen.px(18)
    lead = 2 * radius + pen.px(16) if shape else 0
    badge = Rect(0, 0, pen.wide(text, LARGE) + lead + pen.px(48), pen.px(68))
    badge.center = centre
    badge.clamp_ip(pen.surface.get_rect())
    pen.panel(badge, theme.GROUND, border=theme.MARKS[mark], thick=3, radius=34)
    x = badge.left + pen.px(24)
    if shape:
        pen.mark(mark, (x + radius, badge.centery), radius)
    pen.text(text, (x + lead, badge.centery), height=LARGE)


def _draw_verdict(pen: Pen, whole: Rect, text: str, colour: theme.Colour, *, right: bool) -> None:
    box = Rect(0, 0, min(whole.width, pen.px(760)), pen.px(150))
    box.center = whole.center
    pen.panel(box, theme.PANEL, border=colour, thick=3, radius=16)
    icon = (box.left + pen.px(60), box.centery)
    pen.disc(icon, pen.px(32), colour)
    if right:
        pen.tick(icon, pen.px(24), theme.WHITE)
    else:
        pen.text("!", icon, height=TITLE, colour=theme.GROUND, anchor="centre")
    inside = Rect(box.left + pen.px(115), 0, box.width - pen.px(140), box.height)
    lines = len(wrap(text, pen.size(LARGE), inside.width))
    inside.top = box.centery - lines * pen.line(LARGE) // 2
    pen.paragraph(text, inside, height=LARGE)


_pictures: dict[tuple[int, int, tuple[int, int]], tuple[Clip, pygame.Surface]] = {}
CACHED = 6  # scaled frames: as many as a question has clips; at 4K one takes 17 MB


def scaled(clip: Clip, frame: int, room: tuple[int, int]) -> pygame.Surface:
    """One frame, as large as `room` allows."""
    key = (id(clip), frame, room)
    if key not in _pictures:
        while len(_pictures) >= CACHED:
            _pictures.pop(next(iter(_pictures)))
        _pictures[key] = (clip, _scale(clip, frame, room))  # the clip: its id stays taken
    return _pictures[key][1]


def forget() -> None:
    """Pictures of a window that is closed."""
    _pictures.clear()


def _scale(clip: Clip, frame: int, room: tuple[int, int]) -> pygame.Surface:
    pixels = clip.frames[frame]
    height, width = pixels.shape[:2]
    size, smooth = (wanted := fit(width, height, room)).size, wanted.smooth
    picture = pygame.image.frombuffer(pixels.tobytes(), (width, height), "RGB")
    if not smooth:
        return pygame.transform.scale(picture, size)
    factor = size[1] / height
    if factor >= SHARP:
        whole = math.ceil(factor)
        picture = pygame.transform.scale(picture, (width * whole, height * whole))
    return pygame.transform.smoothscale(picture, size)
