"""The reward model: normalised where it was labelled, frozen in between, saved exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from prefrl.errors import UserError
from prefrl.feedback import Segment
from prefrl.rewards import RewardConfig, RewardModel, Spaces
from prefrl.rewards.model import CHUNK
from prefrl.rewards.saved import ABOUT, WEIGHTS, sha256
from tests.rewards.helpers import segment, states

STATES = Spaces(kind="states", observation=(1,), actions=1, discrete=False)
PIXELS = Spaces(kind="pixels", observation=(44, 44, 2), actions=2, discrete=True)


def model(
    spaces: Spaces = STATES, *, dtype: torch.dtype = torch.float32, **settings: object
) -> RewardModel:
    return RewardModel.build(
        spaces,
        RewardConfig(**settings),  # type: ignore[arg-type]
        dtype=dtype,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
    )


def steps(n: int, *, spaces: Spaces = STATES, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if spaces is PIXELS:
        shape = (n, 44, 44, 2)
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8), torch.zeros(n)
    return 3 + torch.randn(n, 1, generator=generator), torch.randn(n, 1, generator=generator)


def test_every_step_scores_zero_before_the_first_fit() -> None:
    got = model().score([states(1.0, 2.0), states(5.0, 6.0)])
    assert got.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_one_member_has_mean_zero_and_the_scale_on_the_labelled_steps() -> None:
    made, labelled = model(members=1, scale=0.05), steps(200)
    made.normalise_on(*labelled)
    got = made.score_steps(labelled[0][None], labelled[1][None])
    assert got.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert got.std(correction=0).item() == pytest.approx(0.05, rel=1e-4)


def test_members_are_normalised_one_by_one_and_then_averaged() -> None:
    # a member whose outputs are a hundred times larger counts no more than the others
    made, labelled = model(members=2, scale=1.0), steps(200)
    assert len(made.network.head.weight) == 2  # type: ignore[arg-type, union-attr]
    plain = model(members=2, scale=1.0)
    made.network.head.weight.data[1] *= 100  # type: ignore[union-attr, index]
    for each in (made, plain):
        each.normalise_on(*labelled)
    x = steps(5, seed=2)
    got, wanted = (m.score_steps(x[0][None], x[1][None]) for m in (made, plain))
    torch.testing.assert_close(got, wanted)
    raw = (made.members(*labelled) - made.mean[:, None]) / made.std[:, None]
    torch.testing.assert_close(raw.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(raw.std(1, correction=0), torch.ones(2))


def test_the_normaliser_is_frozen_while_the_model_rewards() -> None:
    made = model()
    made.normalise_on(*steps(100))
    x = steps(4, seed=2)
    before = made.score_steps(x[0][None], x[1][None])
    far = 1000 + steps(500, seed=3)[0]
    made.score_steps(far[None], torch.zeros(1, 500, 1))
    assert torch.equal(made.score_steps(x[0][None], x[1][None]), before)


def test_no_step_of_a_member_counts_more_than_the_clip() -> None:
    free, clipped = model(scale=0.5), model(scale=0.5, clip=2.0)
    labelled, x = steps(100), steps(4, seed=2)
    far = torch.cat([x[0], 100 * x[0]]), torch.cat([x[1], x[1]])
    for made in (free, clipped):
        made.normalise_on(*labelled)
    raw = (free.members(*far) - free.mean[:, None]) / free.std[:, None]
    assert raw.abs().max() > 2
    wanted = 0.5 * raw.clamp(-2, 2).mean(0)
    torch.testing.assert_close(clipped.score_steps(far[0][None], far[1][None])[0], wanted)
    assert free.score_steps(far[0][None], far[1][None]).abs().max() > 1.0


def test_what_is_near_the_labelled_median_counts_as_nothing() -> None:
    free, thresholded = model(scale=0.5), model(scale=0.5, firm_threshold=(0.4, 0.8))
    labelled = steps(101)
    for made in (free, thresholded):
        made.normalise_on(*labelled)
    whole = free.score_steps(labelled[0][None], labelled[1][None])[0] / 0.5  # in deviations
    far = whole - whole.median()  # of an odd number: one of them
    got = thresholded.score_steps(labelled[0][None], labelled[1][None])[0] / 0.5
    small, large = far.abs() <= 0.4, far.abs() >= 0.8
    assert min(small.sum(), large.sum(), (~small & ~large).sum()) > 0
    rising = far.sign() * 2 * (far.abs() - 0.4)  # from 0 at .4 to .8 at .8
    wanted = torch.where(small, 0.0, torch.where(large, far, rising))
    torch.testing.assert_close(got, wanted)


def test_the_threshold_and_its_median_are_loaded_with_the_model(tmp_path: Path) -> None:
    made, x = model(firm_threshold=(0.4, 0.8)), steps(9)
    made.normalise_on(*steps(50))
    made.save(tmp_path)
    loaded = RewardModel.load(tmp_path)
    assert loaded.median == made.median != 0
    assert torch.equal(loaded.score_steps(x[0][None], x[1][None]),
                       made.score_steps(x[0][None], x[1][None]))  # fmt: skip


def test_a_model_saved_before_there_was_a_median_is_read(tmp_path: Path) -> None:
    made = model()
    made.normalise_on(*steps(50))
    older = {k: v for k, v in made.state().items() if k != "median"}
    other = model()
    other.restore(older)
    x = steps(9)
    assert torch.equal(other.score_steps(x[0][None], x[1][None]),
                       made.score_steps(x[0][None], x[1][None]))  # fmt: skip


def test_a_model_from_before_pixels_were_standardised_reads_them_from_0_to_1(
    tmp_path: Path,
) -> None:
    made, x = model(PIXELS), steps(9, spaces=PIXELS)
    made.normalise_on(*x)
    older = {k: v for k, v in made.state().items() if k not in ("network.mean", "network.std")}
    assert len(older) == len(made.state()) - 2
    other = model(PIXELS)
    other.restore(older)
    assert torch.equal(other.score_steps(x[0][None], x[1][None]),
                       made.score_steps(x[0][None], x[1][None]))  # fmt: skip
    assert other.state().keys() == older.keys()
    save_file({k: v.contiguous() for k, v in older.items()}, tmp_path / "older")
    other.save(tmp_path)
    assert sha256(tmp_path / "older") == sha256(tmp_path / WEIGHTS)
    other.normalise_on(*x)  # fitted anew it is as others are
    assert other.state().keys() == made.state().keys()


@pytest.mark.parametrize("lost", ["network.mean", "network.std", "network.hidden.weight"])
def test_a_model_that_lost_a_part_is_refused_and_stays_as_it_is(lost: str) -> None:
    made, other = model(PIXELS), model(PIXELS)
    with pytest.raises(RuntimeError, match=lost.removeprefix("network.")):
        other.restore({k: v for k, v in made.state().items() if k not in (lost, "median")})
    assert other.state().keys() == made.state().keys()


def test_a_model_from_before_far_inputs_could_be_chosen_cuts_them_off_as_it_did(
    tmp_path: Path,
) -> None:
    made = model(far_inputs="cut")
    made.normalise_on(*steps(20))
    made.network.mean.fill_(3.0)  # type: ignore[operator, union-attr]
    far = torch.tensor([[[13.0], [14.0], [23.0]]]), torch.zeros(1, 3, 1)  # 10, 11, 20 deviations
    assert made.score_steps(*far).unique().numel() == 1
    made.save(tmp_path)
    about = json.loads((tmp_path / ABOUT).read_text())
    del about["settings"]["far_inputs"]
    (tmp_path / ABOUT).write_text(json.dumps(about))
    assert torch.equal(RewardModel.load(tmp_path).score_steps(*far), made.score_steps(*far))


def test_a_model_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    made = model()
    made.normalise_on(*steps(50))
    made.save(tmp_path)
    about = json.loads((tmp_path / ABOUT).read_text())
    about["settings"]["soft_threshold"] = 0.5
    (tmp_path / ABOUT).write_text(json.dumps(about))
    with pytest.raises(UserError, match="has a setting 'soft_threshold', which this version has"):
        RewardModel.load(tmp_path)


def test_far_inputs_are_told_apart_and_loaded_so(tmp_path: Path) -> None:
    made = model()
    made.normalise_on(*steps(20))
    far = torch.tensor([[[10.0], [14.0], [23.0]]]), torch.zeros(1, 3, 1)
    assert made.score_steps(*far).unique().numel() == 3
    made.save(tmp_path)
    assert torch.equal(RewardModel.load(tmp_path).score_steps(*far), made.score_steps(*far))


def test_dropout_and_batch_statistics_are_off_when_rewarding() -> None:
    made, x = model(PIXELS, dropout=0.5), steps(6, spaces=PIXELS)
    made.network.train()
    together = made.members(*x)
    made.network.train()
    alone = torch.cat([made.members(o[None], a[None]) for o, a in zip(*x, strict=True)], 1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not made.network.training


@pytest.mark.parametrize("spaces", [STATES, PIXELS], ids=["states", "pixels"])
def test_chunks_of_a_long_rollout_change_nothing(spaces: Spaces) -> None:
    chunk = CHUNK[spaces.kind]
    made, x = model(spaces), steps(chunk + 7, spaces=spaces)
    whole = made.members(*x)
    assert whole.shape == (3, chunk + 7)
    torch.testing.assert_close(whole[:, chunk:], made.members(x[0][chunk:], x[1][chunk:]))


def test_scores_of_segments_are_those_of_their_steps() -> None:
    made = model()
    made.normalise_on(*steps(50))
    pair = [states(1.0, 2.0), states(3.0, 4.0)]
    got = made.score(pair)
    wanted = made.score_steps(torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]), torch.zeros(2, 2, 1))
    assert torch.equal(got, wanted)


def test_segment_returns_sum_the_raw_output_of_each_member() -> None:
    made = model(scale=0.05)
    made.normalise_on(*steps(50))  # must not enter: the likelihood is about raw returns
    got = made.segment_returns([states(1.0, 2.0), states(3.0, 4.0)])
    raw = made.members(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.zeros(4, 1))
    torch.testing.assert_close(got, torch.stack([raw[:, :2].sum(1), raw[:, 2:].sum(1)], 1))
    half = made.segment_returns([states(1.0, 2.0), states(3.0, 4.0)], stride=2)
    torch.testing.assert_close(half, 2 * raw[:, 1::2])  # from the second of each two
    alone = made.segment_returns([states(1.0, 2.0)], stride=9)
    torch.testing.assert_close(alone, 2 * raw[:, 1:2])


@pytest.mark.parametrize("stacked", ["copied", "sliding"])
def test_segment_returns_of_pixels_are_read_from_stacked_frames(stacked: str) -> None:
    made = model(PIXELS)
    rng = np.random.default_rng(0)
    pair, frames = [], rng.integers(0, 256, (2, 6, 44, 44), dtype=np.uint8)
    for film in frames:
        windows = np.lib.stride_tricks.sliding_window_view(film, 2, axis=0)  # [5, 44, 44, 2]
        observations = windows if stacked == "sliding" else windows.copy()
        pair.append(segment(observations))
    observation = torch.from_numpy(np.concatenate([s.observations for s in pair]))
    raw = made.members(observation, torch.zeros(10)).view(-1, 2, 5)
    torch.testing.assert_close(made.segment_returns(pair), raw.sum(-1))
    every_second = raw[..., 1::2].mean(-1) * 5
    torch.testing.assert_close(made.segment_returns(pair, stride=2), every_second)


def test_rewards_are_linear_in_the_hidden_units() -> None:
    made, x = model(PIXELS), steps(5, spaces=PIXELS)
    made.network.eval()
    hidden = made.network.hidden_units(*x)
    assert torch.equal(made.network(*x), made.network.head(hidden).squeeze(-1))


@pytest.mark.parametrize("spaces", [STATES, PIXELS], ids=["states", "pixels"])
def test_a_saved_model_scores_bit_for_bit_the_same(spaces: Spaces, tmp_path: Path) -> None:
    made = model(spaces, members=2, scale=0.05)
    labelled = steps(20, spaces=spaces)
    made.network.train()
    made.network(*labelled)  # moves the running statistics of batch normalisation
    made.normalise_on(*labelled)
    made.save(tmp_path)
    back = RewardModel.load(tmp_path)
    x = steps(8, spaces=spaces, seed=2)
    assert torch.equal(
        back.score_steps(x[0][None], x[1][None]), made.score_steps(x[0][None], x[1][None])
    )
    assert back.spaces == spaces
    assert not any(f.suffix in (".pkl", ".pt") for f in tmp_path.iterdir())


def test_a_model_fitted_in_bf16_scores_bit_for_bit_the_same_when_loaded(tmp_path: Path) -> None:
    made, x = model(PIXELS, dtype=torch.bfloat16), steps(30, spaces=PIXELS)
    made.network.train()
    made.network(*x)
    made.normalise_on(*x)
    made.save(tmp_path)
    a, b = (m.score_steps(x[0][None], x[1][None]) for m in (made, RewardModel.load(tmp_path)))
    assert torch.equal(a, b)


def test_an_unfitted_model_stays_unfitted_when_loaded(tmp_path: Path) -> None:
    model().save(tmp_path)
    assert not RewardModel.load(tmp_path).fitted


def test_loading_a_run_takes_its_newest_whole_checkpoint(tmp_path: Path) -> None:
    for name, scale in (("step-000000000010", 1.0), ("step-000000000020", 2.0), (".tmp-30", 3.0)):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        model(scale=scale).save(tmp_path / "checkpoints" / name)
    assert RewardModel.load(tmp_path).scale == 2.0


def test_the_clip_is_loaded_with_the_model(tmp_path: Path) -> None:
    model(clip=3.0).save(tmp_path)
    assert RewardModel.load(tmp_path).config.clip == 3.0


@pytest.mark.parametrize("damage", ["flip", "cut", "no weights", "not JSON", "incomplete"])
def test_a_damaged_model_is_named_and_the_one_before_it_taken(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, scale in (("step-000000000010", 1.0), ("step-000000000020", 2.0)):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        model(scale=scale).save(tmp_path / "checkpoints" / name)
    newest = tmp_path / "checkpoints" / "step-000000000020"
    weights, about = newest / "reward_model.safetensors", newest / "reward_model.json"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    if damage in ("flip", "cut"):
        weights.write_bytes(data if damage == "flip" else data[:-1])
    elif damage == "no weights":
        weights.unlink()
    else:
        about.write_text("{" if damage == "not JSON" else '{"sha256": ""}')
    assert RewardModel.load(tmp_path).scale == 1.0
    assert "step-000000000020 is damaged" in caplog.text
    with pytest.raises(UserError, match=r"every reward model in .* is damaged: got 1"):
        RewardModel.load(newest)


def test_a_directory_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".tmp-30").mkdir(parents=True)
    model().save(tmp_path / "checkpoints" / ".tmp-30")
    with pytest.raises(UserError, match=r"no reward model in .*: wanted reward_model\.json"):
        RewardModel.load(tmp_path)


@pytest.mark.parametrize(
    ("segments", "got"), [([], "none"), ([states(1.0), states(1.0, 2.0)], "of 1, 2 steps")]
)
def test_segments_that_cannot_be_scored_together_are_named(
    segments: list[Segment], got: str
) -> None:
    with pytest.raises(UserError, match=f"segments: got {got}, wanted some of one length"):
        model().score(segments)


@pytest.mark.parametrize("setting", ["members", "lr", "batch", "keep", "scale"])
def test_impossible_settings_are_refused_by_the_name_they_were_given(setting: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.{setting}: got 0, wanted more than 0"):
        RewardConfig(**{setting: 0})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^model\.error: got 1\.0, wanted 0 to below 1"):
        RewardConfig(error=1.0)


@pytest.mark.parametrize("network", ["christiano2017", "small"])
def test_the_network_that_was_saved_is_the_one_that_is_loaded(tmp_path: Path, network: str) -> None:
    made = RewardModel.build(
        PIXELS,
        RewardConfig(members=2, network=network),  # type: ignore[arg-type]
        dtype=torch.float32,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
    )
    made.normalise_on(*steps(20, spaces=PIXELS))
    made.save(tmp_path)
    x = steps(4, spaces=PIXELS, seed=2)
    assert torch.equal(RewardModel.load(tmp_path).members(*x), made.members(*x))
