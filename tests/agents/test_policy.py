"""Actor-critics against torch.distributions."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Literal

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal

from prefrl.agents import (
    CategoricalPolicy,
    ControlInputs,
    GaussianPolicy,
    PolicyConfig,
    restore_policy,
)
from prefrl.agents.policy import ControlPolicy, compute_dtype, make_policy, refuse_unread
from prefrl.errors import UserError

STATE = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
PIXELS = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
DISCRETE = gymnasium.spaces.Discrete(5)
CONTINUOUS = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def policy(
    observation: gymnasium.spaces.Box,
    action: gymnasium.Space,  # type: ignore[type-arg]
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> ControlPolicy:
    """Weights spread out, so that no two actions are alike."""
    config = PolicyConfig(precision=precision)
    if observation is PIXELS:
        config = replace(config, trunk="small")
    else:
        config = replace(config, widths=(16,))
    if action is CONTINUOUS:
        config = replace(config, log_std=-0.3)
    made = make_policy(
        observation, action, config, device=torch.device("cpu"), generator=generator()
    )
    draws = generator(9)
    for p in made.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=draws)
    return made


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, generator=generator(1))


def frames(*shape: int) -> Tensor:
    return torch.randint(256, (*shape, 84, 84, 4), generator=generator(1), dtype=torch.uint8)


def test_categorical_logp_and_entropy_are_those_of_torch() -> None:
    pi, x = policy(STATE, DISCRETE), states(4, 6)
    action = torch.randint(5, (4, 6), generator=generator(2))
    got = pi.evaluate(ControlInputs(observation=pi.prepare(x), action=action))
    assert isinstance(pi, CategoricalPolicy)
    wanted = Categorical(logits=pi.actor(pi.prepare(x)))
    torch.testing.assert_close(got.logp, wanted.log_prob(action))
    torch.testing.assert_close(got.entropy, wanted.entropy())
    assert got.value.shape == (4, 6)


def test_gaussian_logp_and_entropy_are_those_of_torch() -> None:
    pi, x = policy(STATE, CONTINUOUS), states(4, 6)
    action = torch.randn(4, 6, 2, generator=generator(2))
    got = pi.evaluate(ControlInputs(observation=pi.prepare(x), action=action))
    assert isinstance(pi, GaussianPolicy)
    wanted = Independent(Normal(pi.actor(pi.prepare(x)), pi.log_std.exp()), 1)
    torch.testing.assert_close(got.logp, wanted.log_prob(action))
    torch.testing.assert_close(got.entropy, wanted.entropy())


@pytest.mark.parametrize("action", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_what_was_acted_is_evaluated_alike(action: gymnasium.Space) -> None:  # type: ignore[type-arg]
    # else the ratio is not 1 on the first minibatch
    pi, x = policy(STATE, action), states(8)
    pi.observe(5 + 3 * states(4, 8))
    done = pi.act(pi.prepare(x), generator=generator(3))
    inputs = ControlInputs(observation=pi.prepare(x[:, None]), action=done.action[:, None])
    got = pi.evaluate(inputs)
    torch.testing.assert_close(got.logp[:, 0], done.logp)
    torch.testing.assert_close(got.value[:, 0], done.value)
    torch.testing.assert_close(pi.value(pi.prepare(x)), done.value)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_what_was_acted_on_pixels_is_evaluated_alike(
    precision: Literal["fp32", "bf16"], tolerance: float
) -> None:
    pi, x = policy(PIXELS, DISCRETE, precision=precision), frames(6)
    pi.observe(frames(2, 8) // 8)
    with pi.acting(), torch.no_grad():
        done = pi.act(pi.prepare(x), generator=generator(3))
    got = pi.evaluate(
        ControlInputs(observation=pi.prepare(x[:, None]), action=done.action[:, None])
    )
    torch.testing.assert_close(got.logp[:, 0], done.logp, atol=tolerance, rtol=tolerance)


def test_bf16_policy_is_close_to_fp32_and_its_weights_are_fp32() -> None:
    exact, rough = policy(PIXELS, DISCRETE), policy(PIXELS, DISCRETE, precision="bf16")
    assert all(p.dtype == torch.float32 for p in rough.parameters())
    for pi in (exact, rough):
        pi.observe(frames(2, 8))
    action = torch.randint(5, (4, 2), generator=generator(2))
    a, b = (
        pi.evaluate(ControlInputs(observation=pi.prepare(frames(4, 2)), action=action))
        for pi in (exact, rough)
    )
    assert not torch.equal(a.logp, b.logp)  # it really computes in bf16
    torch.testing.assert_close(b.logp, a.logp, atol=0.03, rtol=0.03)
    torch.testing.assert_close(b.value, a.value, atol=0.05, rtol=0.05)


def test_categorical_samples_have_the_policy_s_frequencies() -> None:
    pi = policy(STATE, DISCRETE)
    x = states(1).expand(20_000, -1)
    done = pi.act(pi.prepare(x), generator=generator(4))
    share = torch.bincount(done.action, minlength=5) / 20_000
    assert isinstance(pi, CategoricalPolicy)
    wanted = pi.actor(pi.prepare(x[:1])).softmax(-1)[0]
    # 4 standard errors of a share near 1/5: 4 * sqrt(.16 / 20,000) = .011
    assert (share - wanted).abs().max() < 0.011


def test_gaussian_samples_have_the_policy_s_mean_and_deviation() -> None:
    pi = policy(STATE, CONTINUOUS)
    x = pi.prepare(states(1).expand(20_000, -1))
    done = pi.act(x, generator=generator(4)).action
    assert isinstance(pi, GaussianPolicy)
    # 4 standard errors: 4 * .74 / sqrt(20,000) = .021
    assert (done.mean(0) - pi.actor(states(1))[0]).abs().max() < 0.021
    torch.testing.assert_close(done.std(0), pi.log_std.exp().detach(), rtol=0.03, atol=0)


@pytest.mark.parametrize("action", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_greedy_takes_the_mode_and_draws_nothing(action: gymnasium.Space) -> None:  # type: ignore[type-arg]
    pi, x, draws = policy(STATE, action), states(6), generator(5)
    done = pi.act(pi.prepare(x), generator=draws, greedy=True).action
    mode = pi.actor(pi.prepare(x))  # type: ignore[operator]
    assert torch.equal(done, mode.argmax(-1) if action is DISCRETE else mode)
    if action is DISCRETE:
        assert torch.equal(draws.get_state(), generator(5).get_state())


def test_observing_moves_the_statistics_of_states_unless_they_stay_as_they_are() -> None:
    pi = policy(STATE, DISCRETE)
    pi.observe(5 + states(2, 8))
    assert isinstance(pi, CategoricalPolicy)
    assert pi.normaliser.count == 16
    config = PolicyConfig(widths=(4,), normalise_observations=False)
    plain = make_policy(
        STATE, CONTINUOUS, config, device=torch.device("cpu"), generator=generator()
    )
    plain.observe(5 + states(2, 8))
    torch.testing.assert_close(plain.prepare(states(2, 8)), states(2, 8))


def plain_pixels() -> CategoricalPolicy:
    """Pixels from 0 to 1."""
    config = PolicyConfig(trunk="small", precision="fp32", normalise_observations=False)
    made = make_policy(PIXELS, DISCRETE, config, device=torch.device("cpu"), generator=generator())
    assert isinstance(made, CategoricalPolicy)
    return made


def test_pixels_are_standardised_by_what_their_place_has_shown() -> None:
    pi = policy(PIXELS, DISCRETE)
    assert isinstance(pi, CategoricalPolicy)
    x = torch.full((2, 16, 84, 84, 4), 87, dtype=torch.uint8)
    x[0, 8, 3, 5, -1] = 236  # a ball in the newest frame of 1 of the 4 that are looked at
    x[..., 40, 40, 0] = 1  # an older frame, which was the newest before
    pi.observe(x)
    assert pi.normaliser.count == 4
    assert pi.normaliser.mean[3, 5].item() == pytest.approx(87 + 149 / 4)
    assert pi.normaliser.mean[40, 40].item() == 87
    standing = torch.full((1, 84, 84, 4), 87, dtype=torch.uint8)
    ball, never = standing.clone(), standing.clone()
    ball[0, 3, 5, 2], never[0, 60, 60, 2] = 236, 88
    difference = pi.prepare(ball) - pi.prepare(standing)
    assert difference.count_nonzero() == 1  # any of the stacked frames is standardised alike
    # deviation 149 sqrt(1/4 3/4) = 64.5, and the least variance of 1 grey level
    assert difference.max().item() == pytest.approx(149 / 64.53, rel=1e-3)
    assert pi.prepare(never).max().item() == pytest.approx(1.0)  # a level above a constant


def test_pixels_go_from_0_to_1_where_nothing_is_standardised() -> None:
    pi, x = plain_pixels(), frames(3)
    pi.observe(frames(2, 8))
    assert torch.equal(pi.prepare(x), pi.trunk.prepare(x / 255))


def test_an_older_policy_of_pixels_plays_as_it_did_and_goes_on_so() -> None:
    older = plain_pixels()
    state = {k: v for k, v in older.state_dict().items() if not k.startswith("normaliser.")}
    pi = policy(PIXELS, DISCRETE)
    restore_policy(pi, state)
    x = frames(4)
    for _ in range(2):
        torch.testing.assert_close(
            pi.value(pi.prepare(x)), older.value(older.prepare(x)), rtol=1e-5, atol=1e-6
        )
        pi.observe(frames(2, 8))


@pytest.mark.parametrize(
    ("observation", "missing"),
    [(PIXELS, "normaliser.mean"), (STATE, "normaliser.mean"), (STATE, "normaliser.")],
)
def test_a_policy_that_lost_its_statistics_is_refused(
    observation: gymnasium.spaces.Box, missing: str
) -> None:
    pi = policy(observation, DISCRETE)
    state = {k: v for k, v in pi.state_dict().items() if not k.startswith(missing)}
    with pytest.raises(RuntimeError, match=r"normaliser\.mean"):
        restore_policy(pi, state)


def test_statistics_of_pixels_come_back() -> None:
    before, after = policy(PIXELS, DISCRETE), policy(PIXELS, DISCRETE)
    before.observe(frames(2, 8))
    restore_policy(after, before.state_dict())
    assert torch.equal(after.prepare(frames(3)), before.prepare(frames(3)))


def test_value_and_policy_share_no_weight_on_states() -> None:
    pi, x = policy(STATE, DISCRETE), states(4)
    pi.value(pi.prepare(x)).sum().backward()
    assert all(p.grad is None for p in pi.actor.parameters())  # type: ignore[union-attr]


def test_rows_and_steps_keep_observation_and_action_together() -> None:
    action = torch.arange(6).view(2, 3)
    inputs = ControlInputs(observation=action[..., None].expand(2, 3, 4), action=action)
    for got in (inputs.by_step(), inputs.rows(torch.tensor([1, 0]))):
        assert torch.equal(got.observation[..., 0], got.action)
    assert inputs.by_step().observation.shape == (6, 1, 4)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (gymnasium.spaces.Discrete(3), DISCRETE, "observation space: got Discrete"),
        (gymnasium.spaces.Box(0, 1, (4, 84, 84)), DISCRETE, "pixels of float32, wanted uint8"),
        (STATE, gymnasium.spaces.MultiBinary(2), "action space: got MultiBinary"),
        (STATE, gymnasium.spaces.Box(-1, 1, (2, 2)), "action space: got Box"),
        (gymnasium.spaces.Box(0, 1, (4, 84)), DISCRETE, "wanted a Box, .C, H, W. or .d."),
        (PIXELS, gymnasium.spaces.Box(-1, 1, (2,)), "wanted Discrete, with pixels"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(
    observation: gymnasium.Space,  # type: ignore[type-arg]
    action: gymnasium.Space,  # type: ignore[type-arg]
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        make_policy(
            observation, action, PolicyConfig(), device=torch.device("cpu"), generator=generator()
        )


@pytest.mark.parametrize(
    ("config", "pixels", "discrete", "message"),
    [
        (PolicyConfig(trunk="small"), False, True, "policy.trunk: got small, with states"),
        (PolicyConfig(log_std=-1.0), False, True, "policy.log_std: got -1.0, with discrete"),
        (PolicyConfig(widths=(8,)), True, True, r"policy.widths: got \(8,\), with pixels"),
    ],
)
def test_settings_that_do_nothing_are_refused(
    config: PolicyConfig, pixels: bool, discrete: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        refuse_unread(config, pixels=pixels, discrete=discrete)
    refuse_unread(config, pixels=not pixels, discrete=config.trunk == "small")


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert compute_dtype("fp32", cpu) == torch.float32
    assert compute_dtype("bf16", cpu) == torch.bfloat16
    assert compute_dtype("auto", cpu) in (torch.float32, torch.bfloat16)


def test_a_gpu_that_only_emulates_bf16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert compute_dtype("auto", torch.device("cuda:1")) == torch.float32
    assert asked == [False]
