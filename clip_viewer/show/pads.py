"""Gamepads, which may come and go at any time."""

from __future__ import annotations

import contextlib

import pygame

from ..control.actions import Action, Press

BUTTONS: dict[int, tuple[Action, str]] = {
    0: (Action.PAUSE, "pad A"),
    1: (Action.UNDO, "pad B"),
    2: (Action.NOTE, "pad X"),
    3: (Action.SKIP, "pad Y"),
    4: (Action.FRAME_BACK, "pad left shoulder"),
    5: (Action.FRAME_ON, "pad right shoulder"),
    6: (Action.LEAVE, "pad back"),
    7: (Action.ENTER, "pad start"),
}
"""As XInput numbers them."""
TRIGGERS: dict[int, tuple[Action, str]] = {
    2: (Action.SLOWER, "pad left trigger"),
    5: (Action.FASTER, "pad right trigger"),
}
PULLED, LET_GO = 0.5, 0.0  # of an axis from -1 to 1
HAT: dict[tuple[int, int], tuple[Action, str]] = {
    (-1, 0): (Action.LEFT, "pad left"),
    (1, 0): (Action.RIGHT, "pad right"),
    (0, 1): (Action.UP, "pad up"),
    (0, -1): (Action.DOWN, "pad down"),
}


class Pads:
    """Opens every pad that is plugged in, and reads their events."""

    def __init__(self) -> None:
        self._open: dict[int, pygame.joystick.JoystickType] = {}
        self._hat: str | None = None
        self._pulled: set[str] = set()
        pygame.joystick.init()

    def read(self, event: pygame.event.Event) -> tuple[list[Press], list[str]]:
        """Presses, and the names of what was released."""
        if event.type == pygame.JOYDEVICEADDED:
            self._add(event.device_index)
        elif event.type == pygame.JOYDEVICEREMOVED:
            return [], self._remove(event.instance_id)
        elif event.type == pygame.JOYHATMOTION:
            return self._turn(tuple(event.value))
        elif event.type == pygame.JOYAXISMOTION and event.axis in TRIGGERS:
            return self._pull(*TRIGGERS[event.axis], event.value)
        elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP) and event.button in BUTTONS:
            action, name = BUTTONS[event.button]
            down = event.type == pygame.JOYBUTTONDOWN
            return ([Press(action=action, key=name)], []) if down else ([], [name])
        return [], []

    def close(self) -> None:
        """Let go of all of them."""
        self._open.clear()
        pygame.joystick.quit()

    def _add(self, index: int) -> None:
        with contextlib.suppress(pygame.error):  # gone again already
            pad = pygame.joystick.Joystick(index)
            self._open[pad.get_instance_id()] = pad

    def _remove(self, instance: int) -> list[str]:
        """All of its keys are released with it."""
        self._open.pop(instance, None)
        self._hat, self._pulled = None, set()
        return [name for table in (BUTTONS, TRIGGERS, HAT) for _, name in table.values()]

    def _turn(self, value: tuple[int, ...]) -> tuple[list[Press], list[str]]:
        found = HAT.get((value[0], value[1]))
        if found is not None and found[1] == self._hat:
            return [], []
        released = [self._hat] if self._hat else []
        self._hat = found[1] if found else None
        return ([Press(action=found[0], key=found[1])] if found else []), released

    def _pull(self, action: Action, name: str, value: float) -> tuple[list[Press], list[str]]:
        if value > PULLED and name not in self._pulled:
            self._pulled.add(name)
            return [Press(action=action, key=name)], []
        if value < LET_GO and name in self._pulled:
            self._pulled.discard(name)
            return [], [name]
        return [], []
