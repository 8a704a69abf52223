"""A text that is being typed."""

from __future__ import annotations

from prefrl.feedback.replies import plain_text

from .actions import Action


class Entry:
    """A text and a cursor.

    Args:
        limit: bytes of UTF-8; what would go over it is not taken.
        lines: may it have more than one?
    """

    def __init__(self, text: str = "", *, limit: int, lines: bool) -> None:
        self.text, self.limit, self.lines = "", limit, lines
        self.cursor = 0
        self.type(text)

    def type(self, text: str) -> bool:
        """Insert at the cursor; False if it does not fit."""
        text = plain_text(text)
        if not self.lines:
            text = text.translate({ord("\n"): None, ord("\t"): None})
        if len((self.text + text).encode("utf-8", "replace")) > self.limit:
            return False
        self.text = self.text[: self.cursor] + text + self.text[self.cursor :]
        self.cursor += len(text)
        return True

    def press(self, action: Action) -> bool:
        """Move or delete; was the key of that kind?"""
        if action is Action.UNDO:
            self._delete(self.cursor - 1)
        elif action is Action.DELETE:
            self._delete(self.cursor)
        elif action in (Action.LEFT, Action.RIGHT):
            self._move(self.cursor + (1 if action is Action.RIGHT else -1))
        elif action in (Action.UP, Action.DOWN):
            self._line(1 if action is Action.DOWN else -1)
        elif action is Action.HOME:
            self._move(self._starts()[self._row()])
        elif action is Action.END:
            self._move(self._end(self._row()))
        else:
            return False
        return True

    def _delete(self, place: int) -> None:
        if 0 <= place < len(self.text):
            self.text = self.text[:place] + self.text[place + 1 :]
            self.cursor = place

    def _move(self, cursor: int) -> None:
        self.cursor = min(max(cursor, 0), len(self.text))

    def _line(self, rows: int) -> None:
        """To the same column of another line."""
        starts, row = self._starts(), self._row()
        target = row + rows
        if not 0 <= target < len(starts):
            return self._move(0 if rows < 0 else len(self.text))
        column = self.cursor - starts[row]
        self._move(min(starts[target] + column, self._end(target)))

    def _starts(self) -> list[int]:
        return [0, *(i + 1 for i, c in enumerate(self.text) if c == "\n")]

    def _row(self) -> int:
        return self.text.count("\n", 0, self.cursor)

    def _end(self, row: int) -> int:
        starts = self._starts()
        return starts[row + 1] - 1 if row + 1 < len(starts) else len(self.text)
