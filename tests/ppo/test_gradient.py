"""The compiled gradient is the gradient."""

import copy
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from prefrl.agents import PolicyConfig, make_policy
from prefrl.agents.policy import ControlInputs, ControlPolicy
from prefrl.loop.hardware import has_compiler
from prefrl.ppo import PPO, Batch, CompiledGradient, Gradient, PPOConfig, Rollout

CPU = torch.device("cpu")
CONFIG = PPOConfig(lr=0.01, epochs=2, minibatches=2, entropy_coef=0.01, max_grad_norm=0.5)


@pytest.fixture
def policy() -> ControlPolicy:
    spaces = (gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Box(-1, 1, (2,)))
    generator = torch.Generator().manual_seed(0)
    return make_policy(*spaces, PolicyConfig(widths=(8,)), device=CPU, generator=generator)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same function, run by PyTorch: what is tested is the arithmetic."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    return


def rollout_of(policy: ControlPolicy, B: int = 3, T: int = 4) -> Rollout:
    """Random behaviour; the last step of the first row is padding."""
    generator = torch.Generator().manual_seed(1)
    draw = [torch.randn(B, T, generator=generator) for _ in range(4)]
    inputs = ControlInputs(
        observation=torch.randn(B, T, 3, generator=generator),
        action=torch.randn(B, T, 2, generator=generator),
    )
    with torch.no_grad():
        now = policy.evaluate(inputs)
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[0, -1] = False
    return Rollout(
        inputs=inputs,
        mask=mask,
        logp=now.logp + 0.3 * draw[0],
        value=draw[1],
        reward=draw[2],
        next_value=draw[3],
        discount=torch.full((B, T), 0.9),
        trace=torch.ones(B, T),
    )


def trained(policy: ControlPolicy, gradient: Gradient | CompiledGradient) -> list[Tensor]:
    """Its weights after two epochs of two minibatches."""
    trainer = PPO(gradient, CONFIG, generator=torch.Generator().manual_seed(2), rows="steps")
    trainer.update(rollout_of(policy), progress=0.0)
    return [p.detach().clone() for p in policy.parameters()]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("max_grad_norm", [0.01, 1e9])
def test_gradient_and_figures_are_those_of_backward(
    policy: ControlPolicy, max_grad_norm: float
) -> None:
    config = PPOConfig(max_grad_norm=max_grad_norm, entropy_coef=0.01)
    twin = copy.deepcopy(policy)
    batch = batch_of(policy)
    index = torch.tensor([0, 3, 5, 11])
    plain, vector = Gradient(twin, config), CompiledGradient(policy, config)
    coef = torch.tensor(0.01)
    torch.testing.assert_close(
        vector(batch, index, entropy_coef=coef), plain(batch, index, entropy_coef=coef)
    )
    wanted = torch.cat([p.grad.reshape(-1) for p in plain.parameters if p.grad is not None])
    assert wanted.abs().sum() > 0
    torch.testing.assert_close(vector.vector.grad, wanted)


@pytest.mark.usefixtures("uncompiled")
def test_an_update_moves_the_policy_itself(policy: ControlPolicy) -> None:
    twin, before = copy.deepcopy(policy), [p.detach().clone() for p in policy.parameters()]
    after = trained(policy, CompiledGradient(policy, CONFIG))
    torch.testing.assert_close(after, trained(twin, Gradient(twin, CONFIG)))
    assert not torch.equal(before[0], after[0])


@pytest.mark.usefixtures("uncompiled")
def test_loaded_weights_reach_the_vector(policy: ControlPolicy) -> None:
    gradient = CompiledGradient(policy, CONFIG)
    policy.load_state_dict({k: torch.full_like(v, 0.5) for k, v in policy.state_dict().items()})
    assert gradient.vector.detach().numpy() == pytest.approx(np.full(len(gradient.vector), 0.5))


@pytest.mark.skipif(not has_compiler(CPU), reason="needs a C++ compiler")
def test_compiled_weights_are_those_of_plain_training(policy: ControlPolicy) -> None:
    twin = copy.deepcopy(policy)
    compiled = trained(policy, CompiledGradient(policy, CONFIG))
    torch.testing.assert_close(
        compiled, trained(twin, Gradient(twin, CONFIG)), rtol=1e-3, atol=1e-4
    )


def test_without_a_compiler_it_warns_and_goes_on(
    policy: ControlPolicy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function: object) -> object:
        def call(*_: object) -> None:
            cause = RuntimeError("no compiler")
            raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, cause, None)

        return call

    monkeypatch.setattr(torch, "compile", broken)
    twin = copy.deepcopy(policy)
    weights = trained(policy, CompiledGradient(policy, CONFIG))
    torch.testing.assert_close(weights, trained(twin, Gradient(twin, CONFIG)))
    assert "several times slower" in caplog.text


def batch_of(policy: ControlPolicy) -> Batch:
    rollout = rollout_of(policy)
    return Batch(
        inputs=rollout.inputs,
        mask=rollout.mask,
        logp=rollout.logp,
        value=rollout.value,
        advantage=rollout.reward,
        returns=rollout.next_value,
    ).by_step()
