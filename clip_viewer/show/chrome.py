"""What surrounds a screen: header, legend, a remark that goes by itself."""

from __future__ import annotations

from pygame import Rect

from ..control.views import Header, Hint
from . import theme
from .pen import BODY, SMALL, Pen

ANSWER, ROW = 50, 31  # heights of the buttons and of a line of lesser keys
GAP = 20
LOW = 300  # pixels of height under which the lesser keys are left to F1
TRAINER = {"alive": theme.GREEN, "late": theme.ORANGE, "none": theme.FAINT}


def draw_header(pen: Pen, area: Rect, header: Header) -> None:
    """Task, pace, labels against the schedule, the trainer's heartbeat."""
    y, gap = area.centery, pen.px(26)
    right = area.right
    for draw in (_trainer, _labels, _pace):
        width = draw(pen, header, (right, y), measure=True)
        if right - width - gap < area.left + pen.px(260):
            break
        draw(pen, header, (right, y), measure=False)
        right -= width + gap
    room = right - area.left - gap
    name = pen.text(header.task, (area.left, y), within=max(room, 1))
    left = name.right + pen.px(14)
    if right - left > pen.px(120):
        pen.text(
            header.name,
            (left, y),
            height=SMALL,
            colour=theme.FAINT,
            within=right - left - gap,
        )


def _pace(pen: Pen, header: Header, at: tuple[int, int], *, measure: bool) -> int:
    parts = [f"{header.answered:,} answered"]
    if header.per_hour:
        parts.append(f"{header.per_hour:,.0f} an hour")
    if header.minutes_left:
        hours, minutes = divmod(header.minutes_left, 60)
        parts.append(f"{hours} h {minutes} min left" if hours else f"{minutes} min left")
    if header.unsaved:
        parts[0] += " ..."
    text = "   ".join(parts)
    if not measure:
        pen.text(text, at, height=SMALL, colour=theme.DIM, anchor="right")
    return pen.wide(text, SMALL)


def _labels(pen: Pen, header: Header, at: tuple[int, int], *, measure: bool) -> int:
    """A bar of labels against those due."""
    due = header.due
    text = f"{header.labels:,} labels" if due is None else f"{header.labels:,} of {due:,} labels"
    bar = pen.px(110) if due else 0
    gap = pen.px(10) if due else 0
    if not measure:
        pen.text(text, at, height=SMALL, colour=theme.DIM, anchor="right")
        if due:
            left = at[0] - pen.wide(text, SMALL) - gap - bar
            rail = Rect(left, at[1] - pen.px(3), bar, pen.px(6))
            pen.panel(rail, theme.LINE, radius=3)
            share = min(header.labels / due, 1.0)
            done = Rect(rail.left, rail.top, round(rail.width * share), rail.height)
            pen.panel(done, theme.SKY, radius=3)
    return pen.wide(text, SMALL) + gap + bar


def _trainer(pen: Pen, header: Header, at: tuple[int, int], *, measure: bool) -> int:
    """Filled while it lives, a ring when it is late, a hollow ring without one."""
    text = {
        "alive": "trainer at work",
        "late": f"trainer silent {header.trainer_age}",
        "none": "no trainer",
    }[header.trainer]
    width = pen.wide(text, SMALL)
    radius = pen.px(5)
    if not measure:
        pen.text(text, at, height=SMALL, colour=theme.DIM, anchor="right")
        centre = (at[0] - width - pen.px(8) - radius, at[1])
        pen.disc(centre, radius, TRAINER[header.trainer])
        if header.trainer != "alive":
            pen.disc(centre, max(radius - pen.px(2), 1), theme.GROUND)
    return width + pen.px(8) + 2 * radius


def legend_rows(pen: Pen, hints: tuple[Hint, ...], width: int) -> list[list[Hint]]:
    """The lesser keys, line by line; none in a low window."""
    if pen.surface.get_height() < LOW:
        return []
    rows: list[list[Hint]] = []
    used, gap = width + 1, pen.px(GAP)
    for hint in hints:
        if hint.strong:
            continue
        wide = pen.cap_width(hint, SMALL) + gap
        if used + wide > width + gap:
            rows.append([])
            used = 0
        rows[-1].append(hint)
        used += wide
    return rows[:3]


def legend_height(pen: Pen, hints: tuple[Hint, ...], width: int) -> int:
    """Pixels that `draw_legend` will take."""
    answers = pen.px(ANSWER) + pen.px(8) if any(h.strong for h in hints) else 0
    return answers + len(legend_rows(pen, hints, width)) * pen.px(ROW)


def draw_legend(pen: Pen, area: Rect, hints: tuple[Hint, ...]) -> None:
    """The answers as large buttons, the other keys in quiet lines below."""
    answers = [hint for hint in hints if hint.strong]
    y = area.top
    if answers:
        _draw_answers(pen, Rect(area.left, y, area.width, pen.px(ANSWER)), answers)
        y += pen.px(ANSWER) + pen.px(8)
    for row in legend_rows(pen, hints, area.width):
        _draw_row(pen, Rect(area.left, y, area.width, pen.px(ROW)), row)
        y += pen.px(ROW)


def _draw_answers(pen: Pen, area: Rect, hints: list[Hint]) -> None:
    gap = pen.px(14)
    width = min((area.width - gap * (len(hints) - 1)) // len(hints), pen.px(270))
    left = area.centerx - (width * len(hints) + gap * (len(hints) - 1)) // 2
    for hint in hints:
        _draw_answer(pen, Rect(left, area.top, width, area.height), hint)
        left += width + gap


def _draw_answer(pen: Pen, area: Rect, hint: Hint) -> None:
    """Shape, label and key; without the label where there is no room for it."""
    hovered = pen.zone(area, hint.press)
    colour = theme.MARKS[hint.mark]
    pen.panel(area, theme.HOVER if hovered else theme.PANEL, border=colour, thick=2)
    pad, radius = pen.px(14), max(min(pen.px(13), area.height // 3), 3)
    x = area.left + pad
    if hint.mark != "number" and hint.cap not in ("Enter", "any key", "Ctrl Enter"):
        pen.mark(hint.mark, (x + radius, area.centery), radius)
        x += 2 * radius + pen.px(12)
    label = pen.wide(hint.label, BODY)
    key = pen.cap_width(hint, BODY) - label - pen.px(7)
    right = area.right - pad
    if x + label + pen.px(8) + key <= right:
        pen.text(hint.label, (x, area.centery))
        x = right - key
    else:
        x = max((x + right - key) // 2, x)
    if x + key <= right:
        pen.cap(hint.cap, (x, area.centery), height=BODY, colour=theme.LINE)


def _draw_row(pen: Pen, area: Rect, hints: list[Hint]) -> None:
    gap, inner = pen.px(GAP), pen.px(7)
    total = sum(pen.cap_width(hint, SMALL) for hint in hints) + gap * (len(hints) - 1)
    x = area.centerx - total // 2
    for hint in hints:
        width = pen.cap_width(hint, SMALL)
        hovered = pen.zone(Rect(x, area.top, width, area.height), hint.press)
        cap = pen.cap(hint.cap, (x, area.centery), height=SMALL, colour=theme.LINE)
        colour = theme.TEXT if hovered else theme.DIM
        at = (cap.right + inner, area.centery)
        pen.text(hint.label, at, height=SMALL, colour=colour)
        x += width + gap


def draw_toast(pen: Pen, area: Rect, text: str) -> None:
    """A remark at the bottom of the middle."""
    width = min(pen.wide(text, BODY) + pen.px(44), area.width)
    pill = Rect(0, 0, width, pen.px(44))
    pill.midbottom = (area.centerx, area.bottom - pen.px(10))
    pen.panel(pill, theme.RAISED, border=theme.FAINT, radius=22)
    pen.text(text, pill.center, anchor="centre", within=max(width - pen.px(24), 1))
