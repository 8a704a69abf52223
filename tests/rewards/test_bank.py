"""The labels that are kept, and who sees them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefrl.feedback import Comparison
from prefrl.feedback.replies import Choice
from prefrl.rewards import LabelBank, bootstrap_counts
from prefrl.rewards.bank import restack, unstack
from tests.rewards.helpers import label, query_id, segment, states


def bank(*, members: int = 3, keep: int = 100) -> LabelBank:
    return LabelBank(members=members, keep=keep, device=torch.device("cpu"))


def filled(count: int, *, keep: int = 100) -> LabelBank:
    """Label i compares the segments (i, i) and (i + .5, i + .5)."""
    made = bank(keep=keep)
    for i in range(count):
        pair = states(i, i), states(i + 0.5, i + 0.5)
        made.add(label(*pair, "second", step=i), pair)
    return made


def test_bootstrap_counts_are_fixed_for_ever() -> None:
    # golden: a change would turn held-out labels into seen ones in every resumed run
    assert bootstrap_counts("0" * 64, 5).tolist() == [0, 1, 1, 1, 1]
    assert bootstrap_counts("a" * 64, 5).tolist() == [1, 1, 2, 0, 0]
    assert bootstrap_counts("f" * 64, 5).tolist() == [1, 1, 1, 1, 1]


def test_bootstrap_counts_do_not_depend_on_the_size_of_the_ensemble() -> None:
    assert bootstrap_counts("a" * 64, 2).tolist() == bootstrap_counts("a" * 64, 5)[:2].tolist()


def test_bootstrap_counts_are_poisson_of_mean_one() -> None:
    counts = np.concatenate([bootstrap_counts(query_id(i), 3) for i in range(4000)])
    n = len(counts)  # 12,000; shares within 4 standard errors, sqrt(p (1 - p) / n)
    assert counts.mean() == pytest.approx(1.0, abs=4 / math.sqrt(n))
    for k in range(4):
        p = math.exp(-1) / math.factorial(k)
        assert (counts == k).mean() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / n))


def test_members_are_drawn_independently() -> None:
    counts = np.stack([bootstrap_counts(query_id(i), 2) for i in range(4000)])
    correlation = np.corrcoef(counts.T)[0, 1]
    assert abs(correlation) < 4 / math.sqrt(4000)


def test_a_batch_holds_all_first_segments_then_all_second_ones() -> None:
    batch = filled(4).batch(torch.tensor([2, 0]))
    assert batch.steps.shape == (4, 2)
    # labels 2 and 0: firsts 2 and 0, seconds 2.5 and .5, two steps each
    assert batch.steps.observation.flatten().tolist() == [2, 2, 0, 0, 2.5, 2.5, 0.5, 0.5]
    assert batch.steps.action.shape == (8, 1)
    assert batch.target.tolist() == [1.0, 1.0]
    assert batch.counts.shape == (3, 2)


def test_a_batch_keeps_pairs_targets_and_counts_together() -> None:
    made = filled(5)
    part, whole = made.batch(torch.tensor([3, 1])), made.batch(torch.arange(5))
    both = torch.tensor([3, 1, 5 + 3, 5 + 1])  # first segments, then second ones
    assert torch.equal(part.steps.observation.view(4, 2), whole.steps.observation.view(10, 2)[both])
    assert torch.equal(part.target, whole.target[both[:2]])
    assert torch.equal(part.counts, whole.counts[:, both[:2]])


@pytest.mark.parametrize(("choice", "target"), [("first", 0.0), ("second", 1.0), ("tie", 0.5)])
def test_targets_say_whether_the_second_was_preferred(choice: Choice, target: float) -> None:
    made, pair = bank(), (states(1.0), states(2.0))
    made.add(label(*pair, choice), pair)
    assert made.batch(torch.tensor([0])).target.tolist() == [target]


@pytest.mark.parametrize("choice", ["cannot", "skip"])
def test_what_nobody_could_compare_is_not_trained_on(choice: Choice) -> None:
    made, pair = bank(), (states(1.0), states(2.0))
    made.add(label(*pair, choice), pair)
    assert len(made) == 0
    assert not made._segments


def test_the_bank_keeps_the_last_labels_and_their_segments_only() -> None:
    made = filled(5, keep=2)
    assert len(made) == 2
    # labels 3 and 4 remain
    batch = made.batch(torch.arange(2))
    assert batch.steps.observation[::2].flatten().tolist() == [3, 4, 3.5, 4.5]
    assert len(made._segments) == 4


def test_a_segment_stays_while_any_kept_label_needs_it() -> None:
    made, shared = bank(keep=1), states(7.0)
    old, new = (shared, states(1.0)), (states(2.0), shared)
    made.add(label(*old, "first", step=0), old)
    made.add(label(*new, "first", step=1), new)
    assert set(made._segments) == {shared.id, new[0].id}
    assert made.batch(torch.tensor([0])).steps.observation.flatten().tolist() == [2.0, 7.0]


def test_recent_segments_are_the_newest() -> None:
    got = filled(4).recent_segments(2)
    assert got.shape == (2, 2)
    assert got.observation.flatten().tolist() == [3, 3, 3.5, 3.5]
    assert filled(1).recent_segments(256).shape == (2, 2)
    assert filled(4).recent_segments(2, stride=2).observation.flatten().tolist() == [3, 3.5]


def test_segments_stand_in_the_order_of_the_labels_that_are_kept() -> None:
    """So a resumed run, which reads those labels alone, fits the normaliser on the same steps."""
    a, b, c, d, e = (states(float(i)) for i in range(5))
    pairs = (a, b), (c, d), (a, e), (b, c)
    labels = [label(*pair, "first", step=i) for i, pair in enumerate(pairs)]
    lived, resumed = bank(keep=2), bank(keep=2)
    for i in (0, 1, 2):
        lived.add(labels[i], pairs[i])
    for i in (1, 2):
        resumed.add(labels[i], pairs[i])
    assert lived.segment_ids == resumed.segment_ids == [c.id, d.id, a.id, e.id]
    assert lived.recent_segments(2).observation.flatten().tolist() == [0.0, 4.0]
    lived, resumed = bank(), bank()
    for i in (0, 1, 3):
        lived.add(labels[i], pairs[i])
    lived.remove(labels[3])  # undone, after it had named b and c again
    for i in (0, 1):
        resumed.add(labels[i], pairs[i])
    assert lived.segment_ids == resumed.segment_ids


def test_target_entropy_is_log_two_for_every_tie() -> None:
    made = bank()
    assert made.target_entropy() == 0.0
    choices: tuple[Choice, ...] = ("tie", "first", "second", "tie")
    for i, choice in enumerate(choices):
        pair = states(i), states(i + 0.5)
        made.add(label(*pair, choice, step=i), pair)
    assert made.target_entropy() == pytest.approx(math.log(2) / 2)
    pair = states(9), states(9.5)
    made.add(replace(label(*pair, "first", step=9), reply=Comparison.of(0.25)), pair)
    unsure = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert made.target_entropy() == pytest.approx((2 * math.log(2) + unsure) / 5)


@given(T=st.integers(1, 6), C=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_unstacking_and_restacking_frames_is_the_identity(T: int, C: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (T + C - 1, 3, 2), dtype=np.uint8)
    stacked = np.stack([np.moveaxis(frames[t : t + C], 0, -1) for t in range(T)])
    assert np.array_equal(unstack(stacked), frames)
    views = np.lib.stride_tricks.sliding_window_view(frames, C, axis=0)
    assert np.array_equal(unstack(views), frames)
    restacked = restack(torch.from_numpy(unstack(stacked))[None], T)
    assert np.array_equal(restacked[0].numpy(), stacked)


@pytest.mark.parametrize(("stride", "offset"), [(1, 0), (3, 0), (3, 2), (9, 1)])
def test_restacking_some_steps_reads_those(stride: int, offset: int) -> None:
    T, C = 7, 4
    frames = torch.arange(2 * (T + C - 1) * 6).to(torch.uint8).view(2, T + C - 1, 3, 2)
    steps = range(offset, T, stride)
    stacks = [torch.stack([f[t : t + C].movedim(0, -1) for t in steps]) for f in frames]
    assert torch.equal(restack(frames, T, stride=stride, offset=offset), torch.stack(stacks))


def test_what_is_no_sliding_window_is_refused() -> None:
    with pytest.raises(AssertionError, match="sliding window"):
        unstack(np.arange(12, dtype=np.uint8).reshape(3, 1, 1, 4))


def test_pixels_come_back_as_they_were_added() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 5), dtype=np.uint8)
    pair = tuple(
        segment(np.stack([np.moveaxis(f[t : t + 4], 0, -1) for t in range(3)])) for f in frames
    )
    made = bank()
    made.add(label(pair[0], pair[1], "tie"), (pair[0], pair[1]))
    got = made.batch(torch.tensor([0])).steps.observation.view(2, 3, 5, 5, 4)
    assert np.array_equal(got.numpy(), np.stack([s.observations for s in pair]))
    assert sum(x.nbytes for x, _ in made._segments.values()) == 2 * 6 * 25  # not 2 * 12 * 25


@pytest.mark.parametrize("pixels", [False, True])
def test_every_second_step_is_taken_from_each_segment_by_itself(pixels: bool) -> None:
    # two segments of five steps: 0 1 2 3 4 and 5 6 7 8 9; from offset 1: 1 3 and 6 8
    values = np.arange(10, dtype=np.uint8 if pixels else np.float32).reshape(2, 5)
    pair = tuple(segment(v[:, None, None, None] if pixels else v[:, None]) for v in values)
    made = bank()
    made.add(label(pair[0], pair[1], "second"), (pair[0], pair[1]))
    picked = made.batch(torch.tensor([0]), stride=2, offset=1).steps
    assert picked.shape == (2, 2)
    assert picked.observation.flatten().tolist() == [1, 3, 6, 8]
    assert len(picked.action) == 4
