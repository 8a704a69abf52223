"""Where people compare clips: reads and writes the FeedbackStore, never the trainer.

`control` decides what happens and knows no window; `show` is the window and decides nothing.
"""

from __future__ import annotations

from pathlib import Path

from prefrl.errors import UserError

from .control.clerk import Clerk
from .control.desk import Opener
from .control.drawing import Draw

__all__ = ["rate"]
CLOSING_SECONDS = 35.0  # a locked database gives up after 30


def rate(opener: Opener, *, draw: Draw, directory: Path, name: str, scale: float) -> None:
    """Open the window; returns when it is closed and everything is stored.

    Args:
        opener: opens the run, in the thread that will use it.
        draw: draws a clip from its recipe; a module's function.
        directory: where the process that draws may leave its logs.
        name: the rater's; "" if it is to be asked for.
        scale: of letters and buttons.

    Raises:
        UserError: no window can be opened, or an answer could not be stored.
    """
    from .control.controller import Controller
    from .control.drawing import Drawer
    from .show.window import Window

    clerk = Clerk(opener)
    drawer = Drawer(draw, directory=directory)
    controller = Controller(clerk=clerk, drawer=drawer, name=name)
    try:
        window = Window(controller, scale=scale)
        try:
            window.run()
        finally:
            window.close()
    finally:
        drawer.close()
        finished = clerk.close(seconds=CLOSING_SECONDS)
    failure = controller.failure
    if isinstance(failure, UserError):
        raise failure
    if failure is not None or not finished:
        raise UserError(f"the last answer may not be stored: {failure or 'the store is in use'}")
