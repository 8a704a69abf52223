"""A text that is being typed."""

from clip_viewer.control.actions import Action
from clip_viewer.control.entry import Entry


def entry(text="", limit=100, lines=True):
    return Entry(text, limit=limit, lines=lines)


def test_typing_goes_in_at_the_cursor():
    e = entry("ac")
    e.press(Action.LEFT)
    e.type("b")
    assert (e.text, e.cursor) == ("abc", 2)


def test_backspace_and_delete_take_one_character_each():
    e = entry("abc")
    e.press(Action.LEFT)
    e.press(Action.UNDO)
    assert (e.text, e.cursor) == ("ac", 1)
    e.press(Action.DELETE)
    assert (e.text, e.cursor) == ("a", 1)
    e.press(Action.DELETE)
    assert e.text == "a"


def test_what_does_not_fit_is_not_taken_even_in_part():
    e = entry("12345678", limit=10)
    assert not e.type("äb")  # three bytes
    assert e.text == "12345678"
    assert e.type("ä")


def test_control_characters_are_left_out_and_a_line_stays_one():
    assert entry("a\x1b\x00b\nc", lines=False).text == "abc"
    assert entry("a\tb", lines=False).text == "ab"
    assert entry("a\nb").text == "a\nb"


def test_indentation_and_wide_spaces_stay():
    code = "def f():\n\treturn 1\u00a0x\u3000y"
    assert entry(code).text == code


def test_up_and_down_keep_the_column_where_the_line_is_long_enough():
    e = entry("long line\nab\nanother")
    e.cursor = 6
    e.press(Action.DOWN)
    assert e.cursor == len("long line\nab")
    e.press(Action.UP)
    assert e.cursor == 2
    e.press(Action.UP)
    assert e.cursor == 0
    e.cursor = 12
    e.press(Action.DOWN)
    e.press(Action.DOWN)
    assert e.cursor == len(e.text)


def test_home_and_end_stay_on_the_line():
    e = entry("ab\ncdef\ng")
    e.cursor = 5
    e.press(Action.HOME)
    assert e.cursor == 3
    e.press(Action.END)
    assert e.cursor == 7


def test_other_keys_are_not_its_business():
    assert not entry().press(Action.SKIP)
