"""The window under SDL's dummy driver: events are posted, pixels are read."""

import hashlib

import numpy as np
import pygame
import pytest

from clip_viewer.control.actions import Action
from clip_viewer.control.playback import SPEEDS
from clip_viewer.show import theme
from clip_viewer.show.clips import fit, grid
from clip_viewer.show.keys import KEYS, LETTERS
from clip_viewer.show.pen import Pen, balanced, cut, spans, wrap
from clip_viewer.show.window import Window, check_pygame
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Edit, Pictures, Ranking, Rating
from tests.clip_viewer.helpers import FakeLibrary, pairs, pictures, query, room, segment_id


class Person:
    """Sits before a window and presses what is printed on the keys."""

    def __init__(self, r, **settings):
        self.room = r
        self.window = Window(r.controller, **settings)
        self.turn()

    def turn(self, seconds=0.0):
        for _ in range(max(round(seconds / 0.1), 1)):
            self.room.clock.now += min(seconds, 0.1)
            self.window.turn(wait_ms=0)

    def down(self, key, text="", mod=0):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode=text, mod=mod))

    def press(self, key, *, mod=0):
        code, text = (ord(key), key) if isinstance(key, str) else (key, "")
        self.down(code, text, mod)
        if text:
            pygame.event.post(pygame.event.Event(pygame.TEXTINPUT, text=text))
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=code, mod=0))
        self.turn()

    def write(self, text):
        pygame.event.post(pygame.event.Event(pygame.TEXTINPUT, text=text))
        self.turn()

    def post(self, kind, **about):
        pygame.event.post(pygame.event.Event(kind, **about))
        self.turn()

    def click(self, point):
        self.post(pygame.MOUSEBUTTONDOWN, button=1, pos=point)

    def begin(self):
        self.press(pygame.K_RETURN)
        self.press(pygame.K_RETURN)
        self.turn(1.0)
        return self

    def button(self, action, number=0):
        """The middle of the button that means `action`."""
        zones = [r for r, p in self.window.drawn.zones if (p.action, p.number) == (action, number)]
        return zones[-1].center

    @property
    def screen(self):
        return pygame.display.get_surface()

    @property
    def replies(self):
        return [reply for _, reply, _ in self.room.desk.answers]

    def pixels(self):
        return pygame.surfarray.array3d(self.screen)


@pytest.fixture
def person(request):
    """Makes a person; their window is closed afterwards."""
    made = []

    def make(r, **settings):
        made.append(Person(r, **settings))
        return made[-1]

    yield make
    for one in made:
        one.window.close()


def near(pixels, colour):
    """How many pixels have that colour."""
    return int((np.abs(pixels.astype(int) - colour).sum(-1) < 12).sum())


# ---- keys, mouse, pad -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "choice"),
    [
        (pygame.K_LEFT, "first"),
        (pygame.K_RIGHT, "second"),
        (pygame.K_UP, "tie"),
        (pygame.K_DOWN, "cannot"),
    ],
)
def test_the_arrows_answer(person, key, choice):
    p = person(room(pairs(2))).begin()
    p.press(key)
    assert p.replies == [Comparison(choice=choice)]


def test_a_window_opens_no_larger_than_the_screen(person, monkeypatch):
    person(room(pairs(1)))
    assert pygame.display.get_window_size() == (1024, 768)  # SDL's dummy screen
    monkeypatch.setattr("pygame.display.get_desktop_sizes", lambda: [(3840, 2160)])
    person(room(pairs(1)))
    assert pygame.display.get_window_size() == (1280, 800)


def test_every_key_of_the_legend_does_something(person):
    p = person(room(pairs(9))).begin()
    play = p.room.controller.screen.play
    p.press(" ")
    assert play.paused
    p.press(".")
    p.press(".")
    frame = play.frame(0)
    p.press(",")
    assert play.frame(0) == frame - 1
    p.press("r")
    assert (play.frame(0), play.paused) == (0, False)
    p.press("+")
    assert play.speed == SPEEDS[3]
    p.press("-")
    assert play.speed == SPEEDS[2]
    p.press("s")
    assert len(p.room.desk.skipped) == 1
    p.press(pygame.K_F1)
    assert p.room.controller.over is not None
    p.press(pygame.K_F1)
    p.press("f")
    p.press(pygame.K_RETURN)
    assert len(p.room.desk.flagged) == 1
    p.turn(1)
    p.press(pygame.K_LEFT)
    p.turn(0.5)
    p.press(pygame.K_BACKSPACE)
    assert p.replies == []
    p.press(pygame.K_ESCAPE)
    assert p.room.screen == "Summary"


def test_the_letter_that_opens_a_note_does_not_go_into_it(person):
    p = person(room(pairs(1))).begin()
    p.press("n")
    p.write("narrow")
    p.press(pygame.K_BACKSPACE)
    p.press(pygame.K_RETURN)
    p.turn(1)
    p.press(pygame.K_LEFT)
    assert p.room.desk.answers[0][2].note == "narro"


def test_letters_typed_into_a_note_are_no_commands(person):
    p = person(room(pairs(2))).begin()
    p.press("n")
    for letter in "sfr":
        p.press(letter)
    assert p.room.controller.over.entry.text == "sfr"
    assert p.room.desk.skipped == []


@pytest.mark.parametrize("place", [0, 1])
def test_a_clip_can_be_clicked(person, place):
    p = person(room(pairs(2))).begin()
    p.click(p.button(Action.PICK, place))
    assert p.replies == [Comparison(choice=("first", "second")[place])]


def test_every_entry_of_the_legend_is_a_button(person):
    p = person(room(pairs(3))).begin()
    p.click(p.button(Action.UP))
    p.turn(0.5)
    p.click(p.button(Action.SKIP))
    p.click(p.button(Action.NOTE))
    assert p.room.controller.over is not None
    p.click(p.button(Action.LEAVE))
    assert p.room.controller.over is None
    assert (p.replies, len(p.room.desk.skipped)) == ([Comparison(choice="tie")], 1)


def test_nothing_below_an_overlay_can_be_clicked(person):
    p = person(room(pairs(1))).begin()
    at = p.button(Action.PICK, 0)
    p.press("n")
    assert Action.PICK not in {press.action for _, press in p.window.drawn.zones}
    p.click(at)
    assert p.replies == []


def test_a_gamepad_answers_and_plays(person):
    p = person(room(pairs(3))).begin()
    play = p.room.controller.screen.play
    p.post(pygame.JOYBUTTONDOWN, button=0, instance_id=0)
    assert play.paused
    p.post(pygame.JOYBUTTONUP, button=0, instance_id=0)
    p.post(pygame.JOYAXISMOTION, axis=5, value=0.9, instance_id=0)
    p.post(pygame.JOYAXISMOTION, axis=5, value=0.95, instance_id=0)  # still the same pull
    assert play.speed == 2.0
    p.post(pygame.JOYHATMOTION, value=(0, 1), hat=0, instance_id=0)
    p.turn(1.5)
    p.post(pygame.JOYHATMOTION, value=(0, 1), hat=0, instance_id=0)  # still held
    assert p.replies == [Comparison(choice="tie")]
    p.post(pygame.JOYHATMOTION, value=(0, 0), hat=0, instance_id=0)
    p.post(pygame.JOYHATMOTION, value=(1, 0), hat=0, instance_id=0)
    assert p.replies == [Comparison(choice="tie"), Comparison(choice="second")]
    assert p.room.desk.answers[1][2].key == "pad right"


def test_a_pad_that_is_unplugged_lets_go_of_its_keys(person):
    p = person(room(pairs(3))).begin()
    p.post(pygame.JOYHATMOTION, value=(1, 0), hat=0, instance_id=0)
    p.post(pygame.JOYDEVICEREMOVED, instance_id=0)
    p.turn(1.5)
    p.post(pygame.JOYHATMOTION, value=(1, 0), hat=0, instance_id=0)
    assert len(p.replies) == 2


def test_ranking_rating_and_editing_in_the_window(person):
    library = FakeLibrary({segment_id(i): pictures(i) for i in range(4)})
    library.texts = {segment_id(9): "teh"}
    asked = [query((0, 1, 2), form="ranking"), query((3,), form="rating"), query((9,), form="edit")]
    p = person(room(asked, library=library)).begin()
    for key in ("3", "1"):
        p.press(key)
    p.press(pygame.K_RETURN)
    p.turn(1.5)
    p.click(p.button(Action.NUMBER, 7))
    p.turn(1.5)
    for key in (pygame.K_RIGHT, pygame.K_DELETE, pygame.K_DELETE):
        p.press(key)
    p.write("he")
    p.press(pygame.K_RETURN, mod=pygame.KMOD_CTRL)
    assert p.replies == [Ranking(order=((2,), (0,), (1,))), Rating(value=7), Edit(text="the")]


def mouse(p, kind, at, **about):
    p.post(kind, pos=at, **about)


def drag(p, start, *way):
    """Button down, along the way, button up."""
    mouse(p, pygame.MOUSEBUTTONDOWN, start, button=1)
    for at in way:
        mouse(p, pygame.MOUSEMOTION, at, rel=(0, 0), buttons=(1, 0, 0))
    mouse(p, pygame.MOUSEBUTTONUP, way[-1], button=1)


def ranking(person, questions=1, *, texts=False):
    library = FakeLibrary({segment_id(i): pictures(i) for i in range(3 * questions)})
    if texts:
        library = FakeLibrary(texts={segment_id(i): f"text {i}" for i in range(3 * questions)})
    asked = [query(range(3 * i, 3 * i + 3), form="ranking") for i in range(questions)]
    return person(room(asked, library=library)).begin()


def rank_at(p, rank):
    return next(r.center for r, n in p.window.drawn.ranks if n == rank)


def slots(p):
    return p.room.controller.view().body.slots


@pytest.mark.parametrize("texts", [False, True])
def test_clips_and_texts_are_dragged_to_their_ranks_with_the_mouse(person, texts):
    p = ranking(person, texts=texts)
    drag(p, p.button(Action.PICK, 0), (10, 10), rank_at(p, 2))
    drag(p, p.button(Action.PICK, 2), rank_at(p, 0))
    assert slots(p) == ((2,), (1,), (0,))
    small = next(r.center for r, place in reversed(p.window.drawn.clips) if place == 1)
    drag(p, small, rank_at(p, 0))  # from the row of ranks itself
    p.click(p.button(Action.ENTER))
    assert p.replies == [Ranking(order=((1,), (2,), (0,)))]


def test_a_click_on_a_clip_ranks_it_when_the_button_comes_up(person):
    p = ranking(person)
    at = p.button(Action.PICK, 1)
    mouse(p, pygame.MOUSEBUTTONDOWN, at, button=1)
    assert slots(p) == ((), (), ())
    mouse(p, pygame.MOUSEBUTTONUP, (at[0] + 3, at[1]), button=1)  # a hand is never still
    assert slots(p) == ((1,), (), ())


@pytest.mark.parametrize("texts", [False, True])
def test_a_rank_is_seen_on_what_has_it(person, texts):
    p = ranking(person, texts=texts)
    colours = []
    for keys in ((), ("2",)):
        for key in keys:
            p.press(key)
        area = next(area for area, place in p.window.drawn.clips if place == 1)
        tag = p.pixels()[area.right - 12 : area.right - 8, area.top + 9 : area.top + 40]
        colours.append({tuple(map(int, pixel)) for row in tag for pixel in row})
    assert theme.YELLOW not in colours[0]
    assert theme.YELLOW in colours[1]


def test_a_text_is_rated_with_the_mouse(person):
    library = FakeLibrary(texts={segment_id(0): "fine"})
    p = person(room([query((0,), form="rating")], library=library)).begin()
    p.click(p.button(Action.NUMBER, 7))
    assert p.replies == [Rating(value=7)]


def test_a_drag_is_over_when_the_window_loses_the_keyboard(person):
    p = ranking(person)
    mouse(p, pygame.MOUSEBUTTONDOWN, p.button(Action.PICK, 1), button=1)
    mouse(p, pygame.MOUSEMOTION, rank_at(p, 0), rel=(0, 0), buttons=(1, 0, 0))
    p.post(pygame.WINDOWFOCUSLOST)
    mouse(p, pygame.MOUSEBUTTONUP, rank_at(p, 0), button=1)
    assert slots(p) == ((), (), ())


def test_a_drag_does_not_reach_into_the_next_question(person):
    p = ranking(person, questions=2)
    mouse(p, pygame.MOUSEBUTTONDOWN, p.button(Action.PICK, 1), button=1)
    mouse(p, pygame.MOUSEMOTION, rank_at(p, 0), rel=(0, 0), buttons=(1, 0, 0))
    p.press("s")
    p.turn(0.5)
    mouse(p, pygame.MOUSEBUTTONUP, rank_at(p, 0), button=1)
    assert slots(p) == ((), (), ())


@pytest.mark.parametrize("texts", [False, True])
def test_what_is_dragged_is_seen_at_the_mouse(person, texts):
    p = ranking(person, texts=texts)
    corner = (40, p.screen.get_height() // 2)
    before = p.pixels()[corner]
    mouse(p, pygame.MOUSEBUTTONDOWN, p.button(Action.PICK, 2), button=1)
    mouse(p, pygame.MOUSEMOTION, corner, rel=(0, 0), buttons=(1, 0, 0))
    assert (p.pixels()[corner] != before).any()
    mouse(p, pygame.MOUSEBUTTONUP, corner, button=1)
    assert (p.pixels()[corner] == before).all()


def test_the_wheel_scrolls_the_text_under_the_mouse(person):
    library = FakeLibrary(texts={segment_id(0): "long\n" * 200, segment_id(1): "long\n" * 200})
    p = person(room(pairs(1), library=library)).begin()
    p.post(pygame.MOUSEMOTION, pos=p.button(Action.PICK, 1), rel=(0, 0), buttons=(0, 0, 0))
    p.post(pygame.MOUSEWHEEL, x=0, y=-2)
    scrolls = [pane.scroll for pane in p.room.controller.view().body.panes]
    assert scrolls == [0, 6]
    for _ in range(200):
        p.post(pygame.MOUSEWHEEL, x=0, y=-9)
    assert p.room.controller.view().body.panes[1].scroll == p.window.drawn.limits[1] < 200


def test_all_keys_of_the_facts_are_there():
    wanted = {Action.LEFT, Action.RIGHT, Action.UP, Action.DOWN, Action.SKIP, Action.PAUSE,
              Action.FRAME_BACK, Action.FRAME_ON, Action.SLOWER, Action.FASTER, Action.RESTART,
              Action.UNDO, Action.NOTE, Action.FLAG, Action.HELP, Action.FULL_SCREEN,
              Action.LEAVE, Action.ENTER}  # fmt: skip
    assert wanted <= {a for a, _ in KEYS.values()} | set(LETTERS.values())


# ---- the window itself ----------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (320, 240), (500, 900)])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_every_size_can_be_drawn(person, size, scale):
    p = person(room(pairs(1)), size=size, scale=scale).begin()
    assert p.screen.get_size() == size
    p.press("n")
    assert p.window.pictures > 2


def test_a_large_screen_is_filled_by_whole_factors(person):
    p = person(room(pairs(1)), size=(3840, 2160)).begin()
    left, right = (r for r, press in p.window.drawn.zones if press.action is Action.PICK)
    assert left.size == right.size == (16 * (left.width // 16), 21 * (left.width // 16))
    assert left.height > 0.7 * 2160


def test_the_clips_stay_when_the_window_is_resized(person):
    p = person(room(pairs(1))).begin()
    pygame.display.set_mode((700, 500), pygame.RESIZABLE)
    p.post(pygame.WINDOWSIZECHANGED, x=700, y=500)
    assert p.screen.get_size() == (700, 500)
    assert near(p.pixels(), theme.BLUE) > 100
    assert near(p.pixels(), theme.ORANGE) > 100


def test_full_screen_and_back(person):
    p = person(room(pairs(1)), size=(800, 600)).begin()
    p.press(pygame.K_F11)
    assert p.screen.get_flags() & pygame.FULLSCREEN
    p.press(pygame.K_F11)
    assert p.screen.get_size() == (800, 600)


def test_nothing_is_drawn_while_it_is_minimised_or_nothing_changes(person):
    p = person(room([])).begin()
    drawn = p.window.pictures
    for _ in range(20):
        p.window.turn(wait_ms=0)
    assert p.window.pictures == drawn
    p.post(pygame.WINDOWMINIMIZED)
    p.turn(5)
    assert p.window.pictures == drawn
    p.post(pygame.WINDOWRESTORED)
    assert p.window.pictures > drawn


def test_closing_the_window_gives_everything_back(person):
    p = person(room(pairs(3))).begin()
    p.post(pygame.QUIT)
    assert p.room.controller.done
    assert p.room.desk.left == 1


def test_a_broken_pygame_is_named_with_its_repair(monkeypatch):
    monkeypatch.delattr(pygame, "display")
    with pytest.raises(UserError, match="pip uninstall -y pygame pygame-ce"):
        check_pygame()


# ---- what is drawn --------------------------------------------------------------------


def test_clips_are_drawn_in_their_own_colours_by_whole_factors(person):
    frames = np.zeros((4, 50, 40, 3), dtype=np.uint8)
    frames[:, :25] = (200, 30, 90)
    frames[:, 25:] = (10, 220, 140)
    clip = Pictures(frames=frames, fps=10.0)
    library = FakeLibrary({segment_id(i): clip for i in (0, 1)})
    p = person(room(pairs(1), library=library)).begin()
    pixels = p.pixels()
    exact = [(pixels == colour).all(-1).sum() for colour in ((200, 30, 90), (10, 220, 140))]
    whole = fit(40, 50, (10_000, 590)).size
    assert exact == [whole[0] * whole[1]] * 2  # two clips, half of each
    assert whole[0] % 40 == 0


def test_the_frame_on_the_screen_follows_the_clock(person):
    p = person(room(pairs(1))).begin()
    frame = p.room.controller.screen.play.frame(0)
    middle = p.button(Action.PICK, 0)
    assert p.screen.get_at(middle)[0] == frame * 5


def test_the_flash_colours_the_chosen_clip_and_dims_the_other(person):
    p = person(room(pairs(2))).begin()
    left, right = (p.button(Action.PICK, i) for i in (0, 1))
    p.press(" ")
    before = p.screen.get_at((right[0], right[1] + 80))[0]
    p.press(pygame.K_LEFT)
    assert p.screen.get_at((right[0], right[1] + 80))[0] < before
    assert near(p.pixels()[left[0] - 100 : left[0] + 100, left[1] - 40 : left[1] + 40], theme.BLUE)


def test_shapes_differ_and_not_only_in_colour():
    seen = set()
    for mark in ("left", "right", "equal", "cannot"):
        surface = pygame.Surface((64, 64))
        Pen(surface, scale=1.0, pointer=None).mark(mark, (32, 32), 20)
        seen.add((pygame.surfarray.array3d(surface).sum(-1) > 0).tobytes())
    assert len(seen) == 4


@pytest.mark.skipif(
    pygame.version.vernum < (2, 5), reason="another pygame fills polygons otherwise"
)
def test_the_shapes_look_as_they_were_approved():
    surface = pygame.Surface((240, 64))
    pen = Pen(surface, scale=1.0, pointer=None)
    for i, mark in enumerate(("left", "right", "equal", "cannot")):
        pen.mark(mark, (32 + 58 * i, 32), 20)
    found = hashlib.sha256(pygame.image.tobytes(surface, "RGB")).hexdigest()
    assert found == APPROVED


APPROVED = "f9d0eaccb010a06e7d3fba01f967a884565bbbd141132b772b4214bbcd2d6d8b"


@pytest.mark.parametrize(("count", "shape"), [(3, (4, 3)), (4, (1, 1)), (5, (3, 4)), (6, (16, 21))])
def test_a_grid_has_a_cell_for_each_inside_its_room_and_none_overlap(count, shape):
    area = pygame.Rect(10, 20, 900, 500)
    cells = grid(area, count, 12, shape)
    assert len(cells) == count
    assert all(area.contains(cell) for cell in cells)
    assert all(not a.colliderect(b) for i, a in enumerate(cells) for b in cells[:i])


def test_text_is_broken_at_spaces_and_nothing_is_lost(person):
    person(room([]))
    text = "one two  three\n\nfour" + "x" * 80
    lines = wrap(text, 20, 120)
    assert all(theme.width(line, 20) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert spans("", 20, 120) == [(0, 0)]
    assert balanced("a b c d e f g h i j k l m n o p", 20, 200) != []


def test_a_cut_text_fits(person):
    person(room([]))
    assert theme.width(cut("a long line of text", 20, 80), 20) <= 80
    assert cut("short", 20, 800) == "short"
    assert cut("short", 20, 1) == ""


def test_characters_that_the_font_lacks_are_said_to_be_missing(person):
    person(room([]))
    assert theme.legible("abc\U0010fff0") == "abc?"
    assert theme.missing("abc\U0010fff0")
    assert not theme.missing("größer")
    assert theme.legible("größer") == "größer"
    assert theme.legible("\tx") == "    x"  # no font has a tab


def test_a_view_shows_neither_score_nor_return_nor_step(person, monkeypatch):
    shown = []
    text = Pen.text
    monkeypatch.setattr(Pen, "text", lambda *a, **k: shown.append(a[1]) or text(*a, **k))
    p = person(
        room(
            [
                query(
                    (0, 1),
                )
            ]
        )
    ).begin()
    p.press(pygame.K_F1)
    words = " ".join(shown).lower()
    assert "which is better?" in words
    for hidden in ("score", "return ", "reward", "policy", "model", "disagreement", "uniform"):
        assert hidden not in words
