"""What happens while a person rates, with a clock that moves when told to."""

import json

import pytest

from clip_viewer.control.actions import Action, Press
from clip_viewer.control.controller import Controller
from clip_viewer.control.material import Broken, Clip
from clip_viewer.control.pages import Note, Trouble
from prefrl.errors import UserError
from prefrl.feedback import Comparison, DamagedStore, Edit, Pictures, Ranking, Rating
from tests.clip_viewer.helpers import FakeLibrary, pairs, pictures, query, room, segment_id

LEFT, RIGHT, UP, DOWN, ENTER = Action.LEFT, Action.RIGHT, Action.UP, Action.DOWN, Action.ENTER


def choices(r):
    return [reply.choice for _, reply, _ in r.desk.answers]


# ---- from screen to screen ------------------------------------------------------------


def test_sign_in_then_instructions_then_the_first_question():
    r = room(pairs(1), name="")
    r.controller.tick()
    r.tap(ENTER)
    assert r.screen == "SignIn"
    assert "name" in r.controller.view().body.problem
    r.controller.type("  ann  b ")
    r.tap(ENTER)
    assert (r.controller.name, r.screen) == ("ann b", "Instructions")
    assert "Prefer winning points." in r.controller.view().body.paragraphs
    r.tap(ENTER)
    assert r.screen == "ComparisonQuestion"


def test_nothing_is_leased_before_consent():
    r = room(pairs(3))
    r.wait(5)
    assert r.desk.leases == {}
    r.tap(Action.LEAVE)
    assert r.controller.done
    assert r.desk.leases == {}


def test_without_clips_it_waits_and_goes_on_by_itself():
    r = room([]).begin()
    assert r.screen == "Waiting"
    r.desk.queries += pairs(1)
    r.library.clips |= {segment_id(i): pictures(i) for i in (0, 1)}
    r.wait(1.0)
    assert r.screen == "ComparisonQuestion"


@pytest.mark.parametrize(
    ("age", "said"), [(4.0, "at work"), (200.0, "3 min ago"), (None, "no trainer")]
)
def test_waiting_says_how_the_trainer_is(age, said):
    r = room([])
    r.desk.age = age
    r.begin()
    assert said in r.controller.view().body.paragraphs[0]


def test_waiting_says_that_what_is_left_is_for_others():
    r = room([])
    r.desk.for_others = 4
    r.begin()
    assert "4 questions left, for others" in r.controller.view().body.paragraphs[0]


def test_leaving_gives_back_and_sums_up_and_may_be_taken_back():
    r = room(pairs(3)).begin()
    r.answer(LEFT)
    r.answer(UP)
    r.tap(Action.LEAVE)
    body = r.controller.view().body
    assert (r.screen, r.desk.left) == ("Summary", 1)
    assert dict(body.rows)["answers"] == "2"
    assert [(mark, share) for mark, _, share in body.shares] == [
        ("left", 0.5), ("equal", 0.5), ("right", 0.0), ("cannot", 0.0),
    ]  # fmt: skip
    r.tap(Action.UNDO)
    r.wait(1)
    assert r.screen == "ComparisonQuestion"
    r.tap(Action.LEAVE)
    r.tap(ENTER)
    assert r.controller.done


def test_a_break_after_fifty_answers_which_enter_ends():
    r = room(pairs(52)).begin()
    for _ in range(50):
        assert r.screen == "ComparisonQuestion"
        r.answer(LEFT)
    assert r.screen == "Break"
    r.tap(ENTER)
    assert r.screen == "ComparisonQuestion"


def test_a_break_after_a_quarter_of_an_hour_of_answers():
    r = room(pairs(9)).begin()
    for _ in range(3):
        r.answer(LEFT)
    for _ in range(8):
        r.wait(120)
        r.tap(Action.PAUSE)  # somebody is there
    r.answer(LEFT)
    assert r.screen == "Break"


def test_three_idle_minutes_give_the_clips_back_and_any_key_goes_on():
    r = room(pairs(3)).begin()
    r.wait(181, step=0.5)
    assert (r.screen, r.desk.left, r.desk.leases) == ("Pause", 1, {})
    r.wait(60)
    assert r.desk.leases == {}
    r.tap(LEFT)
    r.wait(1)
    assert r.screen == "ComparisonQuestion"
    assert r.desk.answers == []


def test_what_is_half_written_is_there_again_after_a_pause():
    r = room([query((0,), form="edit"), *pairs(1)], library=texts("teh cat", "one", "two")).begin()
    r.wait(1)
    r.controller.type("no: ")
    r.tap(Action.NOTE)
    r.controller.type("a ty")
    r.wait(181, step=0.5)
    assert r.screen == "Pause"
    r.tap(LEFT)
    r.wait(1)
    assert r.controller.view().body.text == "no: teh cat"
    r.tap(Action.NOTE)
    r.controller.type("po")
    r.tap(ENTER)
    r.tap(ENTER, "Ctrl+Return")
    [(_, reply, viewing)] = r.desk.answers
    assert (reply, viewing.note) == (Edit(text="no: teh cat"), "a typo")
    assert (r.controller.drafts, r.controller.notes) == ({}, {})


def test_control_z_does_not_take_back_an_answer_while_a_text_is_changed():
    r = room([*pairs(1), query((2,), form="edit")], library=texts("a", "b", "teh cat")).begin()
    r.answer(LEFT)
    r.wait(1)
    r.controller.type("x")
    r.tap(Action.UNDO, "Ctrl+z")
    assert "send or skip first" in r.controller.view().toast
    assert len(r.desk.answers) == 1
    r.tap(Action.UNDO, "Backspace")
    r.tap(Action.UNDO, "Ctrl+z")
    r.wait(1)
    assert r.screen == "ComparisonQuestion"


def test_an_answer_beside_another_says_so():
    r = room(pairs(2)).begin()
    r.desk.outcome = "extra"
    r.answer(LEFT)
    assert "kept beside it" in r.controller.view().toast


def test_instructions_lie_over_a_question_whose_time_stands_still():
    r = room(pairs(1)).begin()
    r.wait(0.3)
    before = r.controller.screen.play.watched
    r.tap(Action.HELP)
    r.wait(10)
    assert r.controller.view().over.kind == "instructions"
    r.tap(Action.HELP)
    assert r.controller.view().over is None
    assert r.controller.screen.play.watched == pytest.approx(before, abs=0.11)


# ---- when a choice counts -------------------------------------------------------------


@pytest.mark.parametrize("action", [LEFT, RIGHT, UP, DOWN])
def test_a_choice_before_the_least_time_does_not_count(action):
    r = room(pairs(1)).begin()
    r.wait(0.6)
    r.tap(action)
    assert r.controller.view().body.nudge
    r.wait(0.1)
    assert r.desk.answers == []
    r.answer(action)
    assert len(r.desk.answers) == 1


def test_one_loop_of_a_very_short_clip_is_enough():
    r = room(pairs(1))
    r.library.clips = {s: pictures(frames=3) for s in r.library.clips}  # 0.3 s
    r.begin()
    r.wait(0.4)
    r.tap(LEFT)
    assert choices(r) == ["first"]


def test_a_key_still_held_from_the_last_question_does_not_count():
    r = room(pairs(2)).begin()
    r.wait(1)
    r.controller.press(Press(action=LEFT, key="Left"))
    r.wait(2)
    r.controller.press(Press(action=LEFT, key="Left"))  # as a keyboard repeats it
    r.wait(2)
    assert len(r.desk.answers) == 1
    r.controller.release("Left")
    r.answer(LEFT)
    assert len(r.desk.answers) == 2


def test_keys_do_not_stick_when_the_focus_goes():
    r = room(pairs(2)).begin()
    r.wait(1)
    r.controller.press(Press(action=LEFT, key="Left"))
    r.controller.focus(False)  # its release goes to another window
    r.controller.focus(True)
    r.wait(2)
    r.controller.press(Press(action=LEFT, key="Left"))
    r.wait(1)
    assert len(r.desk.answers) == 2


def test_a_second_press_during_the_flash_is_not_an_answer():
    r = room(pairs(3)).begin()
    r.wait(1)
    r.tap(LEFT)
    for action in (RIGHT, UP, Action.SKIP, Action.UNDO, Action.LEAVE):
        r.tap(action)
    r.wait(0.3)
    assert choices(r) == ["first"]
    assert (r.screen, r.desk.skipped, r.desk.left) == ("ComparisonQuestion", [], 0)


def test_the_flash_names_the_choice_for_a_quarter_of_a_second():
    r = room(pairs(2)).begin()
    first = r.controller.screen
    r.wait(1)
    r.tap(RIGHT)
    flash = r.controller.view().body.flash
    assert (flash.text, flash.mark, flash.place) == ("Right is better", "right", 1)
    r.wait(0.24, step=0.08)
    assert r.controller.screen is first
    r.wait(0.02, step=0.02)
    assert r.controller.screen is not first
    assert r.controller.view().body.flash is None


def test_a_minimised_window_is_not_watched():
    r = room(pairs(1)).begin()
    r.controller.see(False)
    r.wait(5)
    r.controller.see(True)
    r.tap(LEFT)
    assert r.desk.answers == []


# ---- what is stored -------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_answers_are_about_segments_wherever_they_lie(swapped):
    r = room(pairs(4), swapped=swapped).begin()
    for action in (LEFT, RIGHT, UP, DOWN):
        r.answer(action)
    first, second = ("second", "first") if swapped else ("first", "second")
    assert choices(r) == [first, second, "tie", "cannot"]
    assert {v.order for _, _, v in r.desk.answers} == {(1, 0) if swapped else (0, 1)}


@pytest.mark.parametrize("swapped", [False, True])
def test_the_left_pane_shows_what_the_left_key_chooses(swapped):
    r = room(pairs(1), swapped=swapped).begin()
    shown = r.controller.view().body.panes[0].material.frames
    r.answer(LEFT)
    [(asked, reply, _)] = r.desk.answers
    chosen = asked.segments[0 if reply.choice == "first" else 1]
    assert (r.library.clips[chosen].frames == shown).all()


def test_how_it_was_seen_goes_with_the_answer():
    r = room(pairs(1)).begin()
    r.tap(Action.FASTER)
    r.wait(3)
    r.controller.press(Press(action=RIGHT, key="pad right"))
    r.controller.tick()
    [(_, _, viewing)] = r.desk.answers
    assert viewing.key == "pad right"
    assert viewing.speed == 2.0
    assert viewing.seconds == pytest.approx(3.0, abs=0.2)
    assert viewing.loops == pytest.approx(3.0, abs=0.2)  # 2 s at twice the speed
    assert viewing.instructions == 7


def test_time_until_the_first_frame_is_not_response_time():
    r = room(pairs(1))
    r.library.recipes, r.library.clips = dict.fromkeys(r.library.clips, b"r"), {}
    r.begin()
    r.wait(2)
    assert [recipe for _, recipe in r.drawer.asked] == [b"r", b"r"]
    r.tap(LEFT)
    drawn = [(s, Clip(frames=pictures().frames, fps=10.0)) for s, _ in r.drawer.asked]
    r.drawer.ready = drawn
    r.wait(1)
    r.tap(LEFT)
    [(_, _, viewing)] = r.desk.answers
    assert viewing.first_frame_seconds == pytest.approx(2.0, abs=0.3)
    assert viewing.seconds == pytest.approx(1.0, abs=0.2)


def test_a_note_goes_with_the_answer_and_escape_forgets_it():
    r = room(pairs(2)).begin()
    r.tap(Action.NOTE)
    assert isinstance(r.controller.over, Note)
    r.controller.type("both miss")
    r.tap(Action.LEAVE)
    r.tap(Action.NOTE)
    r.controller.type("odd ball")
    r.tap(ENTER)
    assert r.screen == "ComparisonQuestion"
    r.answer(LEFT)
    r.answer(LEFT)
    assert [viewing.note for _, _, viewing in r.desk.answers] == ["odd ball", ""]


def test_speed_stays_for_the_next_question():
    r = room(pairs(2)).begin()
    r.tap(Action.SLOWER)
    r.answer(LEFT)
    assert r.controller.screen.play is None or r.controller.screen.play.speed == 0.5
    assert r.controller.view().body.speed == 0.5


# ---- undo, skip, flag -----------------------------------------------------------------


def test_undo_asks_the_newest_answer_again_and_then_goes_on():
    r = room(pairs(3)).begin()
    r.answer(LEFT)
    asked = r.controller.shelf.front.assignment.query
    r.tap(Action.UNDO)
    assert r.desk.answers == []
    again = r.controller.shelf.front.assignment.query
    assert again == pairs(3)[0]
    r.answer(RIGHT)
    assert choices(r) == ["second"]
    assert r.controller.shelf.front.assignment.query == asked


def test_undo_with_nothing_to_take_back_says_so():
    r = room(pairs(1)).begin()
    r.tap(Action.UNDO)
    assert "nothing more" in r.controller.view().toast
    assert r.screen == "ComparisonQuestion"


def test_undo_works_while_waiting_too():
    r = room(pairs(1)).begin()
    r.answer(LEFT)
    assert r.screen == "Waiting"
    r.tap(Action.UNDO)
    r.wait(0.1)
    assert r.screen == "ComparisonQuestion"


def test_skip_and_flag_need_no_watching():
    r = room(pairs(3)).begin()
    r.tap(Action.SKIP)
    r.tap(Action.FLAG)
    r.controller.type("no ball")
    r.tap(ENTER)
    asked = pairs(3)
    assert (r.desk.skipped, r.desk.flagged) == ([asked[0]], [(asked[1], "no ball")])
    assert r.controller.shelf.front.assignment.query == asked[2]
    assert r.desk.answers == []


def test_what_was_skipped_does_not_come_back_from_a_request_made_before():
    r = room(pairs(3)).begin()
    shelf = r.controller.shelf
    before = r.desk.take(3)  # on its way when the key is pressed
    r.tap(Action.SKIP)
    shelf._taken(before)
    assert [item.assignment.query for item in shelf.items] == pairs(3)[1:]


def test_two_assignments_are_fetched_ahead():
    r = room(pairs(6)).begin()
    r.wait(1)
    assert [item.assignment.query for item in r.controller.shelf.items] == pairs(6)[:3]
    assert all(item.complete for item in r.controller.shelf.items)


# ---- other kinds of query -------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
def test_ranking_by_numbers_places_the_last_one_by_itself(swapped):
    r = room([query((0, 1, 2), form="ranking")], swapped=swapped).begin()
    r.wait(1)
    r.tap(Action.NUMBER, "2", number=2)
    r.tap(Action.NUMBER, "3", number=3)
    assert [pane.rank for pane in r.controller.view().body.panes] == [3, 1, 2]
    r.tap(ENTER)
    order = ((1,), (0,), (2,)) if swapped else ((1,), (2,), (0,))
    assert r.desk.answers[0][1] == Ranking(order=order)


def test_ranking_with_ties_clicks_and_backspace():
    r = room([query((0, 1, 2, 3), form="ranking")]).begin()
    r.wait(1)
    r.tap(Action.PICK, "mouse", number=3)
    r.tap(Action.UNDO)  # takes the rank away, not the last answer
    r.tap(Action.PICK, "mouse", number=0)
    r.tap(UP)
    r.tap(Action.PICK, "mouse", number=2)
    r.tap(RIGHT)
    r.tap(ENTER)  # places the one aimed at, and the last one
    r.tap(ENTER)
    assert r.desk.answers[0][1] == Ranking(order=((0, 2), (3,), (1,)))


def test_enter_places_what_has_just_lost_its_rank():
    r = room([query((0, 1, 2), form="ranking")]).begin()
    r.wait(1)
    for number in (1, 2, 1):  # all have a rank; then the first has none
        r.tap(Action.NUMBER, str(number), number=number)
    r.tap(ENTER)
    assert [pane.rank for pane in r.controller.view().body.panes] == [1, 2, 3]
    assert dropped(r, (1, None)) == ((0,), (), (2,))
    r.tap(ENTER)
    assert dropped(r) == ((0,), (1,), (2,))
    r.tap(Action.UNDO)
    r.tap(ENTER)
    assert dropped(r) == ((0,), (1,), (2,))


def test_a_tie_with_a_rank_that_was_taken_away_is_no_tie():
    r = room([query((0, 1, 2), form="ranking")]).begin()
    r.wait(1)
    r.tap(Action.NUMBER, "1", number=1)
    r.tap(UP)
    r.tap(Action.NUMBER, "1", number=1)
    r.tap(Action.NUMBER, "2", number=2)
    assert [pane.rank for pane in r.controller.view().body.panes] == [None, 1, None]


def dropped(r, *drops):
    """Each clip dragged to a rank, from 0: what each rank then holds."""
    for place, rank in drops:
        r.controller.press(Press(action=Action.DROP, key="mouse", number=place, place=rank))
        r.controller.tick()
    return r.controller.view().body.slots


def test_clips_are_dragged_to_ranks_in_any_order_and_the_last_one_follows():
    r = room([query((0, 1, 2, 3), form="ranking")]).begin()
    r.wait(1)
    assert dropped(r, (2, 3)) == ((), (), (), (2,))
    assert [pane.rank for pane in r.controller.view().body.panes] == [None, None, 4, None]
    assert dropped(r, (0, 1), (3, 0)) == ((3,), (0,), (1,), (2,))
    r.tap(ENTER)
    assert r.desk.answers[0][1] == Ranking(order=((3,), (0,), (1,), (2,)))


@pytest.mark.parametrize(
    ("drop", "slots"),
    [
        ((2, 0), ((2,), (0,), (1,))),  # those it passes make way towards where it came from
        ((0, 2), ((1,), (2,), (0,))),
        ((0, 1), ((1,), (0,), (2,))),
        ((1, 1), ((0,), (1,), (2,))),
        ((1, None), ((0,), (), (2,))),  # away from the ranks: it has none any more
        ((7, 0), ((0,), (1,), (2,))),
    ],
)
def test_a_ranked_clip_is_dragged_elsewhere(drop, slots):
    r = room([query((0, 1, 2), form="ranking")]).begin()
    r.wait(1)
    assert dropped(r, (0, 0), (1, 1)) == ((0,), (1,), (2,))
    assert dropped(r, drop) == slots


def test_dropping_on_a_taken_rank_pushes_others_to_the_next_free_one():
    r = room([query((0, 1, 2, 3), form="ranking")]).begin()
    r.wait(1)
    assert dropped(r, (0, 0), (1, 2)) == ((0,), (), (1,), ())
    assert dropped(r, (3, 0)) == ((3,), (0,), (1,), (2,))


def test_keys_and_dragging_mix_and_backspace_takes_back_the_newest():
    r = room([query((0, 1, 2, 3), form="ranking")]).begin()
    r.wait(1)
    assert dropped(r, (2, 1)) == ((), (2,), (), ())
    r.tap(Action.NUMBER, "1", number=1)  # the best free rank
    r.tap(UP)
    r.tap(Action.NUMBER, "4", number=4)  # as good as the first, and then the last one follows
    assert r.controller.view().body.slots == ((0, 3), (2,), (1,), ())
    for left in (((0, 3), (2,), (), ()), ((0,), (2,), (), ()), ((), (2,), (), ()), ((),) * 4):
        r.tap(Action.UNDO)
        assert r.controller.view().body.slots == left
    assert r.desk.answers == []


def test_an_unfinished_ranking_is_not_sent():
    r = room([query((0, 1, 2), form="ranking")]).begin()
    r.wait(1)
    r.tap(Action.NUMBER, "9", number=9)
    r.tap(Action.NUMBER, "1", number=1)
    assert r.desk.answers == []


def test_rating_by_number_or_by_cursor():
    r = room([query((0,), form="rating"), query((1,), form="rating")]).begin()
    r.answer(Action.NUMBER, number=8)
    r.wait(1)
    for _ in range(7):
        r.tap(LEFT)
    r.tap(ENTER)
    assert [reply for _, reply, _ in r.desk.answers] == [Rating(value=8), Rating(value=1)]


def test_the_button_of_the_numbers_sends_no_rating():
    r = room([query((0,), form="rating")]).begin()
    r.wait(1)
    button = next(hint for hint in r.controller.view().hints if hint.cap == "1-9")
    r.controller.press(button.press)
    assert r.desk.answers == []


@pytest.mark.parametrize("form", ["ranking", "rating"])
def test_down_says_cannot_tell_for_every_form(form):
    r = room([query((0, 1, 2) if form == "ranking" else (0,), form=form)]).begin()
    r.answer(DOWN)
    assert r.desk.answers[0][1] == Comparison(choice="cannot")


def texts(*words):
    return FakeLibrary(texts={segment_id(i): text for i, text in enumerate(words)})


def test_texts_are_compared_by_the_same_keys_and_scroll():
    r = room(pairs(1), library=texts("one\n" * 50, "two")).begin()
    assert r.controller.view().body.panes[1].material == "two"
    r.controller.press(Press(action=Action.SCROLL, key="mouse", number=3, place=0))
    r.controller.press(Press(action=Action.SCROLL, key="Page Down", number=8))
    assert [pane.scroll for pane in r.controller.view().body.panes] == [11, 8]
    assert r.controller.view().body.prompt_scroll == 8
    r.controller.front.scroll_limit(1, 0)
    assert [pane.scroll for pane in r.controller.view().body.panes] == [11, 0]
    r.answer(RIGHT)
    assert choices(r) == ["second"]
    assert r.desk.answers[0][2].loops == 0.0


def test_an_edit_is_typed_and_sent_with_control_and_enter():
    r = room([query((0,), form="edit")], library=texts("teh cat")).begin()
    r.wait(1)
    r.tap(ENTER, "Ctrl+Return")
    assert "nothing is changed" in r.controller.view().toast
    for _ in range(3):
        r.tap(Action.DELETE)
    r.controller.type("the")
    r.tap(ENTER, "Return")
    r.tap(ENTER, "Ctrl+Return")
    assert r.desk.answers[0][1] == Edit(text="the\n cat")


def test_an_edit_of_nothing_left_is_not_sent():
    r = room([query((0,), form="edit")], library=texts("x")).begin()
    r.wait(1)
    r.tap(Action.DELETE)
    r.tap(ENTER, "Ctrl+Return")
    assert r.desk.answers == []
    r.tap(Action.SKIP, "Ctrl+s")
    assert len(r.desk.skipped) == 1


@pytest.mark.parametrize(("action", "right"), [(RIGHT, True), (LEFT, False)])
def test_practice_says_what_was_expected_and_does_not_count(action, right):
    asked = pairs(1, purpose="practice", expected=json.dumps({"choice": "first"}))
    r = room([*asked, query((7, 8))], swapped=True)
    r.library.clips |= {segment_id(i): pictures(i) for i in (7, 8)}
    r.begin()
    assert r.controller.view().body.practice
    r.answer(action)
    verdict = r.controller.view().body.verdict
    assert (verdict.right, "right is better" in verdict.text) == (right, True)
    assert r.controller.session.answers == []
    r.wait(5)
    assert r.controller.view().body.verdict is not None
    r.tap(ENTER)
    assert not r.controller.view().body.practice


# ---- trouble --------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_screen_and_the_answer_is_tried_again():
    r = room(pairs(2)).begin()
    r.desk.fails = UserError("the disk is full: free some space")
    r.answer(LEFT)
    assert isinstance(r.controller.screen, Trouble)
    assert "the disk is full: free some space" in r.controller.view().body.paragraphs
    assert "not stored yet" in r.controller.view().body.paragraphs[1]
    r.tap(ENTER)
    assert isinstance(r.controller.screen, Trouble)
    r.desk.fails = None
    r.tap(ENTER)
    r.wait(0.4)
    assert choices(r) == ["first"]
    assert r.controller.failure is None
    assert r.controller.shelf.front.assignment.query == pairs(2)[1]


def test_trouble_while_a_note_is_written_keeps_the_note():
    r = room(pairs(1)).begin()
    r.tap(Action.NOTE)
    r.controller.type("half a tho")
    r.desk.progress = lambda: (_ for _ in ()).throw(OSError(28, "No space left"))
    r.wait(3)
    assert isinstance(r.controller.screen, Trouble)
    del r.desk.progress
    r.tap(ENTER)
    assert r.controller.view().over.text == "half a tho"


def test_leaving_in_trouble_says_why():
    r = room(pairs(1)).begin()
    r.desk.fails = UserError("locked")
    r.answer(LEFT)
    r.tap(Action.LEAVE)
    assert r.controller.done
    assert str(r.controller.failure) == "locked"


def test_the_next_question_is_shown_only_once_the_answer_is_stored():
    r = room(pairs(2)).begin()
    clerk = r.controller.clerk
    r.wait(1)
    clerk.stuck = True  # slower than the flash
    r.tap(LEFT)
    r.wait(3)
    assert r.controller.view().body.flash is not None
    assert r.controller.view().header.unsaved
    clerk.stuck = False
    r.wait(0.2)
    assert r.controller.shelf.front.assignment.query == pairs(2)[1]
    assert not r.controller.view().header.unsaved


def test_what_was_answered_is_not_asked_again_while_it_is_being_stored():
    r = room(pairs(4)).begin()
    r.answer(LEFT)  # the first
    shown = r.controller.screen
    r.wait(1)
    r.controller.clerk.stuck = True
    r.tap(LEFT)  # the second; the store is slow
    r.controller.pass_over(r.controller.shelf.front)  # what a skip does that comes meanwhile
    assert r.controller.screen is not shown
    assert r.controller.screen.item.assignment.query == pairs(4)[3]


def test_a_damaged_clip_is_flagged_once_and_left_by_enter():
    r = room(pairs(2))
    r.library.clips[segment_id(1)] = DamagedStore("the clip is not what was written")
    r.begin()
    r.wait(3)
    assert isinstance(r.controller.view().body.panes[1].material, Broken)
    assert [note for _, note in r.desk.flagged] == ["the clip is not what was written"]
    r.tap(LEFT)
    assert r.desk.answers == []
    r.tap(ENTER)
    r.answer(LEFT)
    assert len(r.desk.answers) == 1
    assert len(r.desk.flagged) == 1


def test_a_clip_that_this_machine_cannot_draw_is_not_flagged_but_given_back():
    r = room(pairs(1))
    r.library.recipes, r.library.clips = dict.fromkeys(r.library.clips, b"r"), {}
    r.begin()
    failed = Broken(reason="no EGL", damaged=False)
    r.drawer.ready = [(s, failed) for s, _ in r.drawer.asked]
    r.wait(1)
    r.tap(ENTER)
    assert (r.desk.flagged, r.desk.skipped) == ([], pairs(1))


def test_impossible_pictures_are_a_broken_clip():
    r = room(pairs(1))
    bad = Pictures(frames=pictures().frames, fps=900.0)
    r.library.clips[segment_id(0)] = bad
    r.begin()
    assert "fps" in r.controller.view().body.panes[0].material.reason


# ---- beside the trainer ---------------------------------------------------------------


def test_a_heartbeat_every_quarter_minute_while_somebody_is_there():
    r = room(pairs(1)).begin()
    r.wait(58)
    assert r.desk.beats == 4
    r.wait(60)
    assert r.desk.beats <= 5  # nobody pressed anything for a minute
    r.tap(Action.PAUSE)
    r.controller.focus(False)
    r.wait(30)
    assert r.desk.beats <= 5
    r.controller.focus(True)
    r.wait(1)
    assert r.desk.beats == 6


def test_the_header_shows_pace_and_the_schedule_and_nothing_of_the_policy():
    r = room(pairs(2)).begin()
    r.answer(LEFT)
    header = r.controller.view().header
    assert (header.answered, header.per_hour, header.labels, header.due) == (1, 300.0, 212, 280)
    assert header.minutes_left == round((280 - 212) / 300 * 60)
    fields = set(type(header).__dataclass_fields__)
    assert not fields & {"score", "return", "reward", "step", "policy_step", "model"}


def test_the_controller_needs_no_window():
    import subprocess
    import sys

    code = "import sys, clip_viewer.control.controller; print('pygame' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert Controller.__module__.startswith("clip_viewer.control")
