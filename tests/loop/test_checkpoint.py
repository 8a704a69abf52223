"""Checkpoints: whole or absent, two kept, damage noticed."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefrl.errors import UserError
from prefrl.loop.checkpoint import (
    MANIFEST,
    damage_in,
    load_optimiser,
    newest_checkpoint,
    optimiser_tensors,
    write_checkpoint,
)


def filler(text: str) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        (path / "state.json").write_text(text)
        (path / "weights.bin").write_bytes(bytes(1000))

    return fill


def names(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


class Killed(KeyboardInterrupt):
    """Stands for the end of the process."""


def test_a_written_checkpoint_is_found_and_whole(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "checkpoints", 7, filler("seven"))
    assert newest_checkpoint(tmp_path / "checkpoints") == path
    assert damage_in(path) is None
    assert (path / "state.json").read_text() == "seven"


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 20, 100):
        write_checkpoint(tmp_path, step, filler(str(step)))
    assert names(tmp_path) == ["step-000000000020", "step-000000000100"]


def test_a_kill_while_writing_leaves_the_old_ones_and_is_swept_up(tmp_path: Path) -> None:
    old = write_checkpoint(tmp_path, 5, filler("five"))

    def killed(path: Path) -> None:
        filler("half")(path)
        raise Killed

    with pytest.raises(Killed):
        write_checkpoint(tmp_path, 6, killed)
    assert newest_checkpoint(tmp_path) == old
    write_checkpoint(tmp_path, 7, filler("seven"))
    assert names(tmp_path) == ["step-000000000005", "step-000000000007"]


def test_the_same_step_may_be_saved_again(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, filler("first time"))
    path = write_checkpoint(tmp_path, 5, filler("second time"))
    assert names(tmp_path) == [path.name]
    assert (path / "state.json").read_text() == "second time"


def test_a_kill_while_a_step_is_replaced_never_leaves_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, 5, filler("first time"))
    remove = shutil.rmtree

    def killed(path: Path) -> None:
        (path / "state.json").unlink()  # removing a directory takes several steps
        raise Killed

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(Killed):
        write_checkpoint(tmp_path, 5, filler("second time"))
    monkeypatch.setattr(shutil, "rmtree", remove)
    path = newest_checkpoint(tmp_path)
    assert path is not None
    assert (path / "state.json").read_text() == "second time"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights.bin has changed": lambda p: flip(p / "weights.bin"),
    "state.json is missing": lambda p: (p / "state.json").unlink(),
    "state.json has changed": lambda p: (p / "state.json").write_text(""),
    f"{MANIFEST} is missing or unreadable": lambda p: (p / MANIFEST).unlink(),
    f"{MANIFEST} is missing or unreadable ": lambda p: (p / MANIFEST).write_text('{"step": 2'),
    f"{MANIFEST} is missing or unreadable  ": lambda p: (p / MANIFEST).write_text("[]"),
    f"{MANIFEST} names no files": lambda p: (p / MANIFEST).write_text('{"sha256": {}}'),
    f"{MANIFEST} is missing or unreadable   ": lambda p: (p / MANIFEST).write_text(
        json.dumps({"sha256": ["state.json"]})
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_checkpoint(tmp_path, 1, filler("one"))
    bad = write_checkpoint(tmp_path, 2, filler("two"))
    DAMAGE[what](bad)
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path) == good
    assert f"checkpoint {bad.name} is damaged ({what.strip()}): using the prev" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        (write_checkpoint(tmp_path, step, filler("")) / "weights.bin").unlink()
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged: got 2") as caught:
        newest_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert caplog.text.count("using the previous one") == 1


def test_files_among_checkpoints_are_passed_over(tmp_path: Path) -> None:
    for name in ("step-notes.txt", ".tmp-notes", ".tmp-old-notes"):
        (tmp_path / name).write_text("mine")
    assert newest_checkpoint(tmp_path) is None
    good = write_checkpoint(tmp_path, 1, filler("one"))
    assert newest_checkpoint(tmp_path) == good
    assert (tmp_path / "step-notes.txt").read_text() == "mine"


def test_a_damaged_later_checkpoint_does_not_take_the_place_of_a_good_one(
    tmp_path: Path,
) -> None:
    # 9 is damaged, the run went back to 5 and then saved 6: 5 and 6 are the two to keep
    write_checkpoint(tmp_path, 5, filler("five"))
    (write_checkpoint(tmp_path, 9, filler("nine")) / "weights.bin").unlink()
    write_checkpoint(tmp_path, 6, filler("six"))
    assert names(tmp_path) == ["step-000000000005", "step-000000000006"]


def test_an_optimiser_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def adam() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        layer = torch.nn.Linear(3, 2)
        for i, p in enumerate(layer.parameters()):
            p.data.fill_(0.1 * (i + 1))
        return layer, torch.optim.Adam(layer.parameters(), lr=0.01, eps=1e-5, fused=True)

    def descend(layer: torch.nn.Linear, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        layer(torch.tensor([1.0, 2.0, 3.0])).square().sum().backward()
        optimiser.step()

    layer, optimiser = adam()
    for _ in range(3):
        descend(layer, optimiser)
    save_file(optimiser_tensors(optimiser.state_dict()), tmp_path / "adam.safetensors")
    again, resumed = adam()
    again.load_state_dict(layer.state_dict())
    load_optimiser(resumed, load_file(tmp_path / "adam.safetensors"))
    for pair in ((layer, optimiser), (again, resumed)):
        descend(*pair)
    assert torch.equal(layer.weight, again.weight)
    assert torch.equal(layer.bias, again.bias)


def test_moments_follow_the_memory_layout_of_their_parameter() -> None:
    """Fused Adam walks both by address; saved tensors are always contiguous."""
    weight = torch.nn.Parameter(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    adam = torch.optim.Adam([weight], fused=True)
    weight.grad = torch.randn_like(weight)
    adam.step()
    saved = {k: v.clone().contiguous() for k, v in optimiser_tensors(adam.state_dict()).items()}
    load_optimiser(adam, saved)
    moment = adam.state[weight]["exp_avg"]
    assert moment.stride() == weight.stride()
    assert torch.equal(moment, saved["0.exp_avg"])


def test_a_fresh_optimiser_has_nothing_to_save() -> None:
    layer = torch.nn.Linear(1, 1)
    fresh = torch.optim.Adam(layer.parameters(), lr=0.5)
    assert optimiser_tensors(fresh.state_dict()) == {}
    load_optimiser(fresh, {})
    assert fresh.param_groups[0]["lr"] == 0.5


def test_moments_of_other_weights_are_refused() -> None:
    one = torch.nn.Linear(2, 3)
    saved = torch.optim.Adam(one.parameters())
    one(torch.ones(1, 2)).sum().backward()
    saved.step()
    tensors = optimiser_tensors(saved.state_dict())
    flat = torch.nn.Parameter(torch.zeros(9))
    for others in ([flat], [*one.parameters()][:1]):
        with pytest.raises(UserError, match="which this run has not"):
            load_optimiser(torch.optim.Adam(others), tensors)


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 7, filler("seven"))
    (tmp_path / "step-000000000007").rename(tmp_path / ".tmp-old-000000000007")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == ".tmp-old-000000000007"  # who only reads renames nothing
    assert damage_in(found) is None

    def killed(path: Path) -> None:
        raise Killed

    with pytest.raises(Killed):  # before another one is whole
        write_checkpoint(tmp_path, 8, killed)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-000000000007"


@pytest.mark.parametrize("replaced", [5, 7])
def test_of_a_step_that_is_being_replaced_and_another_the_later_is_newest(
    tmp_path: Path, replaced: int
) -> None:
    write_checkpoint(tmp_path, 5, filler("five"))
    write_checkpoint(tmp_path, 7, filler("seven"))
    (tmp_path / f"step-{replaced:012d}").rename(tmp_path / f".tmp-old-{replaced:012d}")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found / "state.json").read_text() == "seven"
