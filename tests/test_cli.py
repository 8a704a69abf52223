"""The command line as a user meets it: exit codes, one line of complaint, nothing created."""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

import prefrl
from prefrl.cli import main
from prefrl.commands.parse import one_line
from prefrl.config import write_toml
from prefrl.feedback import FeedbackStore
from prefrl.recipes import recipe_for
from prefrl.run import default_directory

SMALL = ["prefrl/Dot-v0", "--steps", "1280", "--labels", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small complete run."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", *SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(argv, capsys):
    """The one line on stderr of a command that fails with exit code 2."""
    capsys.readouterr()
    assert main([str(arg) for arg in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("prefrl: ")


DOT, PONG = "prefrl/Dot-v0", "ALE/Pong-v5"
TRUE = ("--reward", "true", "--labels", "0")
UNIFORM = ("--queries.strategy", "uniform")
IDLE = [
    (DOT, "model.network", "small", "states"),
    (DOT, "model.dropout", "0.25", "states"),
    (DOT, "policy.precision", "fp32", "states"),
    (PONG, "model.far-inputs", "cut", "pixels", "--steps", "2048"),
    (DOT, "queries.stale-after", "7", "the rater oracle, who answers at once"),
    (DOT, "queries.spread", "2", "strategy uniform", *UNIFORM),
    (DOT, "queries.uniform-share", "0.2", "strategy uniform", *UNIFORM),
    (DOT, "model.members", "7", "reward true", *TRUE),
    (DOT, "queries.every", "7", "reward true", *TRUE),
]
"""Task, a setting that nothing reads, what is given, beside what, and further arguments."""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train"], "no task: wanted `prefrl train TASK`"),
        (["train", "Pong"], "unknown task 'Pong'; did you mean 'ALE/Pong-v5'?"),
        (["train", "prefrl/Dot-v0", "--rater", "orcle"], "unknown rater 'orcle'; did you mean"),
        (["train", "prefrl/Dot-v0", "--labls", "3"], "unknown option '--labls'; did you mean"),
        (["train", "prefrl/Dot-v0", "--ppo.clp", "3"], "did you mean '--ppo.clip'?"),
        (["train", "prefrl/Dot-v0", "extra"], "got 'extra' too many"),
        (["train", "prefrl/Dot-v0", "--labels", "-3"], "labels: got -3, wanted 0 or more"),
        (["train", "prefrl/Dot-v0", "--labels", "x"], "--labels: got 'x', wanted an integer"),
        (["train", "prefrl/Dot-v0", "--ppo.gamma", "x"], "--ppo.gamma: got 'x', wanted a number"),
        (["train", "prefrl/Dot-v0", "--labels"], "Missing value for argument '--labels'"),
        (["train", "prefrl/Dot-v0", "--reward", "x"], "--reward: got 'x', wanted one of"),
        (["train", "prefrl/Dot-v0", "--env.sticky", "0.5"], "unknown option 'sticky'"),
        (["train", "prefrl/Dot-v0", "--device", "gpu"], "device: got 'gpu', wanted auto, cpu"),
        (["train", "prefrl/Dot-v0", "--device", "cpu:x"], "device: got 'cpu:x', wanted auto, cpu"),
        (["train", "prefrl/Dot-v0", "--rollout-steps", "5"], "does not fit into a rollout of 5"),
        (
            ["train", "Reacher-v5", "--queries.segment-steps", "60"],
            "does not fit into an episode of Reacher-v5, which has 50",
        ),
        (
            ["train", "Walker2d-v5", "--env.horizon", "40"],
            "does not fit into an episode of Walker2d-v5, which has 40",
        ),
        (["train", "Hopper-v5", "--env.horizon", "0"], "horizon=0: wanted an integer of 1 or more"),
        (["train", "ALE/Pong-v5", "--env.horizon", "10"], "unknown option 'horizon'"),
        (
            ["train", "ALE/Pong-v5", "--queries.segment-steps", "2001", "--rollout-steps", "2001"],
            "queries.segment_steps: got 2001, wanted at most 2000",
        ),
        (["train", "prefrl/Dot-v0", "--model.stride", "99"], "model.stride: got 99, wanted at"),
        (["train", "Reacher-v5", "--num-envs", "1"], "ppo.minibatches: got 32, wanted at most 25"),
        (["train", "prefrl/Dot-v0", "--queries.segment-steps", "0"], "wanted 1 or more"),
        (["train", "prefrl/Dot-v0", "--model.pretrain-epochs", "0"], "wanted more than 0"),
        (["train", "prefrl/Dot-v0", "--model.updates-per-label", "-1"], "wanted 0 or more"),
        (
            ["train", "prefrl/Dot-v0", "--model.pretrain-epochs", "inf"],
            "model.pretrain_epochs: got",
        ),
        (["train", "prefrl/Dot-v0", "--model.updates-per-label", "1e300"], "wanted at most 10000"),
        (["train", "prefrl/Dot-v0", "--model.scale", "inf"], "model.scale: got inf, wanted a fin"),
        (["train", "prefrl/Dot-v0", "--seed", "9" * 20], "wanted at most 1000000000000000"),
        (["train", "prefrl/Dot-v0", "--num-envs", "100000"], "got 100000, wanted at most 65,536"),
        (["train", "prefrl/Dot-v0", "--threads", "9" * 10], "threads: got 9999999999, wanted 0 to"),
        (["train", "prefrl/Dot-v0", "--zzzzz"], "nothing is called like it; see `prefrl train"),
        (["train", "prefrl/Dot-v0", "--policy.trunk", "small"], "policy.trunk: got small, with st"),
        (["train", "prefrl/Dot-v0", "--schedule", "strict"], "with the rater oracle, who answers"),
        *(
            (
                ["train", task, f"--{name}", given, *others],
                f"{name.replace('-', '_')}: got {given}, with {beside}",
            )
            for task, name, given, beside, *others in IDLE
        ),
        (
            ["train", "prefrl/Dot-v0", "--reward", "true", "--rater", "human"],
            "rater: got human, with reward true and 200 labels: nobody would be asked anything",
        ),
        (
            ["train", "prefrl/Dot-v0", "--reward-model-sha256", "ab"],
            "reward_model_sha256: got ab, with no reward_model: it has no effect",
        ),
        (
            [
                "train",
                "prefrl/Dot-v0",
                "--queries.schedule",
                "custom",
                "--queries.points",
                "0",
                "0",
                ".5",
                "nan",
                "1",
                "1",
            ],
            "queries.points: got nan",
        ),
        (["train", "prefrl/Dot-v0", "--resume"], "name its directory with --out DIR"),
        (["train", "--resume", "--out", "gone"], "gone is not a run directory"),
        (["train", "prefrl/Dot-v0", "--config", "gone.toml"], "gone.toml cannot be read"),
        (["eval", "gone"], "gone is not a run directory"),
        (["eval"], "Missing from prefrl eval: RUN"),
        (["fit"], "no run: wanted `prefrl fit RUN`"),
        (["fit", "gone"], "gone is not a run directory"),
        (["report"], "no run: wanted `prefrl report RUN...`"),
        (["watch", "gone", "--record", "x.avi"], "wanted a name ending in .mp4"),
    ],
)
def test_a_mistake_costs_one_line_and_creates_nothing(argv, said, nowhere, capsys):
    assert said in complaint(argv, capsys)
    assert list(nowhere.iterdir()) == []


def test_a_gpu_that_is_not_there_is_refused_at_once(nowhere, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    said = complaint(["train", "prefrl/Dot-v0", "--device", "cuda:9"], capsys)
    assert said == "device: got 'cuda:9', wanted cuda:0 to cuda:0"
    assert list(nowhere.iterdir()) == []


def test_runs_of_one_second_have_directories_of_their_own(nowhere, monkeypatch):
    monkeypatch.setattr("prefrl.run.time.strftime", lambda form: "now")
    wanted = ["Dot-v0-now", "Dot-v0-now-2", "Dot-v0-now-3"]
    for name in wanted:
        path = default_directory("prefrl/Dot-v0")
        assert path.name == name
        path.mkdir(parents=True)


def test_points_of_another_schedule_are_refused(nowhere, capsys):
    argv = ["train", "ALE/Pong-v5", "--queries.schedule", "constant"]
    points = ["--queries.points", "0", "0", "1", "1"]
    assert "queries.points: got some, with the sched" in complaint([*argv, *points], capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepz = 3", "my.toml: unknown setting 'stepz'; did you mean 'steps'?"),
        ("labels = 'x'", "labels: got 'x', wanted int"),
        ("steps = = 3", "is not valid TOML"),
        ("[model]\nl2_band = [1.1]", "model.l2_band: got [1.1], wanted a list of 2"),
        ("task = 'Ant-v5'", "is for 'Ant-v5', not 'prefrl/Dot-v0'"),
    ],
)
def test_a_wrong_config_file_is_refused_by_name(text, said, nowhere, capsys):
    (nowhere / "my.toml").write_text(text)
    assert said in complaint(["train", "prefrl/Dot-v0", "--config", "my.toml"], capsys)
    assert [path.name for path in nowhere.iterdir()] == ["my.toml"]


def test_settings_come_from_recipe_then_file_then_command_line(nowhere, monkeypatch):
    got = {}
    monkeypatch.setattr("prefrl.run.run", lambda config, out: got.update(config=config, out=out))
    (nowhere / "my.toml").write_text("labels = 5\nseed = 7\n[ppo]\nclip = 0.3\n")
    argv = ["train", "prefrl/Dot-v0", "--config", "my.toml", "--seed", "8", "--out", "there"]
    assert main(argv) == 0
    config = got["config"]
    assert (config.labels, config.seed, config.ppo.clip, config.ppo.gamma) == (5, 8, 0.3, 0.9)
    assert str(got["out"]) == "there"


def test_a_runs_own_settings_are_taken_as_a_config_file(nowhere, monkeypatch):
    got = []
    monkeypatch.setattr("prefrl.run.run", lambda config, out: got.append(config))
    recipe = recipe_for("prefrl/Dot-v0")
    write_toml(recipe, nowhere / "config.toml")  # reward_model = "none"
    assert main(["train", "prefrl/Dot-v0", "--config", "config.toml"]) == 0
    prefrl.train("prefrl/Dot-v0", reward_model="none")
    assert got == [recipe, recipe]


def test_a_run_leaves_curves_a_film_and_a_page(finished):
    assert (finished / "report" / "learning.png").stat().st_size > 10_000
    assert (finished / "videos" / "final.mp4").stat().st_size > 1_000
    page = (finished / "report" / "index.html").read_text()
    assert "1,280 of 1,280" in page
    assert 'href="../videos/final.mp4"' in page


def test_films_of_queries_are_written(finished, capsys):
    capsys.readouterr()
    assert main(["clips", str(finished), "--last", "2"]) == 0
    newest = capsys.readouterr().out.split()
    assert [os.path.getsize(path) > 1_000 for path in newest] == [True, True]
    id = os.path.basename(newest[1]).removesuffix(".mp4")
    assert main(["clips", str(finished), "--query", id[:8]]) == 0
    assert capsys.readouterr().out.split() == [newest[1]]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--query", "nothing"], "got 'nothing', which 0 queries of"),
        (["--query", ""], "got '', which 8 queries of"),
        (["--last", "0"], "last: got 0, wanted 1 or more"),
        (["--last", "2", "--query", "a"], "last: got a number, and --query too"),
        (["--query", "a", "--mistakes"], "wanted one of the two"),
        (["--reward-model", "gone"], "no reward model in gone"),
    ],
)
def test_a_film_of_what_is_not_there_is_refused(argv, said, finished, capsys):
    assert said in complaint(["clips", finished, *argv], capsys)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["gold", "--true-reward", "--seed", "-1"], "seed: got -1, wanted 0 or more"),
        (["gold", "--count", "5"], "count: wanted with --by or --true-reward"),
        (["gold", "--query", "a", "--answer", "tie", "--seed", "2"], "seed: wanted with --by or"),
        (["raters", "--seed", "-1"], "seed: got -1, wanted 0 or more"),
        (["fit", "--threads", "-1"], "threads: got -1, wanted 0 to 4096"),
        (["fit", "--answers", "0"], "answers: got 0, and none of the first so many"),
    ],
)
def test_what_does_not_fit_is_refused(argv, said, finished, capsys):
    assert said in complaint([argv[0], finished, *argv[1:]], capsys)


@pytest.mark.parametrize("argv", [["--resume"], [*SMALL, "--resume"], SMALL])
def test_the_same_command_and_resume_go_on(finished, argv, capsys):
    assert main(["train", *argv, "--out", str(finished)]) == 0
    assert "resuming" in capsys.readouterr().err


@pytest.fixture
def stopped(nowhere, monkeypatch):
    """A run that was stopped at its first update."""

    def stop(ppo, *args, **about):
        raise KeyboardInterrupt

    run = nowhere / "run"
    with monkeypatch.context() as patch:
        patch.setattr("prefrl.ppo.PPO.update", stop)
        assert main(["train", *SMALL, "--no-video", "--out", str(run)]) == 130
    return run


def test_a_run_goes_on_with_other_threads(stopped, capsys):
    again = ["train", "--resume", "--out", str(stopped)]
    settings = (stopped / "config.toml").read_text()
    assert "threads = 1" in settings
    assert main([*again, "--threads", "2"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 threads from here on, 1 before: rounding may make another course of it" in said
    assert (stopped / "config.toml").read_text() == settings
    noted = json.loads((stopped / "provenance.json").read_text())["threads"]
    assert [one["threads"] for one in noted] == [1, 2]
    assert main(again) == 0  # it is complete, so nothing is computed
    assert "before" not in capsys.readouterr().err


def test_a_damaged_provenance_is_said_and_left(stopped, capsys):
    (stopped / "provenance.json").write_text("{")
    assert main(["train", "--resume", "--out", str(stopped)]) == 2
    assert "provenance.json is damaged" in capsys.readouterr().err.splitlines()[-1]
    assert (stopped / "provenance.json").read_text() == "{"


def test_a_finished_run_is_filmed_or_left_with_its_films(finished):
    def films():
        return sorted(p.relative_to(finished) for p in finished.rglob("*.mp4"))

    assert main(["train", "--resume", "--out", str(finished), "--video"]) == 0
    before = films()
    assert before
    assert main(["train", "--resume", "--out", str(finished), "--no-video"]) == 0
    assert films() == before


def test_a_directory_of_another_run_is_refused(finished, capsys):
    before = sorted(path.name for path in finished.rglob("*"))
    other = ["train", *SMALL, "--seed", "1", "--out", finished]
    assert "other settings (seed was 0, now 1)" in complaint(other, capsys)
    pong = ["train", "ALE/Pong-v5", "--out", finished]
    assert "task was prefrl/Dot-v0, now ALE/Pong-v5" in complaint(pong, capsys)
    assert sorted(path.name for path in finished.rglob("*")) == before


def test_a_directory_that_is_no_run_is_refused(nowhere, capsys):
    (nowhere / "mine").mkdir()
    (nowhere / "mine" / "thesis.tex").write_text("years of work")
    said = complaint(["train", *SMALL, "--out", "mine"], capsys)
    assert "mine exists and holds something else (no config.toml)" in said
    assert [path.name for path in (nowhere / "mine").iterdir()] == ["thesis.tex"]


def test_a_directory_in_use_is_refused(finished, capsys):
    from prefrl.loop.rundir import RunDir, RunLock

    with RunLock(RunDir(path=finished)):
        said = complaint(["train", *SMALL, "--out", finished], capsys)
    assert f"is in use by process {os.getpid()}" in said


def test_a_store_of_another_run_is_refused(finished, tmp_path, capsys):
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(finished, run)
    assert main(["train", *SMALL, "--seed", "7", "--no-video", "--out", str(other)]) == 0
    for name in ("labels.db", "clips.db", "labels.jsonl"):
        shutil.copy(other / name, run / name)
    said = complaint(["train", *SMALL, "--out", run], capsys)
    assert "holds answers about prefrl/Dot-v0, seed 7; wanted those of this run" in said


def test_an_older_backup_of_the_answers_is_refused(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for name in ("labels.db", "clips.db", "labels.jsonl"):
        (run / name).unlink()
    FeedbackStore.create(run, task="prefrl/Dot-v0", seed=0).close()
    capsys.readouterr()
    assert main(["train", *SMALL, "--out", str(run)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "learned from answer 1, which is not in" in said
    assert "to begin at step 0" in said


def test_a_run_with_settings_that_do_nothing_goes_on(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    begun = (run / "config.toml").read_text()
    (run / "config.toml").write_text(begun.replace('schedule = "async"', 'schedule = "strict"'))
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert main(["report", str(run), "--no-films"]) == 0


def test_labels_that_did_not_come_are_said(nowhere, capsys):
    argv = ["train", *SMALL, "--labels", "200", "--no-video", "--out", "run"]
    assert main(argv) == 0
    assert "of 200 labels came" in capsys.readouterr().err


def test_the_package_can_be_run(nowhere):
    done = subprocess.run(
        [sys.executable, "-m", "prefrl", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:7]) == (0, "prefrl ")


def test_a_thread_that_fails_on_a_full_disk_leaves_the_telling_to_the_main_one(capsys):
    def fail(error):
        def run():
            raise error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return capsys.readouterr().err

    before = threading.excepthook
    try:
        main(["--version"])
        assert fail(OSError(errno.ENOSPC, "No space left on device")) == ""
        assert "ZeroDivisionError" in fail(ZeroDivisionError())
    finally:
        threading.excepthook = before


def test_a_damaged_checkpoint_costs_a_warning(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    newest = sorted((run / "checkpoints").iterdir())[-1]
    shutil.copytree(newest, newest.with_name("step-000000999999"))
    (newest.with_name("step-000000999999") / "policy.safetensors").write_bytes(b"torn")
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    out, err = capsys.readouterr()
    assert "step-000000999999 is damaged (policy.safetensors has changed)" in err
    assert "n 2" in out
    for path in (run / "checkpoints").iterdir():
        (path / "policy.safetensors").unlink()
    capsys.readouterr()
    assert main(["eval", str(run)]) == 2
    assert "every checkpoint in" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "labels.db"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_a_full_disk_is_said_in_one_line(error, nowhere, monkeypatch, capsys):
    def full(config, out):
        raise error

    monkeypatch.setattr("prefrl.run.run", full)
    said = complaint(["train", *SMALL], capsys)
    assert said.startswith("the disk is full")
    assert "give the same command, with its --out, to go on" in said


def test_eval_prints_mean_interval_and_n(finished, capsys):
    assert main(["eval", str(finished), "--episodes", "5", "--seed", "3", "--greedy"]) == 0
    first = capsys.readouterr().out
    assert "95 % interval of the mean" in first
    assert "n 5" in first
    assert main(["eval", str(finished), "--episodes", "5", "--seed", "3", "--greedy"]) == 0
    assert capsys.readouterr().out == first


def test_eval_plays_longer_episodes_than_those_of_training(finished, tmp_path, capsys):
    run = tmp_path / "run"
    small = ["--steps", "160", "--num-envs", "2", "--rollout-steps", "60", "--env.horizon", "60"]
    robot = ["Pendulum-v1", *small, "--labels", "0", "--no-video", "--checkpoint-every", "1000"]
    assert main(["train", *robot, "--out", str(run)]) == 0
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    short = capsys.readouterr().out
    assert "episodes of 60 steps" in short
    assert main(["eval", str(run), "--episodes", "2", "--whole"]) == 0
    long = capsys.readouterr().out
    assert "episodes of 200 steps" in long
    returns = [float(said.split("true return ")[1].split()[0]) for said in (short, long)]
    assert returns[1] < returns[0] < 0
    assert main(["eval", str(finished), "--episodes", "2", "--whole"]) == 0  # they are already


def test_watch_plays_in_a_window(finished, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert main(["watch", str(finished), "--seconds", "0.3"]) == 0


@pytest.mark.parametrize("given", ["inf", "1e300", "0"])
def test_watch_needs_a_time_that_ends(given, finished, capsys):
    said = complaint(["watch", finished, "--seconds", given, "--record", "a.mp4"], capsys)
    assert said.startswith("seconds: got ")
    assert "wanted" in said


@pytest.mark.parametrize("command", ["eval", "watch"])
def test_players_take_no_seed_beyond_all_use(command, finished, capsys):
    said = complaint([command, finished, "--seed", "9" * 20], capsys)
    assert said.startswith(f"seed: got {'9' * 20}, wanted at most 1000000000000000")


def test_eval_of_one_episode_claims_nothing_of_others(finished, capsys):
    assert main(["eval", str(finished), "--episodes", "1"]) == 0
    said = capsys.readouterr().out
    assert "of one episode, which says nothing of others" in said
    assert "interval" not in said


@pytest.mark.parametrize("place", ["file/a.mp4", "folder.mp4", "file/deep/a.mp4", "x" * 300])
def test_a_film_that_cannot_be_written_is_said_before_it_is_played(
    place, finished, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.mp4").mkdir()
    monkeypatch.setattr("prefrl.loop.play.Player.advance", None)  # nothing is played
    path = (tmp_path / place).with_suffix(".mp4")
    said = complaint(["watch", finished, "--record", path], capsys)
    assert said.startswith(f"record: {path} cannot be written (")


def test_a_name_that_is_too_long_is_said_in_one_line(capsys):
    assert complaint(["report", "x" * 300], capsys).startswith("that name is too long (")


def test_what_is_no_directory_is_said_in_one_line(finished, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    argv = ["export", finished, "--to", "csv", "--out", tmp_path / "file" / "a.csv"]
    said = complaint(argv, capsys)
    assert "file" in said
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_bytes((finished / "config.toml").read_bytes())
    (run / "run.lock").mkdir()
    said = complaint(["train", "--resume", "--out", run], capsys)
    assert said.startswith(f"that is a directory, where a file was wanted ({run / 'run.lock'})")


def test_clips_take_no_reward_model_of_another_task(finished, tmp_path, capsys):
    small = ["--steps", "400", "--labels", "20", "--num-envs", "2", "--rollout-steps", "50"]
    robot = ["Pendulum-v1", *small, "--no-video", "--out", str(tmp_path / "robot")]
    assert main(["train", *robot]) == 0
    said = complaint(["clips", finished, "--reward-model", tmp_path / "robot"], capsys)
    assert said.startswith("reward_model: it reads observations (3,), and those of prefrl/Dot-v0")


def test_watch_records_instead(finished, tmp_path, capsys):
    film = tmp_path / "film.mp4"
    assert main(["watch", str(finished), "--record", str(film), "--seconds", "1"]) == 0
    assert film.stat().st_size > 500


def test_report_draws_again_and_prints_a_table(finished, capsys):
    (finished / "report" / "learning.png").unlink()
    assert main(["report", str(finished)]) == 0
    assert (finished / "report" / "learning.png").is_file()
    assert "1,280 of 1,280" in capsys.readouterr().out


def test_tasks_lists_what_can_be_learned_and_who_answers(capsys):
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert "ALE/Pong-v5" in out
    assert "Prefer running faster to the right." in out


def test_help_of_train_shows_the_recipe(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "ALE/Pong-v5", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--ppo.entropy-coef" in out
    assert f"(default: {recipe_for('ALE/Pong-v5').steps})" in out


@pytest.mark.parametrize(
    ("top", "bar", "rule"), [("╭ Value error ╮", "│", "──"), (" Value error\n -----", " ", "---")]
)
def test_a_framed_message_becomes_one_line(top, bar, rule):
    rows = ["Error parsing --labels: invalid literal", "for int() with base 10: 'x'", rule, "help"]
    box = "\n".join([top, *[f"{bar} {row} {bar}" for row in rows], " "])
    assert one_line(box) == "--labels: got 'x', wanted an integer"


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys, prefrl, prefrl.cli; prefrl.cli.main(['--help']);"
        "prefrl.cli.main(['--version']);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'gymnasium', 'ale_py', 'tyro')))"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "usage: prefrl COMMAND" in done.stdout
    assert time.monotonic() - begun < 5  # 0.05 s when nothing else runs


def test_the_facade_offers_what_the_readme_promises():
    for name in prefrl.__all__:
        assert getattr(prefrl, name)
    assert callable(prefrl.train)
    with pytest.raises(prefrl.UserError, match=r"did you mean 'ppo\.clip'"):
        prefrl.train("prefrl/Dot-v0", ppo={"clip_range": 0.1})
