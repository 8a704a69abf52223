"""The row of ranks below a ranking, to which clips and texts can be dragged."""

from __future__ import annotations

import pygame
from pygame import Rect

from ..control.material import Clip
from ..control.views import QuestionBody
from . import theme
from .pen import BODY, LARGE, SMALL, Pen

RANKS = ("1st", "2nd", "3rd", "4th", "5th", "6th")
TALL, LEAST = 76, 330  # of the row; of the room below which there is none
GHOST = 0.45  # size of a dragged clip, in its own


def ranks_height(pen: Pen, area: Rect) -> int:
    """What the row takes; 0 where the window is too low for it."""
    return 0 if area.height < pen.px(LEAST) else pen.px(TALL)


def draw_ranks(pen: Pen, area: Rect, body: QuestionBody) -> None:
    """One box a rank, with small pictures of the clips that have it, or numbers of texts."""
    count, gap = len(body.slots), pen.px(12)
    wide = min(pen.px(170), (area.width - gap * (count - 1)) // max(count, 1))
    left = area.centerx - (count * (wide + gap) - gap) // 2
    for rank in range(count):
        box = Rect(left + rank * (wide + gap), 0, wide, max(area.height - pen.px(10), 1))
        box.bottom = area.bottom
        pen.drawn.ranks.append((box, rank))
        _draw_rank(pen, box, rank, body)


def _draw_rank(pen: Pen, box: Rect, rank: int, body: QuestionBody) -> None:
    aimed = pen.dragged is not None and pen.pointer is not None and box.collidepoint(pen.pointer)
    places = body.slots[rank]
    colour = theme.YELLOW if places else theme.SKY if pen.dragged is not None else theme.LINE
    ground = theme.HOVER if aimed else theme.PANEL
    pen.panel(box, ground, border=theme.WHITE if aimed else colour, thick=3 if aimed else 2)
    at = (box.left + pen.px(12), box.centery)
    name = pen.text(RANKS[rank], at, height=BODY, colour=theme.TEXT if places else theme.DIM)
    if not places:
        if pen.dragged is None:
            at = (name.right + pen.px(10), box.centery)
            room = box.right - pen.px(8) - at[0]
            pen.text("drag here", at, height=SMALL, colour=theme.FAINT, within=room)
        return
    x, tall = name.right + pen.px(10), box.height - pen.px(12)
    for place in places:
        picture = _picture(body, place, tall)
        small = Rect(x, 0, picture.get_width() if picture else tall, tall)
        small.centery = box.centery
        if small.right > box.right - pen.px(4):
            break
        if picture:
            pen.surface.blit(picture, small)
        else:
            _draw_card(pen, small, place)
        pen.drawn.clips.append((small, place))
        x = small.right + pen.px(6)


def draw_dragged(pen: Pen, shown: list[Rect], body: QuestionBody) -> None:
    """What the mouse drags, at the mouse; a veil over where it came from."""
    place = pen.dragged
    if body.form != "ranking" or place is None or pen.pointer is None or place >= len(shown):
        return
    pen.veil(shown[place], 150)
    tall = max(round(shown[place].height * GHOST), 1)
    picture = _picture(body, place, tall)
    at = picture.get_rect() if picture else Rect(0, 0, pen.px(TALL), pen.px(TALL))
    at.center = pen.pointer
    if picture:
        picture.set_alpha(220)
        pen.surface.blit(picture, at)
    else:
        _draw_card(pen, at, place)
    pen.frame(at.inflate(2 * pen.px(3), 2 * pen.px(3)), theme.WHITE, thick=3, radius=6)


def _picture(body: QuestionBody, place: int, tall: int) -> pygame.Surface | None:
    """A clip as it stands, so many pixels high; None for a text, and for what is not here."""
    pane = body.panes[place]
    return _small(pane.material, pane.frame, tall) if isinstance(pane.material, Clip) else None


def _draw_card(pen: Pen, area: Rect, place: int) -> None:
    """The number of a text, in its place."""
    pen.panel(area, theme.HOVER, border=theme.LINE)
    pen.text(str(place + 1), area.center, height=LARGE, anchor="centre")


def _small(clip: Clip, frame: int, tall: int) -> pygame.Surface:
    """One frame, so many pixels high."""
    pixels = clip.frames[frame]
    height, width = pixels.shape[:2]
    picture = pygame.image.frombuffer(pixels.tobytes(), (width, height), "RGB")
    size = (max(round(width * tall / height), 1), max(tall, 1))
    if size[1] > height:
        return pygame.transform.scale(picture, size)
    return pygame.transform.smoothscale(picture, size)
