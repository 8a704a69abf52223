"""Keyboard, mouse and wheel as presses."""

from __future__ import annotations

import pygame

from ..control.actions import Action, Press

KEYS: dict[int, tuple[Action, str]] = {
    pygame.K_LEFT: (Action.LEFT, "Left"),
    pygame.K_RIGHT: (Action.RIGHT, "Right"),
    pygame.K_UP: (Action.UP, "Up"),
    pygame.K_DOWN: (Action.DOWN, "Down"),
    pygame.K_RETURN: (Action.ENTER, "Return"),
    pygame.K_KP_ENTER: (Action.ENTER, "Return"),
    pygame.K_BACKSPACE: (Action.UNDO, "Backspace"),
    pygame.K_DELETE: (Action.DELETE, "Delete"),
    pygame.K_HOME: (Action.HOME, "Home"),
    pygame.K_END: (Action.END, "End"),
    pygame.K_F1: (Action.HELP, "F1"),
    pygame.K_F11: (Action.FULL_SCREEN, "F11"),
    pygame.K_ESCAPE: (Action.LEAVE, "Escape"),
}
LETTERS: dict[str, Action] = {
    "s": Action.SKIP,
    " ": Action.PAUSE,
    ",": Action.FRAME_BACK,
    ".": Action.FRAME_ON,
    "-": Action.SLOWER,
    "+": Action.FASTER,
    "=": Action.FASTER,  # the same key without shift, on many keyboards
    "r": Action.RESTART,
    "n": Action.NOTE,
    "f": Action.FLAG,
}
"""By the letter that is typed, wherever the keyboard has it."""
WITH_CONTROL: dict[int, Action] = {
    pygame.K_s: Action.SKIP,
    pygame.K_z: Action.UNDO,
    pygame.K_n: Action.NOTE,
    pygame.K_f: Action.FLAG,
    pygame.K_RETURN: Action.ENTER,
    pygame.K_KP_ENTER: Action.ENTER,
}
PAGE, WHEEL = 8, 3  # lines


def key_name(event: pygame.event.Event) -> str:
    """What a key is called, pressed or released."""
    known = KEYS.get(event.key)
    return known[1] if known else pygame.key.name(event.key) or f"key {event.key}"


def press_of(event: pygame.event.Event, *, typing: bool) -> Press | None:
    """What a key that went down asks for; letters ask for nothing while text is typed."""
    name = key_name(event)
    if event.mod & pygame.KMOD_CTRL and typing:
        action = WITH_CONTROL.get(event.key)
        return Press(action=action, key=f"Ctrl+{name}") if action else None
    if event.key in KEYS:
        return Press(action=KEYS[event.key][0], key=name)
    if event.key in (pygame.K_PAGEUP, pygame.K_PAGEDOWN):
        lines = PAGE if event.key == pygame.K_PAGEDOWN else -PAGE
        return Press(action=Action.SCROLL, key=name, number=lines)
    return None if typing else _letter(event, name)


def _letter(event: pygame.event.Event, name: str) -> Press | None:
    typed = (event.unicode or "").lower()
    if typed.isdecimal() and typed.isascii() and typed != "0":
        return Press(action=Action.NUMBER, key=name, number=int(typed))
    if typed not in LETTERS and event.key == pygame.K_KP_PLUS:
        typed = "+"
    action = LETTERS.get(typed)
    return Press(action=action, key=name) if action else None


def wheel(lines: int, place: int | None) -> Press:
    """The wheel was turned over a text."""
    return Press(action=Action.SCROLL, key="mouse", number=-lines * WHEEL, place=place)
