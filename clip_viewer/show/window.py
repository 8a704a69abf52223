"""The window and its loop: events to the controller, views to the screen."""

from __future__ import annotations

import pygame

from prefrl.errors import UserError

from ..control.actions import Action
from ..control.controller import Controller
from ..control.views import View
from . import clips, theme
from .display import open_display
from .drag import Drag
from .keys import key_name, press_of, wheel
from .pads import Pads
from .pen import Drawn
from .stage import draw

SIZE, SMALLEST = (1280, 800), (320, 240)
FRAME_MS = 15  # between two looks at the clock; a key wakes the loop at once
HIDDEN_MS = 100
REPEAT_MS = (400, 35)  # of a key held down while text is typed


class Window:
    """A resizable window; event-driven, so a test may post what a person would press.

    Args:
        scale: of letters and buttons.
        size: in pixels; None: 1280 x 800, or as much of it as the screen holds.
    """

    def __init__(
        self, controller: Controller, *, scale: float = 1.0, size: tuple[int, int] | None = None
    ) -> None:
        check_pygame()
        open_display("a display is needed, or a rating pack")
        pygame.font.init()
        self.controller, self.scale = controller, scale
        self._size, self._full, self._hidden = size or _size_here(), False, False
        self._surface = pygame.display.set_mode(self._size, pygame.RESIZABLE)
        pygame.display.set_caption("prefrl rate")
        self._pads: Pads | None = None  # looking for pads takes time: after the first picture
        self._repeats = self._swallows = False
        self._pointer: tuple[int, int] | None = None
        self._drag: Drag | None = None
        self._seen: tuple[View, tuple[int, int], tuple[int, int] | None, int | None] | None = None
        self.drawn = Drawn()
        self.pictures = 0
        """How many times the window was drawn."""
        pygame.key.set_repeat()

    def run(self) -> None:
        """Until the controller is done."""
        while not self.controller.done:
            self.turn(wait_ms=HIDDEN_MS if self._hidden else FRAME_MS)

    def turn(self, *, wait_ms: int) -> None:
        """Once round the loop; waits at most that long for an event."""
        first = pygame.event.wait(wait_ms) if wait_ms else pygame.event.poll()
        for event in (first, *pygame.event.get()):
            self._hear(event)
        self.controller.tick()
        self._repeat(self.controller.typing)
        if not self._hidden:
            self._show(self.controller.view())

    def close(self) -> None:
        """The window goes."""
        if self._pads is not None:
            self._pads.close()
        theme.forget()
        clips.forget()
        pygame.font.quit()
        pygame.display.quit()

    # ---- seeing -----------------------------------------------------------------------

    def _show(self, view: View) -> None:
        """Draw, if something differs from what is on the screen."""
        surface = pygame.display.get_surface() or self._surface
        dragged = self._drag.place if self._drag and self._drag.moved else None
        hovered = self._hovered() if dragged is None else self._pointer
        seen = (view, surface.get_size(), hovered, dragged)
        if seen == self._seen:
            return
        self._seen, self._surface = seen, surface
        self.drawn = draw(surface, view, scale=self.scale, pointer=self._pointer, dragged=dragged)
        self._report_limits()
        pygame.display.flip()
        self.pictures += 1
        self._pads = self._pads or Pads()

    def _hovered(self) -> tuple[int, int] | None:
        """The button under the mouse, by its corner."""
        if self._pointer is None:
            return None
        hit = [rect.topleft for rect, _ in self.drawn.zones if rect.collidepoint(self._pointer)]
        return hit[-1] if hit else (-1, -1)

    def _report_limits(self) -> None:
        for place, most in self.drawn.limits.items():
            self.controller.front.scroll_limit(place, most)

    # ---- hearing ----------------------------------------------------------------------

    def _hear(self, event: pygame.event.Event) -> None:
        controller = self.controller
        if event.type == pygame.QUIT:
            controller.leave()
            controller.close()
        elif event.type == pygame.KEYDOWN:
            self._key_down(event)
        elif event.type == pygame.KEYUP:
            self._swallows = False
            controller.release(key_name(event))
        elif event.type == pygame.TEXTINPUT:
            if controller.typing and not self._swallows:
                controller.type(event.text)
            self._swallows = False
        elif event.type in MOUSE:
            self._mouse(event)
        elif event.type in WINDOW:
            self._change(event)
        else:
            self._pad(event)

    def _key_down(self, event: pygame.event.Event) -> None:
        press = press_of(event, typing=self.controller.typing)
        self._swallows = press is not None  # the N that opens a note does not go into it
        if press is None:
            return
        if press.action is Action.FULL_SCREEN:
            self._toggle_full()
        else:
            self.controller.press(press)

    def _pad(self, event: pygame.event.Event) -> None:
        if self._pads is None:
            return
        presses, released = self._pads.read(event)
        for name in released:
            self.controller.release(name)
        for press in presses:
            self.controller.press(press)

    def _mouse(self, event: pygame.event.Event) -> None:
        if event.type == pygame.MOUSEWHEEL:
            place = self.drawn.pane_at(self._pointer) if self._pointer else None
            self.controller.press(wheel(event.y, place))
            return
        self._pointer = event.pos
        if self._drag is not None:
            self._drag.move(event.pos)
        if event.type == pygame.MOUSEMOTION or event.button != pygame.BUTTON_LEFT:
            return
        if event.type == pygame.MOUSEBUTTONDOWN:
            self._mouse_down(event.pos)
        elif self._drag is not None:
            self._let_go(self._drag, event.pos)

    def _mouse_down(self, at: tuple[int, int]) -> None:
        """A click counts at once; on what can be dragged it waits for the mouse to go up."""
        press, place = self.drawn.hit(at), self.drawn.clip_at(at)
        if place is not None:
            self._drag = Drag(place=place, start=at, screen=self.controller.front)
        elif press is not None:
            self.controller.press(press)

    def _let_go(self, drag: Drag, at: tuple[int, int]) -> None:
        self._drag = None
        if drag.screen is self.controller.front:  # else the question has changed meanwhile
            self.controller.press(drag.press(self.drawn.rank_at(at)))

    def _change(self, event: pygame.event.Event) -> None:
        """Of the window itself."""
        if event.type in (pygame.WINDOWFOCUSGAINED, pygame.WINDOWFOCUSLOST):
            self._drag = None
            self.controller.focus(event.type == pygame.WINDOWFOCUSGAINED)
        elif event.type == pygame.WINDOWLEAVE:
            self._pointer = None
        elif event.type in (pygame.WINDOWMINIMIZED, pygame.WINDOWHIDDEN):
            self._hide(True)
        elif event.type in (pygame.WINDOWRESTORED, pygame.WINDOWSHOWN, pygame.WINDOWMAXIMIZED):
            self._hide(False)
        else:
            self._seen = None  # resized or exposed: what was drawn may be gone

    def _hide(self, hidden: bool) -> None:
        self._hidden, self._seen = hidden, None
        self.controller.see(not hidden)

    def _toggle_full(self) -> None:
        self._full = not self._full
        if self._full:
            self._size = self._surface.get_size()
            self._surface = pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        else:
            self._surface = pygame.display.set_mode(self._size, pygame.RESIZABLE)
        self._seen = None

    def _repeat(self, typing: bool) -> None:
        """Keys repeat in a text, and nowhere else."""
        if typing != self._repeats:
            self._repeats = typing
            pygame.key.set_repeat(*(REPEAT_MS if typing else ()))


MOUSE = (
    pygame.MOUSEMOTION,
    pygame.MOUSEBUTTONDOWN,
    pygame.MOUSEBUTTONUP,
    pygame.MOUSEWHEEL,
)
WINDOW = (
    pygame.WINDOWFOCUSGAINED,
    pygame.WINDOWFOCUSLOST,
    pygame.WINDOWLEAVE,
    pygame.WINDOWMINIMIZED,
    pygame.WINDOWHIDDEN,
    pygame.WINDOWRESTORED,
    pygame.WINDOWSHOWN,
    pygame.WINDOWMAXIMIZED,
    pygame.WINDOWSIZECHANGED,
    pygame.WINDOWEXPOSED,
    pygame.VIDEORESIZE,
)


def _size_here() -> tuple[int, int]:
    """In which a window opens: no larger than the first screen."""
    (width, height), *_ = pygame.display.get_desktop_sizes()
    return min(SIZE[0], width), min(SIZE[1], height)


def check_pygame() -> None:
    """Refuse a half-removed pygame: it and pygame-ce install the same package.

    Raises:
        UserError: with the repair.
    """
    if not hasattr(pygame, "display"):
        raise UserError(
            "pygame is broken, as after removing one of pygame and pygame-ce: "
            "`pip uninstall -y pygame pygame-ce && pip install pygame-ce`"
        )
