"""The clips of a query side by side, with what was answered and what the reward model thinks.

Each picture is drawn whole: the title, what was said, the clips in a grid, and below each clip
its returns and its learned reward step by step, as far as the clip has run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

TALL = 320  # pixels that a clip is brought near to
GAP, LINE, SPARK = 24, 26, 54
LOOPS, PAUSE = 2, 0.6  # times a film plays its clips; seconds its last picture stands
GROUND, TEXT, DIM, LINES = "#0d1016", "#e4e9f0", "#97a2b4", "#313a4a"
GREEN, YELLOW, BLUE = "#009E73", "#F0E442", "#56B4E9"
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3}
STRIP, STRIP_TALL = 5, 150  # pictures of a clip in a strip, and their height


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """One clip."""

    frames: np.ndarray
    """uint8 [T, H, W, 3]"""
    mark: str
    """What was said of it: "preferred", "2nd", "7 of 9", or ""."""
    best: bool
    """Draw its border as that of the better one."""
    learned: np.ndarray | None
    """[T] learned reward of each step; None without a reward model."""
    true: float | None
    """True return, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A query and what came of it."""

    id: str
    """Of the query."""
    title: str
    lines: tuple[str, ...]
    """Who said what; what the model says."""
    clips: tuple[Shown, ...]
    """[K]"""
    fps: float


def film(story: Story) -> Iterator[np.ndarray]:
    """Its pictures [H, W, 3], twice through; shorter clips hold their last frame."""
    last = max(len(clip.frames) for clip in story.clips)
    for _ in range(LOOPS):
        for step in range(last):
            picture = draw(story, step)
            yield picture
        for _ in range(round(PAUSE * story.fps)):
            yield picture


def draw(story: Story, step: int) -> np.ndarray:
    """One picture [H, W, 3]: every clip at `step`."""
    pictures = [_scaled(clip.frames[min(step, len(clip.frames) - 1)], TALL) for clip in story.clips]
    wide = max(max(p.width for p in pictures), 320)
    tall = max(p.height for p in pictures) + LINE + SPARK
    columns = COLUMNS[len(pictures)]
    rows = math.ceil(len(pictures) / columns)
    width = max(columns * (wide + GAP) + GAP, _needed(story))
    top = GAP + 34 + LINE * len(story.lines)
    sheet = Image.new("RGB", (width, top + rows * (tall + GAP)), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP - 8), story.title, fill=TEXT, font=font(21))
    for i, line in enumerate(story.lines):
        pen.text((GAP, GAP + 24 + LINE * i), line, fill=DIM, font=font(16))
    left = (width - columns * (wide + GAP) + GAP) // 2
    for i, (clip, picture) in enumerate(zip(story.clips, pictures, strict=True)):
        row, column = divmod(i, columns)
        at = (left + column * (wide + GAP), top + row * (tall + GAP))
        _draw_clip(sheet, clip, picture, at, wide, step)
    return np.asarray(sheet)


def strip(stories: Sequence[Story]) -> np.ndarray:
    """One picture [H, W, 3]: a row for each story, a few frames of each of its clips."""
    rows = [_strip_row(story) for story in stories]
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width, sum(row.height for row in rows)), GROUND)
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height
    return np.asarray(sheet)


def _strip_row(story: Story) -> Image.Image:
    clips = [_frames(clip) for clip in story.clips]
    wide = [sum(p.width + 4 for p in pictures) for pictures in clips]
    width = max(sum(wide) + GAP * (len(wide) + 1), _needed(story))
    top = GAP + 34 + LINE * len(story.lines)
    sheet = Image.new("RGB", (width, top + STRIP_TALL + LINE + GAP), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP - 8), story.title, fill=TEXT, font=font(19))
    for i, line in enumerate(story.lines):
        pen.text((GAP, GAP + 22 + LINE * i), line, fill=DIM, font=font(15))
    x = GAP
    for clip, pictures, size in zip(story.clips, clips, wide, strict=True):
        colour = GREEN if clip.best else LINES
        pen.rectangle((x - 4, top - 4, x + size - 1, top + STRIP_TALL + 3), outline=colour, width=3)
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (x + i * (picture.width + 4), top))
        _draw_words(pen, clip, (x, top + STRIP_TALL + 6), size)
        x += size + GAP
    return sheet


def _frames(clip: Shown) -> list[Image.Image]:
    chosen = np.linspace(0, len(clip.frames) - 1, STRIP).round().astype(int)
    pictures = [Image.fromarray(clip.frames[t]) for t in chosen]
    size = (round(pictures[0].width * STRIP_TALL / pictures[0].height), STRIP_TALL)
    return [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]


def _draw_clip(
    sheet: Image.Image,
    clip: Shown,
    picture: Image.Image,
    at: tuple[int, int],
    wide: int,
    step: int,
) -> None:
    x, y = at
    pen = ImageDraw.Draw(sheet)
    left = x + (wide - picture.width) // 2
    sheet.paste(picture, (left, y))
    frame = (left - 5, y - 5, left + picture.width + 4, y + picture.height + 4)
    pen.rectangle(frame, outline=GREEN if clip.best else LINES, width=4)
    below = y + picture.height + 8
    _draw_words(pen, clip, (x, below), wide)
    if clip.learned is not None:
        _draw_spark(pen, clip.learned, (x, below + LINE, x + wide, below + LINE + SPARK - 14), step)


def _draw_words(pen: ImageDraw.ImageDraw, clip: Shown, at: tuple[int, int], wide: int) -> None:
    """The mark at the left, the returns at the right."""
    colour = GREEN if clip.best else YELLOW
    pen.text(at, clip.mark, fill=colour, font=font(16))
    parts = [] if clip.learned is None else [f"learned {clip.learned.sum():+.2f}"]
    parts += [] if clip.true is None else [f"true {clip.true:+.2f}"]
    text = "   ".join(parts)
    pen.text((at[0] + wide - pen.textlength(text, font(15)), at[1]), text, fill=TEXT, font=font(15))


def _draw_spark(
    pen: ImageDraw.ImageDraw, learned: np.ndarray, box: tuple[int, int, int, int], step: int
) -> None:
    """Learned reward of each step, bright up to `step`, around a line at 0."""
    left, top, right, bottom = box
    most = max(float(np.abs(learned).max()), 1e-9)
    middle, half = (top + bottom) / 2, (bottom - top) / 2
    pen.line((left, middle, right, middle), fill=LINES)
    wide = (right - left) / len(learned)
    for t, value in enumerate(learned):
        y = middle - half * float(value) / most
        bar = (left + t * wide, min(y, middle), left + (t + 1) * wide - 1, max(y, middle))
        pen.rectangle(bar, fill=BLUE if t <= step else LINES)


def _needed(story: Story) -> int:
    """Pixels of the longest line."""
    lines = [(story.title, 21), *((line, 16) for line in story.lines)]
    return 2 * GAP + math.ceil(max(font(size).getlength(text) for text, size in lines))


def _scaled(frame: np.ndarray, tall: int) -> Image.Image:
    """By a whole factor, so that pixels stay squares; large pictures stay as they are."""
    picture = Image.fromarray(frame)
    factor = max(round(tall / picture.height), 1)
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The letters that come with matplotlib."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
