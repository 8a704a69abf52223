"""The screen on which a completion is corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefrl.feedback import Edit

from .actions import Action, Press
from .entry import Entry
from .questions import PROMPT, Given, Question
from .screen import HELP, LEAVE, hint
from .shelf import Item
from .views import EditBody, Flash, Hint, QuestionBody

if TYPE_CHECKING:
    from .controller import Controller

TEXT_BYTES = 64 * 1024


class EditQuestion(Question):
    """A text to be made better; `Enter` is a new line, `Ctrl+Enter` sends."""

    def __init__(self, controller: Controller, item: Item) -> None:
        super().__init__(controller, item)
        self.entry: Entry | None = None
        self._start = ""

    @property
    def typing(self) -> bool:  # type: ignore[override]
        """Once the text is there."""
        return self.entry is not None and self.given is None and self.verdict is None

    @property
    def original(self) -> str:
        """As it came."""
        material = self.item.places[0]
        return material if isinstance(material, str) else ""

    def tick(self, seconds: float) -> None:
        if self.entry is None and isinstance(self.item.places[0], str):
            self.entry = Entry(self.original, limit=TEXT_BYTES, lines=True)
            self.entry.cursor = 0
            self._start = self.entry.text  # without what could steer a terminal
            self._take_up(self.entry)
        super().tick(seconds)

    def _take_up(self, entry: Entry) -> None:
        """Go on with what was put aside."""
        draft = self.controller.drafts.get(self.item.assignment.query.id)
        if draft is not None:
            entry.text, entry.cursor = draft, len(draft)

    def put_aside(self) -> None:
        if self.entry is not None:
            self.controller.drafts[self.item.assignment.query.id] = self.entry.text

    def press(self, press: Press) -> None:
        entry = self.entry
        if not self.typing or entry is None:
            super().press(press)
        elif press.action is Action.ENTER and press.key == "Return":
            self.type("\n")
        elif press.action is Action.ENTER:
            self._send(press)
        elif press.action is Action.UNDO and press.key != "Backspace":
            self._undo_answer(entry)
        elif not entry.press(press.action):
            super().press(press)

    def type(self, text: str) -> None:
        if self.entry is not None and not self.entry.type(text):
            self.controller.say("no more fits")

    def _undo_answer(self, entry: Entry) -> None:
        """Of the question before; many press Ctrl+Z to undo what they have typed."""
        if entry.text != self._start:
            return self.controller.say("Ctrl Z takes back the answer before: send or skip first")
        self.controller.undo()

    def _send(self, press: Press) -> None:
        assert self.entry is not None
        if self.entry.text == self._start:
            return self.controller.say("nothing is changed yet: edit, or skip")
        if not self.entry.text.strip():
            return self.controller.say("nothing is left: write something, or skip")
        flash = Flash(text="Correction sent", mark="equal", place=0)
        self.give(Given(reply=Edit(text=self.entry.text), flash=flash), press)

    def body(self) -> EditBody | QuestionBody:  # type: ignore[override]
        if self.entry is None or self.item.broken:
            return super().body()
        return EditBody(
            question="Make this answer better",
            prompt=self.item.prompt,
            text=self.entry.text,
            cursor=self.entry.cursor,
            changed=self.entry.text != self._start,
            prompt_scroll=self._scroll.get(PROMPT, 0),
            flash=self.given.flash if self.given else None,
        )

    def hints(self) -> tuple[Hint, ...]:
        if not self.typing:
            return super().hints()
        return (
            hint("Ctrl Enter", "send", Action.ENTER, mark="equal"),
            hint("Ctrl S", "skip", Action.SKIP),
            hint("Ctrl Z", "undo the last answer", Action.UNDO),
            hint("Ctrl N", "note", Action.NOTE),
            hint("Ctrl F", "flag", Action.FLAG),
            HELP,
            LEAVE,
        )
