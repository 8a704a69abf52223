"""What is drawn of a query."""

import numpy as np
import pytest
from PIL import ImageColor

from prefrl.loop.storyboard import BLUE, GREEN, YELLOW, Shown, Story, draw, film, strip


def shown(*, steps: int = 4, best: bool = False, mark: str = "", shade: int = 90) -> Shown:
    """A clip of one shade that grows brighter by 20 a step."""
    frames = (shade + 20 * np.arange(steps, dtype=np.uint8))[:, None, None, None]
    return Shown(
        frames=np.broadcast_to(frames, (steps, 84, 64, 3)).copy(),
        mark=mark,
        best=best,
        learned=np.linspace(1.0, 2.0, steps),
        true=3.0,
    )


def story(*clips: Shown) -> Story:
    return Story(
        id="ab" * 32, title="Pong", lines=("ann: the left one is better",), clips=clips, fps=10.0
    )


def count(picture: np.ndarray, colour: str) -> int:
    return int((picture == ImageColor.getrgb(colour)).all(-1).sum())


@pytest.mark.parametrize("places", [1, 2, 3, 4, 5, 6])
def test_every_clip_of_a_query_is_drawn_in_a_grid(places: int) -> None:
    clips = [shown(shade=30 + 10 * i) for i in range(places)]
    picture = draw(story(*clips), 0)
    sizes = [int((picture == 30 + 10 * i).all(-1).sum()) for i in range(places)]
    assert min(sizes) >= 0.9 * (84 * 4) * (64 * 4)  # four times as large: 84 x 4 is near 320
    assert max(sizes) <= 84 * 4 * 64 * 4 + 2000  # letters have such shades too


def test_the_better_one_has_a_green_border_and_others_their_rank() -> None:
    neither = draw(story(shown(), shown()), 0)
    left = draw(story(shown(best=True, mark="preferred"), shown()), 0)
    ranked = draw(story(shown(mark="2nd"), shown(mark="3rd"), shown(best=True, mark="1st")), 0)
    assert count(neither, GREEN) == 0
    places = np.argwhere((left == ImageColor.getrgb(GREEN)).all(-1))[:, 1]
    assert places.max() < left.shape[1] / 2
    assert count(ranked, YELLOW) > 10  # letters are thin
    assert count(ranked, GREEN) > 1000


def test_the_learned_reward_brightens_as_far_as_the_clip_has_run() -> None:
    one = story(shown())
    blue = [count(draw(one, step), BLUE) for step in range(4)]
    assert blue == sorted(blue)
    assert blue[0] > 0
    assert blue[3] > 3 * blue[0]
    assert count(draw(story(Shown(**{**_fields(shown()), "learned": None})), 3), BLUE) == 0


def _fields(clip: Shown) -> dict:
    return {name: getattr(clip, name) for name in Shown.__slots__}


def test_a_film_plays_twice_and_a_shorter_clip_holds_its_last_frame() -> None:
    pictures = list(film(story(shown(steps=4), shown(steps=2))))
    assert len(pictures) == 2 * (4 + 6)  # 0.6 s at 10 a second stand still
    assert {p.shape for p in pictures} == {pictures[0].shape}
    middle = [int(p[200, p.shape[1] * 3 // 4, 0]) for p in pictures[:10]]
    assert middle == [90, *[110] * 9]
    assert all((a == b).all() for a, b in zip(pictures[:10], pictures[10:], strict=True))


def test_a_strip_has_a_row_for_each_story() -> None:
    one = strip([story(shown(best=True), shown())])
    two = strip([story(shown(best=True), shown()), story(shown(), shown(best=True))])
    assert two.shape[0] == 2 * one.shape[0]
    assert count(two, GREEN) == 2 * count(one, GREEN) > 0
