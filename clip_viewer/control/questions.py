"""The screens that ask: comparison of clips or texts, ranking, rating."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefrl.feedback import Comparison, Reply, Viewing

from .actions import Action, Press
from .pages import Note
from .playback import Playback
from .practice import verdict_on
from .screen import HELP, LEAVE, UNDO, Screen, hint
from .shelf import Item
from .views import Flash, Hint, Mark, Pane, QuestionBody, Verdict

if TYPE_CHECKING:
    from .controller import Controller

PROMPT = -1  # its place among the panes
LEAST_SECONDS = 0.8
FLASH_SECONDS = 0.25
NUDGE_SECONDS = 0.6
PHRASES: dict[Mark, str] = {
    "left": "Left is better",
    "right": "Right is better",
    "equal": "Equally good",
    "cannot": "Cannot be compared",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer that has been chosen."""

    reply: Reply
    """What goes into the store."""
    flash: Flash
    """What names it on the screen."""


class Question(Screen):
    """Shows one item, takes one answer; the kinds of query say which keys make it.

    A choice counts once the clips were watched for `LEAST_SECONDS` or one loop. It is stored
    while a flash names it; the next question comes when both are over.
    """

    form: Any = "comparison"
    question = "Which is better?"

    def __init__(self, controller: Controller, item: Item) -> None:
        super().__init__(controller)
        self.item = item
        self.opened = controller.clock()
        self.play: Playback | None = None
        self.note = controller.notes.get(item.assignment.query.id, "")
        self.given: Given | None = None
        self.stored = False
        self.verdict: Verdict | None = None
        self._first_frame: float | None = None  # seconds until it
        self._seconds = 0.0  # since then, while in front
        self._given_at = self._nudged_at = -1e9
        self._flagged = False
        self._scroll: dict[int | None, int] = {}

    # ---- time -------------------------------------------------------------------------

    def tick(self, seconds: float) -> None:
        if self._first_frame is not None:
            self._seconds += seconds
            if self.play is not None:
                self.play.advance(seconds)
        elif self.item.complete:
            self._begin()
        if self.given is not None and self.stored and self._flash_over():
            self._conclude()

    def _begin(self) -> None:
        """Everything is here."""
        broken = self.item.broken
        if broken:
            if any(b.damaged for b in broken) and not self._flagged:
                self._flagged = True
                self.controller.flag_quietly(self.item, broken[0].reason)
            return
        self._first_frame = self.controller.clock() - self.opened
        clips = self.item.clips
        if clips:
            self.play = Playback(
                lengths=[len(clip.frames) for clip in clips],
                fps=[clip.fps for clip in clips],
                speed=self.controller.speed,
            )

    def _flash_over(self) -> bool:
        return self.controller.clock() - self._given_at >= FLASH_SECONDS

    @property
    def _watched(self) -> bool:
        """Long enough for an answer?"""
        if self._first_frame is None:
            return False
        looped = self.play is not None and self.play.loops >= 1
        return looped or self._seconds >= LEAST_SECONDS

    # ---- keys -------------------------------------------------------------------------

    def press(self, press: Press) -> None:
        if self.verdict is not None:
            if press.action in (Action.ENTER, Action.LEFT, Action.RIGHT, Action.PICK):
                self.controller.go_on()
            elif press.action is Action.LEAVE:
                self.controller.leave()
        elif self.given is not None:
            return  # a second press while the first is named
        elif self.item.broken and self.item.complete:
            self._press_broken(press)
        elif not self._press_common(press) and not self._press_play(press):
            self.choose(press)

    def choose(self, press: Press) -> None:
        """A key that belongs to this kind of query."""

    def _press_common(self, press: Press) -> bool:
        controller = self.controller
        if press.action is Action.SKIP:
            controller.skip(self.item)
        elif press.action is Action.UNDO:
            controller.undo()
        elif press.action is Action.NOTE:
            self._write_note()
        elif press.action is Action.FLAG:
            self._write_flag()
        elif press.action is Action.LEAVE:
            controller.leave()
        elif press.action is Action.SCROLL:
            self._scroll_by(press)
        else:
            return False
        return True

    def _press_play(self, press: Press) -> bool:
        play = self.play
        if press.action not in PLAYING:
            return False
        if play is None:
            return True
        if press.action is Action.PAUSE:
            play.toggle()
        elif press.action is Action.RESTART:
            play.restart()
        elif press.action in (Action.FRAME_BACK, Action.FRAME_ON):
            play.step(1 if press.action is Action.FRAME_ON else -1)
        else:
            play.faster(1 if press.action is Action.FASTER else -1)
            self.controller.speed = play.speed
        return True

    def _press_broken(self, press: Press) -> None:
        if press.action in (Action.ENTER, Action.SKIP):
            if self._flagged:
                self.controller.pass_over(self.item)
            else:
                self.controller.skip(self.item)
        elif press.action is Action.FLAG and not self._flagged:
            self.controller.flag(self.item, self.item.broken[0].reason)
        elif press.action is Action.UNDO:
            self.controller.undo()
        elif press.action is Action.LEAVE:
            self.controller.leave()

    def _scroll_by(self, press: Press) -> None:
        everywhere: list[int | None] = [PROMPT, *range(len(self.item.places))]
        for pane in everywhere if press.place is None else [press.place]:
            self._scroll[pane] = max(self._scroll.get(pane, 0) + press.number, 0)

    def scroll_limit(self, place: int, most: int) -> None:
        self._scroll[place] = min(self._scroll.get(place, 0), most)

    def _write_note(self) -> None:
        def aside(text: str) -> None:
            self.note = self.controller.notes[self.item.assignment.query.id] = text

        def keep(text: str) -> None:
            aside(text)
            self.controller.say("note kept: it goes with your answer" if text else "no note")

        self.controller.cover(
            Note(
                self.controller,
                title="A note on this question",
                about="Stored with your answer.",
                text=self.note,
                then=keep,
                aside=aside,
            )
        )

    def _write_flag(self) -> None:
        self.controller.cover(
            Note(
                self.controller,
                title="What is broken?",
                about="A few words help; none are needed. The question is taken out.",
                text=self.note,
                then=lambda text: self.controller.flag(self.item, text),
            )
        )

    # ---- answers ----------------------------------------------------------------------

    def give(self, given: Given, press: Press) -> None:
        """This is the answer, if it does not come too early."""
        if not self._watched:
            if self._first_frame is not None:
                self._nudged_at = self.controller.clock()
            return
        self.given, self._given_at = given, self.controller.clock()
        self.controller.submit(self, given.reply, self._viewing(press), given.flash.mark)

    def _viewing(self, press: Press) -> Viewing:
        play = self.play
        return Viewing(
            order=self.item.assignment.order,
            key=press.key,
            seconds=self._seconds,
            first_frame_seconds=self._first_frame or 0.0,
            loops=play.loops if play else 0.0,
            speed=play.speed if play else 1.0,
            note=self.note,
            instructions=self.controller.instructions.version,
        )

    def _conclude(self) -> None:
        """The flash is over and the answer is stored."""
        assert self.given is not None
        if self.verdict is None and self.item.assignment.query.purpose == "practice":
            self.verdict = verdict_on(self.item.assignment, self.given.reply)
        if self.verdict is None:
            self.controller.go_on()

    # ---- what is to be seen -----------------------------------------------------------

    def body(self) -> QuestionBody:
        flashing = self.given is not None and self.verdict is None
        play = self.play
        return QuestionBody(
            form=self.form,
            question=self.question,
            guide=self.controller.guide_line,
            panes=tuple(self.pane(place) for place in range(len(self.item.places))),
            prompt=self.item.prompt,
            prompt_scroll=self._scroll.get(PROMPT, 0),
            position=None if play is None else round(play.position, 3),
            paused=play is not None and play.paused,
            speed=play.speed if play else 1.0,
            practice=self.item.assignment.query.purpose == "practice",
            value=None,
            slots=(),
            flash=self.given.flash if self.given and flashing else None,
            verdict=self.verdict,
            nudge=self.controller.clock() - self._nudged_at < NUDGE_SECONDS,
        )

    def pane(self, place: int) -> Pane:
        """What lies at a place of the screen."""
        return Pane(
            material=self.item.places[place],
            frame=self.play.frame(place) if self.play else 0,
            scroll=self._scroll.get(place, 0),
        )

    def hints(self) -> tuple[Hint, ...]:
        if self.verdict is not None:
            return (hint("Enter", "go on", Action.ENTER, mark="equal"), LEAVE)
        if self.item.broken and self.item.complete:
            return self._broken_hints()
        return (*self.answers(), *(PLAY_HINTS if self.play or not self._texts else TEXT_HINTS))

    def answers(self) -> tuple[Hint, ...]:
        """The legend of the answers."""
        return ()

    @property
    def _texts(self) -> bool:
        return any(isinstance(m, str) for m in self.item.places)

    def _broken_hints(self) -> tuple[Hint, ...]:
        onward = hint("Enter", "next question", Action.ENTER, mark="equal")
        flag = () if self._flagged else (hint("F", "flag as broken", Action.FLAG),)
        return (onward, *flag, UNDO, LEAVE)


CANNOT = Given(
    reply=Comparison(choice="cannot"), flash=Flash(text=PHRASES["cannot"], mark="cannot")
)
"""Answers any kind of query."""


class ComparisonQuestion(Question):
    """Left, right, equal, or cannot be compared; clips or texts."""

    def choose(self, press: Press) -> None:
        mark = {
            Action.LEFT: "left",
            Action.RIGHT: "right",
            Action.UP: "equal",
            Action.DOWN: "cannot",
        }.get(press.action)
        if press.action is Action.PICK:
            mark = ("left", "right")[press.number]
        if mark is not None:
            self._give(mark, press)  # type: ignore[arg-type]

    def _give(self, mark: Mark, press: Press) -> None:
        place = {"left": 0, "right": 1}.get(mark)
        if place is None:
            reply = Comparison(choice="tie" if mark == "equal" else "cannot")
        else:
            first = self.item.assignment.order[place] == 0
            reply = Comparison(choice="first" if first else "second")
        flash = Flash(text=PHRASES[mark], mark=mark, place=place)
        self.give(Given(reply=reply, flash=flash), press)

    def pane(self, place: int) -> Pane:
        return replace(super().pane(place), mark=("left", "right")[place])

    def answers(self) -> tuple[Hint, ...]:
        return COMPARISON_HINTS


COMPARISON_HINTS = (
    hint("Left", "left is better", Action.LEFT, mark="left"),
    hint("Up", "equally good", Action.UP, mark="equal"),
    hint("Down", "cannot compare", Action.DOWN, mark="cannot"),
    hint("Right", "right is better", Action.RIGHT, mark="right"),
)
OTHERS = (
    hint("S", "skip", Action.SKIP),
    UNDO,
    hint("N", "note", Action.NOTE),
    hint("F", "flag", Action.FLAG),
    HELP,
    LEAVE,
)
PLAY_HINTS = (
    hint("Space", "pause", Action.PAUSE),
    hint("R", "restart", Action.RESTART),
    hint(",", "back", Action.FRAME_BACK),
    hint(".", "step", Action.FRAME_ON),
    hint("-", "slower", Action.SLOWER),
    hint("+", "faster", Action.FASTER),
    *OTHERS,
)
TEXT_HINTS = (hint("Page Down", "scroll", Action.SCROLL, number=8), *OTHERS)
PLAYING = {hint.press.action for hint in PLAY_HINTS[:6]}
