"""The state machine behind the window: one screen at a time, keys in, views out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from prefrl.feedback import Assignment, Instructions, Progress, Reply, Viewing

from .actions import Action, Press
from .clerk import Clerks
from .desk import Seat
from .drawing import Drawer
from .editing import EditQuestion
from .grids import RankingQuestion, RatingQuestion
from .pages import LATE, Break, Note, Pause, SignIn, Summary, Trouble, Waiting
from .pages import Instructions as InstructionsPage
from .questions import ComparisonQuestion, Question
from .screen import Screen, span
from .session import Session
from .shelf import Item, Shelf
from .views import Header, Mark, View

HEARTBEAT_SECONDS, ACTIVE_SECONDS, IDLE_SECONDS = 15.0, 60.0, 180.0
PROGRESS_SECONDS, TAKE_SECONDS, TOAST_SECONDS = 2.0, 0.5, 1.8
LONGEST_TICK = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What is read when the run is opened."""

    task: str
    """The task's id."""
    instructions: Instructions
    """The newest version."""


QUESTIONS: dict[str, type[Question]] = {
    "comparison": ComparisonQuestion,
    "ranking": RankingQuestion,
    "rating": RatingQuestion,
    "edit": EditQuestion,
}


class Controller:
    """Decides what is on the screen.

    Args:
        clerk: carries requests to the store.
        drawer: draws clips that have no pictures.
        name: the rater's, if it is known already.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        *,
        clerk: Clerks,
        drawer: Drawer,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.clerk = clock, clerk
        clerk.trouble = self.trouble
        self.shelf = Shelf(self.clerk, drawer)
        self.name, self.speed, self.done, self.saved = name, 1.0, False, True
        self.failure: BaseException | None = None
        """Why it ended, if by trouble."""
        self.instructions, self.task = Instructions(version=0, text=""), ""
        self.progress: Progress | None = None
        self.drafts: dict[str, str] = {}
        """By query: corrections that are half written; the question comes back."""
        self.notes: dict[str, str] = {}
        """By query: what goes with its answer."""
        now = clock()
        self.session = Session(started=now, rested=now)
        self.left_at = now
        self.screen: Screen = SignIn(self, name)
        self.over: Screen | None = None
        """Lies over the screen, whose time stands still."""
        self._signed_in = self._away = self._counting = False
        self._seen = True
        self._focused = True
        self._held: set[str] = set()
        self._toast, self._toasted = "", -1e9
        self._last_tick = self._active = now
        self._beaten = self._asked_progress = self._asked_take = -1e9
        self.clerk.call(_read_opened, self._opened)

    # ---- input ------------------------------------------------------------------------

    @property
    def front(self) -> Screen:
        """Who gets the keys."""
        return self.over or self.screen

    @property
    def typing(self) -> bool:
        """Do letters go into a text?"""
        return self.front.typing

    def press(self, press: Press) -> None:
        """A key went down; one that is still held down from before does not count."""
        self._active = self.clock()
        if press.key in self._held and not self.typing:
            return
        if press.key != "mouse":
            self._held.add(press.key)
        helps = self._signed_in and self.over is None and not isinstance(self.screen, Trouble)
        if press.action is Action.HELP and helps:
            self.cover(InstructionsPage(self, then=self.uncover))
        else:
            self.front.press(press)

    def release(self, key: str) -> None:
        """A key went up."""
        self._held.discard(key)

    def type(self, text: str) -> None:
        """Letters were typed."""
        self._active = self.clock()
        self.front.type(text)

    def focus(self, focused: bool) -> None:
        """The window got or lost the keyboard; a key may go up meanwhile."""
        self._focused = focused
        self._held.clear()

    def see(self, seen: bool) -> None:
        """The window is there to be seen, or minimised: then no time passes."""
        self._seen = seen

    # ---- time -------------------------------------------------------------------------

    def tick(self) -> None:
        """Take in what came from the store, and let time pass."""
        now = self.clock()
        seconds, self._last_tick = now - self._last_tick, now
        self.clerk.poll()
        self.shelf.poll()
        if self._signed_in and not self._away and not isinstance(self.screen, Trouble):
            self._routine(now)
        if self._seen:
            self.front.tick(min(max(seconds, 0.0), LONGEST_TICK))

    def _routine(self, now: float) -> None:
        """What is due every so many seconds while somebody rates."""
        if now - self._active >= IDLE_SECONDS:
            return self._fall_asleep()
        if self.shelf.wants and now - self._asked_take >= TAKE_SECONDS:
            self._asked_take = now
            self.shelf.refill()
        if now - self._asked_progress >= PROGRESS_SECONDS:
            self._ask_progress()
        active = self._focused and now - self._active < ACTIVE_SECONDS
        if active and now - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = now
            self.clerk.call(lambda seat: seat.at.heartbeat())

    def _ask_progress(self) -> None:
        """Unless an answer is still to come: a slow store is not to be asked more and more."""
        if not self._counting:
            self._asked_progress, self._counting = self.clock(), True
            self.clerk.call(lambda seat: seat.at.progress(), self._progressed)

    def _progressed(self, progress: Progress) -> None:
        self.progress, self._counting = progress, False

    # ---- from screen to screen --------------------------------------------------------

    def sign_in(self, name: str) -> None:
        """The rater has agreed."""
        self.name = name

        def sit(seat: Seat) -> None:
            seat.desk = seat.place.sit(name)

        self.clerk.call(sit, lambda _: self._ready())
        self.screen = Waiting(self)

    def go_on(self) -> None:
        """To the next question, or to what comes before it."""
        item = self.shelf.front
        if self.session.needs_break(self.clock()):
            self.screen = Break(self)
        elif item is None:
            self.screen = Waiting(self)
        else:
            self.screen = QUESTIONS[item.assignment.query.form](self, item)

    def rested(self) -> None:
        """A break is over."""
        self.session.rest(self.clock())
        self.go_on()

    def leave(self) -> None:
        """Give everything back, and show what was done."""
        self.over, self.left_at, self._away = None, self.clock(), True
        if self._signed_in:
            self.clerk.call(lambda seat: seat.at.leave(), lambda _: self.shelf.clear())
        self.screen = Summary(self)

    def _fall_asleep(self) -> None:
        for screen in (self.over, self.screen):
            if screen is not None:
                screen.put_aside()
        self._away, self.over = True, None
        self.clerk.call(lambda seat: seat.at.leave(), lambda _: self.shelf.clear())
        self.screen = Pause(self)

    def wake(self) -> None:
        """Somebody is there again."""
        self._away, self._asked_take = False, -1e9
        self._active = self.clock()
        self.session.rest(self._active)
        self.shelf.clear()
        self.go_on()

    def close(self) -> None:
        """The end; the window goes."""
        self.done = True

    def cover(self, screen: Screen) -> None:
        """Lay a screen over the present one."""
        self.over = screen

    def uncover(self) -> None:
        """Take it away."""
        self.over = None

    def trouble(self, error: BaseException) -> None:
        """The store cannot be used; the clerk waits until `retry`."""
        now = self.screen
        before, over = (now.before, now.covered) if isinstance(now, Trouble) else (now, self.over)
        self.failure, self.over = error, None
        self.screen = Trouble(self, " ".join(str(error).split()), before=before, covered=over)

    def retry(self, trouble: Trouble) -> None:
        """Do again what failed, and go back to where that was."""
        self.failure, self.screen, self.over = None, trouble.before, trouble.covered
        self.clerk.retry()

    def say(self, text: str) -> None:
        """A remark that goes by itself."""
        self._toast, self._toasted = text, self.clock()

    # ---- answers ----------------------------------------------------------------------

    def submit(self, question: Question, reply: Reply, viewing: Viewing, mark: Mark) -> None:
        """Store an answer; the question learns when that is done."""
        assignment, self.saved = question.item.assignment, False

        def stored(outcome: str) -> None:
            self.saved = question.stored = True
            self._forget_drafts(assignment.query.id)
            if assignment.query.purpose != "practice":
                self.session.count(viewing.seconds, mark)
            if outcome == "stale":
                self.say("this question was withdrawn; your answer is kept")
            elif outcome == "extra":
                self.say("this question had its answer already; yours is kept beside it")
            self.shelf.refill()
            self._ask_progress()

        self.shelf.done(question.item)  # at once: a slow store must not have it asked again
        self.clerk.call(lambda seat: seat.at.submit(assignment, reply, viewing), stored)

    def skip(self, item: Item) -> None:
        """Give the query back."""
        self.clerk.call(lambda seat: seat.at.skip(item.assignment))
        self.say("skipped: somebody else will see it")
        self.pass_over(item)

    def flag(self, item: Item, note: str) -> None:
        """Report it as broken, and go on."""
        self.flag_quietly(item, note)
        self.say("flagged as broken, thank you")
        self.pass_over(item)

    def flag_quietly(self, item: Item, note: str) -> None:
        """Report it as broken; it stays on the screen."""
        note = note.encode()[:4000].decode(errors="ignore")
        self.clerk.call(lambda seat: seat.at.flag(item.assignment, note))

    def pass_over(self, item: Item) -> None:
        """To the next one."""
        self._forget_drafts(item.assignment.query.id)
        self.shelf.done(item)
        self._asked_take = self.clock()
        self.shelf.refill()
        self.go_on()

    def _forget_drafts(self, query: str) -> None:
        self.drafts.pop(query, None)
        self.notes.pop(query, None)

    def undo(self) -> None:
        """Take back the newest answer, and ask again."""

        def taken_back(assignment: Assignment | None) -> None:
            if assignment is None:
                return self.say("nothing more to take back")
            if self._away:
                return
            self.session.take_back()
            self.shelf.put_first(assignment)
            self.say("taken back: answer it again")
            self.over = None
            self.go_on()

        self.clerk.call(lambda seat: seat.at.undo(), taken_back)

    # ---- what is to be seen -----------------------------------------------------------

    @property
    def guide(self) -> str:
        """The instructions, or a word of why there are none."""
        return self.instructions.text.strip() or "Choose the behaviour that you like better."

    @property
    def guide_line(self) -> str:
        """Their first line."""
        return self.guide.splitlines()[0]

    def view(self) -> View:
        """The whole window."""
        over = self.over
        covered = over.note() if isinstance(over, Note) else None
        if isinstance(over, InstructionsPage):
            covered = over.body()  # type: ignore[assignment]
        shown = self.clock() - self._toasted < TOAST_SECONDS
        return View(
            header=self._header() if self._signed_in else None,
            body=self.screen.body(),
            hints=self.front.hints(),
            over=covered,
            toast=self._toast if shown else "",
        )

    def _header(self) -> Header:
        progress = self.progress
        age = progress.heartbeat_age if progress else None
        return Header(
            task=self.task,
            name=self.name,
            answered=progress.answered if progress else 0,
            per_hour=progress.per_hour or None if progress else None,
            minutes_left=_minutes_left(progress),
            labels=progress.labels if progress else 0,
            due=progress.due if progress else None,
            trainer="none" if age is None else "alive" if age <= LATE else "late",
            trainer_age="" if age is None else span(age),
            unsaved=not self.saved,
        )

    # ---- opening ----------------------------------------------------------------------

    def _opened(self, opened: Opened) -> None:
        self.task, self.instructions = opened.task, opened.instructions

    def _ready(self) -> None:
        self._signed_in = True
        now = self.clock()
        self._active = now
        self.session = Session(started=now, rested=now)
        self.shelf.refill()
        self._ask_progress()
        if isinstance(self.screen, Waiting):
            self.screen = InstructionsPage(self, then=self.go_on)


def _read_opened(seat: Seat) -> Opened:
    return Opened(task=seat.place.task, instructions=seat.place.instructions())


def _minutes_left(progress: Progress | None) -> int | None:
    if progress is None or progress.due is None or not progress.per_hour:
        return None
    return round(max(progress.due - progress.labels, 0) / progress.per_hour * 60)
