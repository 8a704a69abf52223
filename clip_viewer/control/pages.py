"""The screens that are pages: sign-in, instructions, waiting, break, pause, summary, trouble."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .actions import Action, Press
from .entry import Entry
from .screen import HELP, LEAVE, UNDO, Screen, hint, span, words
from .views import Body, FormBody, Hint, Mark, NoteBody, PageBody

if TYPE_CHECKING:
    from .controller import Controller

NAME_BYTES, NOTE_BYTES = 64, 4096
CONSENT = (
    "You will see short clips and say which you like better. A program learns from your answers.",
    "Stored with each answer: the name above, the key, when, how long you took and how you "
    "watched, and a note if you write one. Nothing else about you or this computer is stored.",
    "You may stop at any time, and ask for everything under your name to be removed.",
)


class SignIn(Screen):
    """A name, and consent."""

    typing = True

    def __init__(self, controller: Controller, name: str) -> None:
        super().__init__(controller)
        self.entry = Entry(name, limit=NAME_BYTES, lines=False)
        self.problem = ""

    def press(self, press: Press) -> None:
        if press.action is Action.ENTER:
            self._agree()
        elif press.action is Action.LEAVE:
            self.controller.close()
        else:
            self.entry.press(press.action)

    def type(self, text: str) -> None:
        self.problem = "" if self.entry.type(text) else "a shorter name, please"

    def _agree(self) -> None:
        name = " ".join(self.entry.text.split())
        if name:
            self.controller.sign_in(name)
        else:
            self.problem = "a name or a pseudonym, please"

    def body(self) -> Body:
        return FormBody(
            title="Which do you like better?",
            paragraphs=CONSENT,
            text=self.entry.text,
            cursor=self.entry.cursor,
            problem=self.problem,
        )

    def hints(self) -> tuple[Hint, ...]:
        return (
            hint("Enter", "I agree, begin", Action.ENTER, mark="equal"),
            hint("Esc", "close", Action.LEAVE),
        )


class Page(Screen):
    """A text to be read; `Enter` goes on."""

    scroll = 0

    def press(self, press: Press) -> None:
        if press.action is Action.ENTER:
            self.go_on()
        elif press.action is Action.LEAVE:
            self.controller.leave()
        elif press.action is Action.SCROLL:
            self.scroll = max(self.scroll + press.number, 0)
        elif press.action in (Action.UP, Action.DOWN):
            self.scroll = max(self.scroll + (1 if press.action is Action.DOWN else -1), 0)

    def scroll_limit(self, place: int, most: int) -> None:
        self.scroll = min(self.scroll, most)

    def go_on(self) -> None:
        """To whatever is next."""
        self.controller.go_on()


class Instructions(Page):
    """What to prefer, and how to answer; shown first, and by F1 over everything."""

    def __init__(self, controller: Controller, *, then: Callable[[], None]) -> None:
        super().__init__(controller)
        self.go_on = then  # type: ignore[method-assign]

    def press(self, press: Press) -> None:
        over = self.controller.over is self
        if over and press.action in (Action.LEAVE, Action.HELP):
            self.go_on()
        else:
            super().press(press)

    def body(self) -> PageBody:
        text = self.controller.guide
        paragraphs = tuple(p.strip() for p in text.split("\n\n") if p.strip())
        return PageBody(
            kind="instructions",
            title="What to look for",
            paragraphs=(*paragraphs, *HOW),
            scroll=self.scroll,
        )

    def hints(self) -> tuple[Hint, ...]:
        return (hint("Enter", "go on", Action.ENTER, mark="equal"), LEAVE)


HOW = (
    "Go by your first impression of the whole clip. Both look the same? Say so. They have "
    "nothing in common? Say that they cannot be compared.",
    "An answer counts after you have watched for a moment. A slip? Backspace takes back any of "
    "your last 20 answers.",
)


class Waiting(Page):
    """No clips are at hand."""

    def __init__(self, controller: Controller) -> None:
        super().__init__(controller)
        self.seconds = 0.0

    def press(self, press: Press) -> None:
        if press.action is Action.UNDO:
            self.controller.undo()
        elif press.action is Action.LEAVE:
            self.controller.leave()

    def tick(self, seconds: float) -> None:
        self.seconds += seconds
        if self.controller.shelf.front is not None:
            self.controller.go_on()

    def body(self) -> PageBody:
        return PageBody(
            kind="waiting",
            title="Waiting for clips",
            paragraphs=(self._why(),),
            tick=int(self.seconds * 3),
        )

    def _why(self) -> str:
        progress = self.controller.progress
        if progress is None:
            return "Opening the run."
        if progress.open and not progress.waiting:
            return (
                f"{words(progress.open, 'question')} left, for others: you have had your share. "
                "You may leave, or wait: what is for you shows by itself."
            )
        if progress.heartbeat_age is None:
            return (
                "Everything that was asked is answered, and no trainer is at work here that would "
                "ask more. Thank you: you may leave."
            )
        age = progress.heartbeat_age
        if age > LATE:
            return f"The trainer was last seen {span(age)} ago. New clips come when it goes on."
        return (
            "The trainer is at work, and asks again soon. You need do nothing: the next pair "
            "shows by itself."
        )

    def hints(self) -> tuple[Hint, ...]:
        return (UNDO, HELP, LEAVE)


LATE = 30.0  # seconds without a heartbeat


class Break(Page):
    """After many answers."""

    def body(self) -> PageBody:
        session = self.controller.session
        typical = session.typical_seconds
        pace = f" {typical:.1f} seconds each." if typical is not None else ""
        return PageBody(
            kind="break",
            title="Time for a short break",
            paragraphs=(
                f"{words(session.since_break, 'answer')} since the last one.{pace}",
                "Look out of a window for a minute: tired eyes answer at random. Your clips wait.",
            ),
        )

    def go_on(self) -> None:
        self.controller.rested()

    def hints(self) -> tuple[Hint, ...]:
        return (hint("Enter", "go on", Action.ENTER, mark="equal"), LEAVE)


class Pause(Page):
    """Nobody has pressed a key for a while; the clips were given back."""

    def press(self, press: Press) -> None:
        if press.action is Action.LEAVE:
            self.controller.leave()
        else:
            self.controller.wake()

    def body(self) -> PageBody:
        return PageBody(
            kind="pause",
            title="Paused",
            paragraphs=(
                "You were away for a while, so your clips were given back for others.",
                "Everything you answered is stored.",
            ),
        )

    def hints(self) -> tuple[Hint, ...]:
        return (hint("any key", "go on", Action.ENTER, mark="equal"), LEAVE)


class Summary(Page):
    """The end."""

    def press(self, press: Press) -> None:
        if press.action in (Action.ENTER, Action.LEAVE):
            self.controller.close()
        elif press.action is Action.UNDO:
            self.controller.wake()

    def body(self) -> PageBody:
        session, saved = self.controller.session, self.controller.saved
        count, typical = len(session.answers), session.typical_seconds
        minutes = (self.controller.left_at - session.started) / 60
        stored = "All of them are stored." if saved else "The last one is being stored."
        rows = [("answers", f"{count:,}"), ("time", span(minutes * 60))]
        if typical is not None:
            rows += [("typical answer", f"{typical:.1f} s")]
        return PageBody(
            kind="summary",
            title="Thank you" if count else "Goodbye",
            paragraphs=(f"{words(count, 'answer')} this time. {stored}",) if count else (),
            rows=tuple(rows),
            shares=tuple((m, NAMES[m], share) for m, share in session.shares.items()),
        )

    def hints(self) -> tuple[Hint, ...]:
        return (
            hint("Enter", "close", Action.ENTER, mark="equal"),
            hint("Backspace", "go on rating", Action.UNDO),
        )


NAMES: dict[Mark, str] = {"left": "left", "right": "right", "equal": "equal", "cannot": "cannot"}


class Trouble(Page):
    """The store cannot be used; nothing that was acknowledged is lost."""

    def __init__(
        self, controller: Controller, message: str, *, before: Screen, covered: Screen | None
    ) -> None:
        super().__init__(controller)
        self.message, self.before, self.covered = message, before, covered

    def press(self, press: Press) -> None:
        if press.action is Action.ENTER:
            self.controller.retry(self)
        elif press.action is Action.LEAVE:
            self.controller.close()
        else:
            super().press(press)

    def body(self) -> PageBody:
        kept = "Every answer that was stored is safe."
        if not self.controller.saved:
            kept += " Your last one is not stored yet: it is kept here, and tried again."
        return PageBody(
            kind="trouble",
            title="Something is in the way",
            paragraphs=(self.message, kept),
            scroll=self.scroll,
        )

    def hints(self) -> tuple[Hint, ...]:
        return (
            hint("Enter", "try again", Action.ENTER, mark="equal"),
            hint("Esc", "leave", Action.LEAVE),
        )


class Note(Screen):
    """A line typed over a question."""

    typing = True

    def __init__(
        self,
        controller: Controller,
        *,
        title: str,
        about: str,
        text: str,
        then: Callable[[str], None],
        aside: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(controller)
        self.title, self.about, self.then, self.aside = title, about, then, aside
        self.entry = Entry(text, limit=NOTE_BYTES, lines=False)

    def press(self, press: Press) -> None:
        if press.action is Action.ENTER:
            self.controller.uncover()
            self.then(self.entry.text.strip())
        elif press.action is Action.LEAVE:
            self.controller.uncover()
        else:
            self.entry.press(press.action)

    def type(self, text: str) -> None:
        if not self.entry.type(text):
            self.controller.say("no more fits into a note")

    def put_aside(self) -> None:
        if self.aside is not None:
            self.aside(self.entry.text.strip())

    def note(self) -> NoteBody:
        """What lies over the question."""
        return NoteBody(
            title=self.title, hint=self.about, text=self.entry.text, cursor=self.entry.cursor
        )

    def hints(self) -> tuple[Hint, ...]:
        return (
            hint("Enter", "keep", Action.ENTER, mark="equal"),
            hint("Esc", "cancel", Action.LEAVE),
        )
