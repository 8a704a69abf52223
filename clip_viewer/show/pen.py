"""What screens are drawn with: text, panels, shapes, buttons."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import pygame
from pygame import Rect

from ..control.actions import Press
from ..control.views import Hint, Mark
from . import theme
from .theme import Colour

Anchor = Literal["left", "centre", "right"]
SMALL, BODY, LARGE, TITLE = 15, 18, 24, 34  # text heights at 1280 x 800
SMALLEST = 10  # pixels
WINDOW = (1280, 800)
CIRCLE = tuple((math.cos(k * math.pi / 24), math.sin(k * math.pi / 24)) for k in range(48))
ARROWS: dict[str, tuple[tuple[float, float], ...]] = {
    "Left": ((-0.6, 0), (0.4, -0.65), (0.4, 0.65)),
    "Right": ((0.6, 0), (-0.4, -0.65), (-0.4, 0.65)),
    "Up": ((0, -0.6), (-0.65, 0.4), (0.65, 0.4)),
    "Down": ((0, 0.6), (-0.65, -0.4), (0.65, -0.4)),
}


@dataclass(slots=True)
class Drawn:
    """What the window must know of a picture."""

    zones: list[tuple[Rect, Press]] = field(default_factory=list)
    """Where a click means what; later ones lie over earlier ones."""
    panes: list[tuple[Rect, int]] = field(default_factory=list)
    """Where the wheel scrolls which text; -1 is the prompt."""
    clips: list[tuple[Rect, int]] = field(default_factory=list)
    """What can be dragged, by its place on the screen; later ones lie over earlier ones."""
    ranks: list[tuple[Rect, int]] = field(default_factory=list)
    """Where it can be dropped, by rank."""
    limits: dict[int, int] = field(default_factory=dict)
    """How many lines each text can be scrolled."""

    def hit(self, point: tuple[int, int]) -> Press | None:
        """What a click there means."""
        return next((p for r, p in reversed(self.zones) if r.collidepoint(point)), None)

    def clip_at(self, point: tuple[int, int]) -> int | None:
        """Which clip can be dragged from there."""
        return next((n for r, n in reversed(self.clips) if r.collidepoint(point)), None)

    def rank_at(self, point: tuple[int, int]) -> int | None:
        """Which rank a clip dropped there gets."""
        return next((n for r, n in self.ranks if r.collidepoint(point)), None)

    def pane_at(self, point: tuple[int, int]) -> int | None:
        """Which text is there."""
        return next((n for r, n in self.panes if r.collidepoint(point)), None)


class Pen:
    """Draws on a surface, in units that grow with it.

    Args:
        scale: of letters and buttons, on top of what the window's size asks for.
        pointer: where the mouse is.
        dragged: the place of the clip that it drags.
    """

    def __init__(
        self,
        surface: pygame.Surface,
        *,
        scale: float,
        pointer: tuple[int, int] | None,
        dragged: int | None = None,
    ) -> None:
        self.surface, self.pointer, self.dragged = surface, pointer, dragged
        width, height = surface.get_size()
        fit = min(width / WINDOW[0], height / WINDOW[1])
        self.unit = max(fit, 0.42) * scale
        self.drawn = Drawn()

    def px(self, length: float) -> int:
        """A length at 1280 x 800, in pixels here; at least one."""
        return max(round(length * self.unit), 1)

    def size(self, height: float) -> int:
        """A text height in pixels."""
        return min(max(round(height * self.unit), SMALLEST), 400)

    def line(self, height: float) -> int:
        """From one line of text to the next."""
        return round(self.size(height) * 1.45)

    # ---- text -------------------------------------------------------------------------

    def text(
        self,
        text: str,
        at: tuple[int, int],
        *,
        height: float = BODY,
        colour: Colour = theme.TEXT,
        anchor: Anchor = "left",
        within: int | None = None,
    ) -> Rect:
        """One line; `at` is the middle of its left, of its centre or of its right.

        Args:
            within: cut it, with an ellipsis, to that many pixels.
        """
        size = self.size(height)
        if within is not None:
            text = cut(text, size, within)
        picture = theme.written(text, size, colour)
        place = picture.get_rect()
        if anchor == "left":
            place.midleft = at
        elif anchor == "right":
            place.midright = at
        else:
            place.center = at
        self.surface.blit(picture, place)
        return place

    def wide(self, text: str, height: float) -> int:
        """Pixels of a line."""
        return theme.width(text, self.size(height))

    def paragraph(
        self,
        text: str,
        area: Rect,
        *,
        height: float = BODY,
        colour: Colour = theme.TEXT,
        centred: bool = False,
    ) -> int:
        """As many lines as fit into `area`; returns the y below the last."""
        step, y = self.line(height), area.top
        for line in wrap(text, self.size(height), area.width):
            if y + step > area.bottom:
                break
            x = area.centerx if centred else area.left
            anchor: Anchor = "centre" if centred else "left"
            self.text(line, (x, y + step // 2), height=height, colour=colour, anchor=anchor)
            y += step
        return y

    # ---- shapes -----------------------------------------------------------------------

    def panel(
        self,
        area: Rect,
        colour: Colour = theme.PANEL,
        *,
        border: Colour | None = None,
        thick: float = 1,
        radius: float = 10,
    ) -> None:
        """A rounded rectangle."""
        if area.width < 1 or area.height < 1:
            return
        pygame.draw.rect(self.surface, colour, area, border_radius=self.px(radius))
        if border is not None:
            self.frame(area, border, thick=thick, radius=radius)

    def frame(self, area: Rect, colour: Colour, *, thick: float = 1, radius: float = 10) -> None:
        """Its border alone."""
        if area.width > 2 and area.height > 2:
            lines = min(self.px(thick), min(area.size) // 2)
            pygame.draw.rect(self.surface, colour, area, lines, border_radius=self.px(radius))

    def veil(self, area: Rect, strength: int) -> None:
        """Darken what is there, 0 to 255."""
        area = area.clip(self.surface.get_rect())
        if area.width > 0 and area.height > 0:
            shade = pygame.Surface(area.size)
            shade.fill(theme.GROUND)
            shade.set_alpha(strength)
            self.surface.blit(shade, area)

    def polygon(
        self,
        points: tuple[tuple[float, float], ...],
        centre: tuple[int, int],
        radius: float,
        colour: Colour,
    ) -> None:
        """Points on the unit square, drawn smoothly around a centre."""
        placed = [(centre[0] + x * radius, centre[1] + y * radius) for x, y in points]
        pygame.draw.polygon(self.surface, colour, placed)
        pygame.draw.aalines(self.surface, colour, True, placed)

    def disc(self, centre: tuple[int, int], radius: int, colour: Colour) -> None:
        """A filled circle with a smooth edge."""
        self.polygon(CIRCLE, centre, max(radius, 1), colour)

    def arrow(self, name: str, centre: tuple[int, int], radius: float, colour: Colour) -> None:
        """A triangle that points Left, Right, Up or Down."""
        self.polygon(ARROWS[name], centre, radius, colour)

    def bars(self, centre: tuple[int, int], radius: int, colour: Colour, *, upright: bool) -> None:
        """Two bars: the sign of equality, or of a pause."""
        length, thick, apart = round(radius * 1.2), max(round(radius * 0.3), 1), radius * 0.4
        for side in (-1, 1):
            shift = round(side * apart)
            bar = Rect(0, 0, thick, length) if upright else Rect(0, 0, length, thick)
            bar.center = (
                (centre[0] + shift, centre[1])
                if upright
                else (
                    centre[0],
                    centre[1] + shift,
                )
            )
            pygame.draw.rect(self.surface, colour, bar)

    def cross(self, centre: tuple[int, int], radius: int, colour: Colour) -> None:
        """Two strokes."""
        r, thick = round(radius * 0.5), max(round(radius * 0.34), 1)
        x, y = centre
        for a, b in (((x - r, y - r), (x + r, y + r)), ((x - r, y + r), (x + r, y - r))):
            pygame.draw.line(self.surface, colour, a, b, thick)

    def tick(self, centre: tuple[int, int], radius: int, colour: Colour) -> None:
        """A check mark."""
        x, y, r = centre[0], centre[1], radius
        points = [(x - 0.55 * r, y), (x - 0.15 * r, y + 0.42 * r), (x + 0.6 * r, y - 0.45 * r)]
        pygame.draw.lines(self.surface, colour, False, points, max(round(r * 0.3), 2))

    def mark(self, mark: Mark, centre: tuple[int, int], radius: int) -> None:
        """The shape of an answer in its colour: disc, diamond, square or octagon."""
        colour = theme.MARKS[mark]
        if mark == "left":
            self.disc(centre, radius, colour)
            self.arrow("Left", centre, radius * 0.62, theme.WHITE)
        elif mark == "right":
            diamond = ((0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0))
            self.polygon(diamond, centre, radius, colour)
            self.arrow("Right", centre, radius * 0.62, theme.GROUND)
        elif mark == "equal":
            square = Rect(0, 0, 2 * radius, 2 * radius)
            square.center = centre
            pygame.draw.rect(self.surface, colour, square, border_radius=max(radius // 4, 1))
            self.bars(centre, radius, theme.WHITE, upright=False)
        elif mark == "cannot":
            a, b = 1.05, 0.45
            octagon = ((-b, -a), (b, -a), (a, -b), (a, b), (b, a), (-b, a), (-a, b), (-a, -b))
            self.polygon(octagon, centre, radius, colour)
            self.cross(centre, radius, theme.GROUND)

    # ---- buttons ----------------------------------------------------------------------

    def zone(self, area: Rect, press: Press) -> bool:
        """A click there means `press`; is the mouse over it?"""
        self.drawn.zones.append((area, press))
        return self.pointer is not None and area.collidepoint(self.pointer)

    def cap(self, cap: str, at: tuple[int, int], *, height: float, colour: Colour) -> Rect:
        """A key, drawn from the middle of its left."""
        tall = round(self.size(height) * 1.5)
        arrow = cap in ARROWS
        inner = tall if arrow else max(self.wide(cap, height) + self.px(12), tall)
        area = Rect(at[0], at[1] - tall // 2, inner, tall)
        self.panel(area, theme.RAISED, border=colour, radius=5)
        if arrow:
            self.arrow(cap, area.center, tall * 0.3, theme.TEXT)
        else:
            self.text(cap, area.center, height=height, anchor="centre")
        return area

    def cap_width(self, hint: Hint, height: float) -> int:
        """Pixels of a key and its label."""
        tall = round(self.size(height) * 1.5)
        key = tall if hint.cap in ARROWS else max(self.wide(hint.cap, height) + self.px(12), tall)
        return key + self.px(7) + self.wide(hint.label, height)


def wrap(text: str, pixels: int, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces where there are any."""
    return [text[a:b] for a, b in spans(text, pixels, width)]


def balanced(text: str, pixels: int, width: int) -> list[str]:
    """As `wrap`, in no more lines, but lines of about the same length: no word alone."""
    lines = wrap(text, pixels, width)
    narrowest = theme.width(text, pixels) // len(lines)
    for narrow in range(narrowest, width, max(width // 32, 1)):
        tried = wrap(text, pixels, narrow)
        if len(tried) == len(lines):
            return tried
    return lines


def spans(text: str, pixels: int, width: int) -> list[tuple[int, int]]:
    """Where each line begins and ends; the spaces at a break belong to neither line."""
    return list(_spans(text, pixels, max(width, 1)))


_memo: dict[tuple[str, int, int], tuple[tuple[int, int], ...]] = {}


def _spans(text: str, pixels: int, width: int) -> tuple[tuple[int, int], ...]:
    key = (text, pixels, width)
    if key not in _memo:
        if len(_memo) > 256:
            _memo.clear()
        found, start = [], 0
        for row in text.split("\n"):
            found += [(start + a, start + b) for a, b in _row_spans(row, pixels, width)]
            start += len(row) + 1
        _memo[key] = tuple(found)
    return _memo[key]


def _row_spans(row: str, pixels: int, width: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    start = 0
    while True:
        stop = start + _fitting(row[start:], pixels, width)
        if stop >= len(row):
            return [*found, (start, len(row))]
        space = row.rfind(" ", start + 1, stop + 1)
        end = space if space > start else stop
        found.append((start, end))
        start = end + 1 if space > start else end


def _fitting(text: str, pixels: int, width: int) -> int:
    """How many characters fit, at least one."""
    low, high = 1, min(len(text), max(width, 1))  # no character is narrower than a pixel
    if not text or theme.width(text[:high], pixels) <= width:
        return max(high, 1) if high < len(text) else len(text)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if theme.width(text[:middle], pixels) <= width else (low, middle)
    return low


def cut(text: str, pixels: int, width: int) -> str:
    """As much as fits, with an ellipsis if that is not all."""
    if theme.width(text, pixels) <= width:
        return text
    dots = "..."
    room = width - theme.width(dots, pixels)
    return text[: _fitting(text, pixels, room)].rstrip() + dots if room > 0 else ""
