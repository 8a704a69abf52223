"""The robot tasks: those of Christiano et al. 2017 (arXiv:1706.03741), appendix A, on MuJoCo v5.

As there, torque costs are removed, because a rater cannot see torque, and terminations are
replaced by a penalty that the agent has to learn: an episode always lasts the whole horizon. The
paper does not say which penalty; for what walks these are those of the code published with it: in
the place of Gymnasium's bonus for being healthy, the height of the torso (plus a constant). The
inverted pendulums lose 1, which is ours, at every step at which Gymnasium would have terminated
(there: minus the squared angle, and 10 times the height of the tip). Contact costs and contact
forces go the way of the torques.

The pendulums cannot stand up again, so a long episode would nearly all show a fallen pole:
they get 100 steps. (The code published with the paper took 25 and 50.) Hopper and Walker2d
run at 125 steps a second, too fast for an eye: their clips play slower.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from .task import Robot, Task

PAPER = "Christiano et al. 2017, appendix A, with Gymnasium's v5 reward"
PUBLISHED = "Christiano et al. 2017, appendix A; height as in the code published with it"


def _robot(
    name: str,
    *,
    fps: float,
    prefer: str,
    true_reward: str,
    horizon: int = 1000,
    segment_steps: int = 50,
    unhealthy_penalty: float = 0.0,
    height: tuple[int, float] | None = None,
    source: str = PAPER,
    **options: Any,
) -> Task:
    return Task(
        id=name,
        domain="mujoco",
        segment_steps=segment_steps,
        fps=fps,
        horizon=horizon,
        instructions=prefer,
        details=Robot(
            options=MappingProxyType(options),
            unhealthy_penalty=unhealthy_penalty,
            height=height,
            true_reward=true_reward,
            source=source,
        ),
    )


ROBOTS = (
    _robot(
        "HalfCheetah-v5",
        fps=20,
        prefer="Prefer running faster to the right.",
        true_reward="forward velocity",
        ctrl_cost_weight=0.0,
    ),
    _robot(
        "Hopper-v5",
        fps=50,
        prefer="Prefer the body moving further to the right, then standing higher; falling is bad.",
        true_reward="forward velocity + height of the torso",
        height=(1, 0.0),
        source=PUBLISHED,
        healthy_reward=0.0,
        ctrl_cost_weight=0.0,
    ),
    _robot(
        "Walker2d-v5",
        fps=50,
        prefer="Prefer walking further to the right, upright; falling is bad.",
        true_reward="forward velocity + height of the torso - 1",
        height=(1, 1.0),
        source=PUBLISHED,
        healthy_reward=0.0,
        ctrl_cost_weight=0.0,
    ),
    _robot(
        "Ant-v5",
        fps=20,
        prefer="Prefer standing upright first, then moving faster to the right.",
        true_reward="forward velocity + height of the torso - 1.2",
        height=(2, 1.2),
        source=PUBLISHED,
        healthy_reward=0.0,
        ctrl_cost_weight=0.0,
        contact_cost_weight=0.0,
        include_cfrc_ext_in_observation=False,
    ),
    _robot(
        "Swimmer-v5",
        fps=25,
        prefer="Prefer swimming faster to the right.",
        true_reward="forward velocity",
        ctrl_cost_weight=0.0,
    ),
    _robot(
        "Reacher-v5",
        fps=25,
        horizon=50,
        segment_steps=25,
        prefer="Prefer the fingertip near the target all the time; steadily middling beats "
        "near then far.",
        true_reward="minus the distance of the fingertip from the target",
        reward_control_weight=0.0,
    ),
    _robot(
        "InvertedPendulum-v5",
        fps=25,
        horizon=100,
        segment_steps=25,
        prefer="Prefer the pole upright for longer.",
        true_reward="1 while the pole stands within 0.2 rad, else -1",
        unhealthy_penalty=1.0,
        default_camera_config={"trackbodyid": 0, "distance": 3.2},  # 2.04 hides the rail's ends
    ),
    _robot(
        "InvertedDoublePendulum-v5",
        fps=20,
        horizon=100,
        segment_steps=25,
        prefer="Prefer the tip of the upper pole high, calm and in the middle.",
        true_reward="10 while the tip is above 1 (else -1), less squared distance and speed",
        unhealthy_penalty=1.0,
    ),
    _robot(
        "Pendulum-v1",
        fps=20,
        horizon=200,
        prefer="Prefer the pole nearer to upright, then calmer.",
        true_reward="-(angle from upright)^2 - 0.1 (angular speed)^2",
        source="Gymnasium's Pendulum-v1 without its torque cost",
    ),
)
