"""Every task keeps the promises of `HiddenScoreVectorEnv`."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv

from envs import TaskError, find_task, make_vec, tasks
from envs.hidden import sub_seeds

ALL = [task.id for task in tasks()]
FIXED = [task.id for task in tasks() if task.horizon is not None]
ATARI = [task.id for task in tasks() if task.domain == "atari"]
NOISE = np.array([-1e9, np.nan])


def actions_of(venv, count, seed=0):
    """`count` steps of random actions, the same for the same seed."""
    venv.action_space.seed(seed)
    return [venv.action_space.sample() for _ in range(count)]


def told(venv, action):
    """All arrays that one step hands to the agent."""
    *arrays, info = venv.step(action)
    return [*arrays, *info.values()]


def play(venv, step, actions):
    """Observations and true rewards after `reset_at(step)`, as bytes to compare."""
    film = [venv.reset_at(step).tobytes()]
    for action in actions:
        film.append(venv.step(action)[0].tobytes() + venv.score.true_reward.tobytes())
    return film


def test_the_papers_tasks_are_all_there():
    assert len(ATARI) == 7
    assert {"HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Swimmer-v5"} < set(ALL)
    assert {"Reacher-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5"} < set(ALL)
    assert {"Pendulum-v1", "prefrl/Dot-v0"} < set(ALL)


@pytest.mark.parametrize("task", ALL)
def test_a_step_tells_the_agent_nothing_about_the_score(task):
    venv = make_vec(task, num_envs=3, seed=0)
    assert isinstance(venv, VectorEnv)
    assert venv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, info = venv.reset()
    assert info == {}
    assert observation in venv.observation_space
    for action in actions_of(venv, 30):
        observation, reward, terminated, truncated, info = venv.step(action)
        assert observation in venv.observation_space
        assert observation.dtype == venv.single_observation_space.dtype
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert terminated.dtype == truncated.dtype == bool
        assert not reward.any()
        assert not terminated.any()
        assert set(info) <= {"final_obs", "_final_obs"}
    venv.close()


@pytest.mark.parametrize("task", ALL)
def test_reset_at_repeats_the_same_future_bit_for_bit(task):
    venv, other = (make_vec(task, num_envs=2, seed=5) for _ in range(2))
    actions = actions_of(venv, 60)
    first = play(venv, 1000, actions)
    assert play(venv, 0, actions) != first
    assert play(venv, 1000, actions) == first
    assert play(other, 1000, actions) == first
    venv.close()
    other.close()


@pytest.mark.parametrize("task", ["ALE/Breakout-v5", "prefrl/Dot-v0", "InvertedPendulum-v5"])
def test_reset_at_repeats_the_future_beyond_an_episode_end(task):
    venv = make_vec(task, num_envs=2, seed=1)
    actions = actions_of(venv, 320)
    first = play(venv, 0, actions)
    assert venv._lengths.min() < 320, "no episode ended: the test shows nothing"
    assert play(venv, 0, actions) == first
    venv.close()


def test_reset_at_repeats_sticky_actions_too():
    venv = make_vec("ALE/Pong-v5", num_envs=2, seed=0, sticky=0.25)
    actions = actions_of(venv, 80)
    assert play(venv, 7, actions) == play(venv, 7, actions)
    venv.close()


@pytest.mark.parametrize("task", ["ALE/Breakout-v5", "ALE/Pong-v5", *FIXED])
def test_sub_environments_have_seeds_of_their_own(task):
    venv = make_vec(task, num_envs=4, seed=0)
    films = [venv.reset_at(0)]
    for actions in actions_of(venv, 40):
        films.append(venv.step(np.repeat(actions[:1], 4, axis=0))[0])
    distinct = {env.tobytes() for env in np.stack(films, axis=1)}
    # Some no-ops make no difference: Breakout's ball has few ways to be served.
    assert len(distinct) >= (2 if task == "ALE/Breakout-v5" else 4)
    venv.close()


def test_seeds_differ_between_sub_environments_steps_and_runs():
    seeds = [s for seed in range(5) for step in (0, 1, 10**9) for s in sub_seeds(seed, step, 64)]
    assert len(set(seeds)) == 5 * 3 * 64
    assert 0 <= min(seeds) <= max(seeds) < 2**31


@pytest.mark.parametrize("task", ["ALE/Pong-v5", "Hopper-v5", "Pendulum-v1", "prefrl/Dot-v0"])
def test_an_observation_is_not_overwritten_by_later_steps(task):
    venv = make_vec(task, num_envs=2, seed=0)
    kept = [venv.reset_at(0)]
    copies = [kept[0].copy()]
    for action in actions_of(venv, 12):
        kept.append(venv.step(action)[0])
        copies.append(kept[-1].copy())
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))
    venv.close()


@pytest.mark.parametrize("task", FIXED)
def test_phases_shorten_the_first_episodes_and_those_are_not_scored(task):
    venv = make_vec(task, num_envs=4, seed=0)
    rng, space, horizon = np.random.default_rng(0), venv.single_action_space, venv.task.horizon
    venv.reset_at(0, phases=True)
    ends, scored, returns = [[] for _ in range(4)], [[] for _ in range(4)], np.zeros(4)
    for step in range(1, 2 * horizon + 1):
        action = (
            rng.integers(space.n, size=4) if hasattr(space, "n")
            else rng.uniform(space.low, space.high, (4, *space.shape)).astype(np.float32)
        )  # fmt: skip
        observation, _, _, truncated, info = venv.step(action)
        returns += venv.score.true_reward
        assert np.array_equal(truncated, venv.score.episode_end)
        assert ("final_obs" in info) == truncated.any()
        assert np.array_equal(info.get("_final_obs", np.zeros(4, bool)), truncated)
        for env in np.flatnonzero(truncated):
            assert not np.array_equal(info["final_obs"][env], observation[env])
            others = np.flatnonzero(~truncated)
            assert np.array_equal(info["final_obs"][others], observation[others])
            ends[env].append(step)
            if venv.score.episode_length[env]:
                assert venv.score.episode_length[env] == horizon
                assert venv.score.episode_return[env] == pytest.approx(returns[env])
                scored[env].append(step)
            else:
                assert venv.score.episode_return[env] == 0
            returns[env] = 0
    first = [horizon - env * horizon // 4 for env in range(4)]
    assert ends == [[one, one + horizon] for one in first]
    assert scored == [[horizon, 2 * horizon], *([one + horizon] for one in first[1:])]
    venv.close()


@pytest.mark.parametrize("task", ["Hopper-v5", "Pendulum-v1"])
def test_a_robots_episodes_may_be_shorter(task):
    venv = make_vec(task, num_envs=2, seed=0, horizon=7)
    assert venv.task.horizon == 7
    venv.reset_at(0)
    quiet = np.zeros(venv.action_space.shape, venv.action_space.dtype)
    ends = [count for count in range(1, 22) if venv.step(quiet)[3].all()]
    assert ends == [7, 14, 21]
    assert venv.score.episode_length.tolist() == [7, 7]
    assert find_task(task).horizon != 7
    venv.close()


@pytest.mark.parametrize("task", FIXED)
def test_a_fixed_horizon_is_shown_as_truncation_and_restarts_in_the_same_step(task):
    venv = make_vec(task, num_envs=2, seed=0)
    horizon = venv.task.horizon
    first = venv.reset_at(0)
    quiet = np.zeros(venv.action_space.shape, venv.action_space.dtype)
    total = np.zeros(2)
    for count in range(1, horizon + 1):
        observation, _, _, truncated, info = venv.step(quiet)
        total += venv.score.true_reward
        assert truncated.all() == truncated.any() == (count == horizon)
        assert ("final_obs" in info) == (count == horizon)
        assert venv.score.episode_end.all() == truncated.all()
    assert np.allclose(venv.score.episode_return, total)
    assert venv.score.episode_length.tolist() == [horizon, horizon]
    assert info["final_obs"] in venv.observation_space
    assert not np.array_equal(info["final_obs"], observation)
    assert not np.array_equal(first, observation), "a new episode starts elsewhere"
    assert not venv.step(quiet)[3].any()
    assert not venv.score.episode_return.any()
    venv.close()


def test_only_the_games_without_pong_charge_for_an_episode_end():
    """An oracle reads `end_penalty`; a fixed horizon is no end to be charged for."""
    charged = {task.id for task in tasks() if task.end_penalty}
    assert charged == set(ATARI) - {"ALE/Pong-v5"}
    assert all(task.end_penalty >= 0 for task in tasks())


def test_the_true_reward_does_not_contain_the_end_penalty():
    """Breakout's reward is never negative; the penalty is the oracle's to charge."""
    venv = make_vec("ALE/Breakout-v5", num_envs=2, seed=0)
    venv.reset_at(0)
    ends, worst = 0, 0.0
    for action in actions_of(venv, 300):
        venv.step(action)
        ends += venv.score.episode_end.sum()
        worst = min(worst, venv.score.true_reward.min())
    assert ends > 0
    assert worst == 0.0
    venv.close()


def test_a_seed_given_to_reset_stays():
    venv = make_vec("prefrl/Dot-v0", num_envs=2, seed=0)
    first = venv.reset()[0]
    assert not np.array_equal(venv.reset(seed=9)[0], first)
    assert np.array_equal(venv.reset()[0], venv.reset(seed=9)[0])


def test_a_reduced_action_set_leaves_out_pongs_fire():
    venv = make_vec("ALE/Pong-v5", num_envs=1, seed=0, actions="reduced")
    assert venv.action_names == ("NOOP", "RIGHT", "LEFT")
    assert venv.single_action_space.n == 3
    venv.close()


@pytest.mark.parametrize(
    ("task", "hint"),
    [("pong", "ALE/Pong-v5"), ("HalfChetah-v5", "HalfCheetah-v5"), ("dot", "prefrl/Dot-v0")],
)
def test_an_unknown_task_gets_the_nearest_name(task, hint):
    with pytest.raises(TaskError, match=f"unknown task '{task}'; did you mean '{hint}'"):
        find_task(task)


@pytest.mark.parametrize(
    ("task", "wrong", "message"),
    [
        ("ALE/Pong-v5", {"stiky": 0.1}, "unknown option 'stiky'.*did you mean 'sticky'"),
        ("Hopper-v5", {"sticky": 0.1}, "unknown option 'sticky'.*horizon"),
        ("Hopper-v5", {"horizon": 0}, "horizon=0: wanted an integer of 1 or more"),
        ("Pendulum-v1", {"horizon": 2.5}, "horizon=2.5: wanted an integer of 1 or more"),
        ("ALE/Pong-v5", {"horizon": 300}, "unknown option 'horizon'"),
        ("prefrl/Dot-v0", {"goal": 1}, "unknown option 'goal'.*it has no options"),
        ("ALE/Pong-v5", {"sticky": 1.5}, "sticky=1.5: wanted 0 to 1"),
        ("ALE/Pong-v5", {"sticky": float("nan")}, "sticky=nan: wanted 0 to 1"),
        ("ALE/Pong-v5", {"noop_max": -1}, "noop_max=-1: wanted an integer"),
        ("ALE/Pong-v5", {"actions": "few"}, "actions='few': wanted minimal | full | reduced"),
        ("ALE/Pong-v5", {"threads": True}, "threads=True: wanted an integer"),
        ("prefrl/Dot-v0", {"num_envs": 0}, "num_envs >= 1.*got num_envs=0"),
        ("prefrl/Dot-v0", {"num_envs": 1.5}, "wanted integers.*got num_envs=1.5"),
        ("prefrl/Dot-v0", {"seed": -1}, "seed >= 0.*seed=-1"),
    ],
)
def test_a_wrong_option_is_refused_with_what_was_wanted(task, wrong, message):
    with pytest.raises(TaskError, match=message):
        make_vec(task, **{"num_envs": 1, "seed": 0, **wrong})


@pytest.mark.parametrize("task", ["ALE/Pong-v5", "Hopper-v5", "Pendulum-v1", "prefrl/Dot-v0"])
def test_a_refused_action_leaves_the_world_as_it_was(task):
    venv = make_vec(task, num_envs=2, seed=0)
    good = actions_of(venv, 6)
    undisturbed = play(venv, 0, good)
    clip = venv.clip_recipe(env=1, start=1, steps=3).to_bytes()
    film = [venv.reset_at(0).tobytes()]
    for action in good:
        if isinstance(venv.single_action_space, Box):
            wrong = (good[0][:1], np.full_like(good[0], np.nan))
        else:
            wrong = (good[0][:1], good[0] - 99, good[0] + 99, good[0] * 1.0)
        for actions in wrong:
            with pytest.raises(TaskError, match=f"actions of {task}"):
                venv.step(actions)
        film.append(venv.step(action)[0].tobytes() + venv.score.true_reward.tobytes())
    assert film == undisturbed
    assert venv.clip_recipe(env=1, start=1, steps=3).to_bytes() == clip
    venv.close()


def test_reset_refuses_what_it_cannot_use():
    venv = make_vec("prefrl/Dot-v0", num_envs=2, seed=0)
    with pytest.raises(TaskError, match="before reset"):
        venv.step(np.zeros(2, int))
    for seed in (-1, [1, 2], 0.5, True):
        with pytest.raises(TaskError, match="one integer seed"):
            venv.reset(seed=seed)
    with pytest.raises(TaskError, match="takes a step"):
        venv.reset_at(-1)
    with pytest.raises(TaskError, match="no options"):
        venv.reset(options={"easy": True})


@pytest.mark.parametrize("task", ["ALE/Breakout-v5", "Hopper-v5", "prefrl/Dot-v0"])
def test_scrambling_the_true_reward_changes_nothing_that_the_agent_sees(task, monkeypatch):
    venv = make_vec(task, num_envs=2, seed=0)
    actions = actions_of(venv, 250)

    def seen():
        start = venv.reset_at(0).tobytes()
        return [start] + [repr([np.asarray(x).tobytes() for x in told(venv, a)]) for a in actions]

    honest, advance = seen(), venv._advance
    monkeypatch.setattr(venv, "_advance", lambda *a: replace(advance(*a), true_reward=NOISE))
    assert seen() == honest
    venv.close()


def threads():
    """Of this process."""
    return len(thread_ids())


def thread_ids():
    """What Linux calls them."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted by Linux")
def test_a_game_has_the_threads_it_was_given():
    make_vec("ALE/Pong-v5", num_envs=2, seed=0).close()  # what starts once only has started
    before = threads()
    venv = make_vec("ALE/Pong-v5", num_envs=4, seed=0, threads=1)
    assert threads() == before + 1
    venv.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are found by Linux")
@pytest.mark.skipif(os.cpu_count() == 1, reason="the emulator has no more threads than cores")
def test_a_games_threads_share_the_cores_and_take_turns(monkeypatch):
    pinned, turns = {}, {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda t, to: pinned.__setitem__(t, to))
    monkeypatch.setattr(os, "sched_setscheduler", lambda t, how, _: turns.__setitem__(t, how))
    make_vec("ALE/Pong-v5", num_envs=2, seed=0, threads=1).close()
    assert not pinned  # for they are fewer than the cores
    before = thread_ids()
    venv = make_vec("ALE/Pong-v5", num_envs=4, seed=0, threads=2)
    begun = sorted(thread_ids() - before)
    assert pinned == {begun[0]: {3}, begun[1]: {5}}
    assert turns == dict.fromkeys(begun, os.SCHED_BATCH)
    venv.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are found by Linux")
def test_threads_stay_where_they_are_where_nothing_else_is_allowed(monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", refused)
    venv = make_vec("ALE/Pong-v5", num_envs=2, seed=0, threads=2)
    venv.reset_at(0)
    venv.step(np.zeros(2, np.int64))
    venv.close()


@pytest.mark.parametrize("task", ["ALE/Pong-v5", "HalfCheetah-v5", "prefrl/Dot-v0"])
def test_a_negative_number_of_threads_is_refused(task):
    with pytest.raises(TaskError, match="threads=-1: wanted an integer, 0 to 4096"):
        make_vec(task, num_envs=1, seed=0, threads=-1)
    make_vec(task, num_envs=1, seed=0, threads=1).close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted by Linux")
def test_a_closed_game_leaves_no_threads():
    make_vec("ALE/Pong-v5", num_envs=2, seed=0).close()  # what starts once only has started
    before = threads()
    venv = make_vec("ALE/Pong-v5", num_envs=2, seed=0)
    venv.reset_at(0)
    assert threads() > before
    venv.close()
    assert threads() == before
