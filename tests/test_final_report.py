"""The page with the most certain mistakes."""

import re
from pathlib import Path

import pytest
import torch

from envs import make_vec
from prefrl.feedback import (
    Answer,
    Comparison,
    FeedbackStore,
    Provenance,
    Query,
    Segment,
    Viewing,
)
from prefrl.final_report import write_report
from prefrl.loop.mistakes import judge, learned_from
from prefrl.loop.rundir import RunDir
from prefrl.loop.state import spaces_of
from prefrl.loop.storyboard import draw
from prefrl.query_films import tell
from prefrl.rewards import RewardConfig, RewardModel
from tests.loop.answered import DOT, config


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Twelve pairs of drawable segments, always the first preferred; a model of random weights."""
    made = RunDir.prepare(tmp_path / "run", config())
    venv = make_vec(DOT, num_envs=24, seed=0)
    venv.action_space.seed(0)
    observation, action = venv.reset_at(0), venv.action_space.sample()
    venv.step(action)
    segments = []
    for env in range(24):
        segments.append(
            Segment(
                observations=observation[env : env + 1],
                actions=action[env : env + 1],
                true_reward=venv.score.true_reward[env : env + 1].copy(),
                ended=False,
                provenance=Provenance(task=DOT, seed=0, policy_step=0, env=env, episode=0, t0=0),
                clip=venv.clip_recipe(env=env, start=0, steps=1).to_bytes(),
            )
        )
    pairs = zip(segments[::2], segments[1::2], strict=True)
    queries = [
        Query(segments=(a.id, b.id), policy_step=7, reason="test", priority=0.0) for a, b in pairs
    ]
    name = "<b>ann</b>"
    with FeedbackStore.create(made.path, task=DOT, seed=0) as store:
        store.add_segments(segments)
        store.add_queries(queries)
        said = Comparison(choice="first")
        store.submit_many([Answer(id=q.id, query=q.id, rater=name, reply=said) for q in queries])
    model = RewardModel.build(
        spaces_of(venv),
        RewardConfig(error=0.3),
        dtype=torch.float32,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(1),
    )
    model.fitted = True
    model.save(made.path)
    made.metrics.write_text('{"step": 640, "episode/true_return": -7.5}\n')
    return made


def test_the_page_shows_the_mistakes_and_links_a_film_of_each(run: RunDir) -> None:
    page = write_report(run).read_text()
    films = re.findall(r'src="(mistakes/[^"]+)"', page)
    assert 1 <= len(films) <= 4
    assert all((run.path / "report" / film).stat().st_size > 1000 for film in films)
    assert (run.path / "report" / "mistakes.png").stat().st_size > 1000
    assert "-7.5" in page
    assert "&lt;b&gt;ann&lt;/b&gt;: the left one is better" in page
    assert "<b>" not in page
    again = re.findall(r'src="(mistakes/[^"]+)"', write_report(run).read_text())
    assert again == films
    assert len(list((run.path / "report" / "mistakes").iterdir())) == len(films)


def test_verdict_and_returns_are_of_the_same_members(run: RunDir) -> None:
    with FeedbackStore.open(run.path) as store:
        model = RewardModel.load_if_any(run.path)
        assert model is not None
        labels = list(store.feedback())
        learned = learned_from(run.path, store)
        judged = judge(model, store, labels, learned=learned)
        held_out = next(x for x in judged if x.held_out and len(x.members) < 3)
        story = tell(store, held_out.label.query, model, learned=learned)
        segments = [store.segment(i) for i in held_out.label.segments]
        raw = model.segment_returns(segments)
        apart = (raw[:, 1] - raw[:, 0])[list(held_out.members)].mean().sigmoid()
        assert held_out.second == pytest.approx(0.7 * apart.item() + 0.15, abs=1e-6)
        wanted = ((raw - model.mean[:, None]) / model.std[:, None])[list(held_out.members)].mean(0)
    assert [clip.learned.sum() for clip in story.clips] == pytest.approx(wanted.tolist(), rel=1e-4)
    assert "never saw this answer, as are the returns below" in story.lines[-1]


def test_a_mistake_is_told_about_who_made_it(run: RunDir) -> None:
    with FeedbackStore.open(run.path) as store:
        model = RewardModel.load_if_any(run.path)
        query = next(store.queries())
        other = Comparison(choice="second")
        store.submit_many([Answer(id="x", query=query.id, rater="bob", reply=other)])
        labels = [x for x in store.feedback() if x.query.id == query.id]
        stories = [tell(store, query, model, about=label) for label in labels]
    assert [[clip.mark for clip in story.clips] for story in stories] == [
        ["preferred", ""],
        ["", "preferred"],
    ]
    assert all("bob: the right one is better" in story.lines for story in stories)


def test_without_films_there_are_curves_and_figures(run: RunDir) -> None:
    write_report(run)
    page = write_report(run, films=False).read_text()
    assert "mistakes" not in page
    assert not (run.path / "report" / "mistakes.png").exists()
    assert (run.path / "report" / "learning.png").is_file()


def test_a_query_that_nobody_has_answered_is_told_too(run: RunDir) -> None:
    with FeedbackStore.open(run.path) as store:
        first, second = list(store.segments())[:2]
        asked = Query(segments=(second.id, first.id), policy_step=9, reason="test", priority=0.0)
        store.add_queries([asked])
        story = tell(store, asked, None)
    assert story.lines == ("nobody has answered yet",)
    assert [clip.learned for clip in story.clips] == [None, None]
    assert story.clips[0].true == pytest.approx(float(second.true_reward.sum()))


@pytest.mark.parametrize("note", ["odd " * 800, "o" * 3000, "both\nmiss\tit"])
def test_a_long_note_or_one_of_several_lines_makes_no_wide_film(run: RunDir, note: str) -> None:
    viewing = Viewing(
        order=(0, 1), key="Left", seconds=1.0, first_frame_seconds=0.1, loops=1.0, speed=1.0,
        note=note,
    )  # fmt: skip
    with FeedbackStore.open(run.path) as store:
        query = next(store.queries())
        answer = Answer(
            id="note", query=query.id, rater="eve", reply=Comparison(choice="tie"), viewing=viewing
        )
        store.submit_many([answer])
        story = tell(store, query, None)
    picture = draw(story, 0)
    assert picture.shape[1] < 1600
    assert note.split()[0][:50] in " ".join(story.lines)
