# SPDX-License-Identifier: Apache-2.0
"""Where demonstrations begin: spread over the states from which the expert can recover."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodiment_descriptions import KinematicsError
from qwen_vla_sim.widowx.grasping import HOVER_HEIGHT, Step
from qwen_vla_sim.widowx.layout import Pose, covered
from qwen_vla_sim.widowx.things import Design
from qwen_vla_sim.widowx.tool import ToolDown
from qwen_vla_sim.widowx.world import WidowXWorld

# Shares of the kinds of start with an empty gripper. With a goal, there are two more: "holding" the target, and with
# the target "mislaid" beside the goal.
APPROACHES = {"home": 0.25, "anywhere": 0.35, "above a thing": 0.15, "low near the target": 0.25}
OBSTACLES = ("cube", "basket")  # goals on whose edge nothing can lie
BOX = ((0.19, -0.19, 0.06), (0.41, 0.19, 0.24))  # of the tip, "anywhere" [m]
HOLDING_HEIGHT = (0.075, 0.20)  # of the tip [m]: clear of everything
MISLAID = (0.008, 0.045)  # [m] outside the goal: where a thing falls that was released too early
MISLAID_ROOM = 0.012  # [m] to the other things
MISLAID_TRIES = 30  # in a crowded scene there may be no room


@dataclass(frozen=True)
class Start:
    """The start of an episode.

    Attributes:
        joints: (7,) [rad; last: left_finger, m].
        holding: the target is in the gripper.
        target: x, y [m] and yaw [rad] of the target if not as in the scene.
    """

    joints: np.ndarray
    holding: bool = False
    target: Pose | None = None

    @property
    def options(self) -> dict:
        """As `WidowXEnv.reset` takes it."""
        return vars(self)


def draw_start(world: WidowXWorld, shares: Mapping[str, float], rng: np.random.Generator) -> Start:
    """Draw a start in the scene that is laid out, never inside a thing; `shares` of the kinds add up to 1."""
    tool, things, target = world.tool, world.grip_points(), world.scene.target
    while True:
        kind = str(rng.choice(list(shares), p=list(shares.values())))
        mislaid = _mislaid(world, rng) if kind == "mislaid" else None
        gripper = 1.0 if kind == "low near the target" or rng.random() < 0.8 else float(rng.uniform(0, 1))
        position = _position(kind, tool, things, target, rng)
        below = np.linalg.norm(things[:, :2] - position[:2], axis=1)
        if position[2] < HOVER_HEIGHT - 0.015 and kind != "holding" and not _clear(position, things, below):
            continue
        try:
            joints = tool.joints_for(Step(position, gripper), tool.home)
        except KinematicsError:
            continue
        if kind == "holding":
            joints[-1] = world.scene.named.design.collision[0].size[1]
        return Start(joints, kind == "holding", mislaid)


def _mislaid(world: WidowXWorld, rng: np.random.Generator) -> Pose | None:
    """A pose beside or on the edge of the goal, from where it must be picked up again; None when there is no room."""
    scene = world.scene
    goal, design = scene.goal_thing, scene.named.design
    taken = [
        covered(thing.design, (thing.x, thing.y, thing.yaw))
        for i, thing in enumerate(scene.things)
        if i != scene.target and (i != scene.goal or goal.kind in OBSTACLES)
    ]
    for _ in range(MISLAID_TRIES):
        side, beyond, yaw = rng.integers(4), rng.uniform(*MISLAID), scene.named.yaw + rng.uniform(-0.1, 0.1)
        across, sign = divmod(int(side), 2)
        offset = rng.uniform(-0.5, 0.5, 2) * goal.design.inside
        reach = goal.design.inside[across] if goal.kind not in OBSTACLES else _reach(goal.design, design, across)
        offset[across] = (1 if sign else -1) * (reach + beyond)
        cos, sin = np.cos(goal.yaw), np.sin(goal.yaw)
        x, y = goal.x + cos * offset[0] - sin * offset[1], goal.y + sin * offset[0] + cos * offset[1]
        box = covered(design, (x, y, yaw))
        free = all((np.maximum(box[:, 0] - b[:, 1], b[:, 0] - box[:, 1]) > MISLAID_ROOM).any() for b in taken)
        if free and BOX[0][0] < x < BOX[1][0] and abs(y) < BOX[1][1]:
            return float(x), float(y), float(yaw)
    return None


def _reach(goal: Design, thing: Design, across: int) -> float:
    """From the center of a goal to that of a thing that lies against its outside, along x or across it [m]."""
    return goal.extent[2] + thing.extent[2] if across else goal.extent[1] + max(-thing.extent[0], thing.extent[1])


def _position(kind: str, tool: ToolDown, things: np.ndarray, target: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "home":
        return tool.home_pose[:3, 3] + rng.uniform(-0.03, 0.03, 3)
    if kind == "anywhere":
        return rng.uniform(*BOX)
    if kind == "mislaid":  # the gripper is still about where it released the target
        return np.append(rng.uniform(BOX[0][:2], BOX[1][:2]), rng.uniform(0.08, 0.2))
    if kind == "holding":
        return np.append(rng.uniform(BOX[0][:2], BOX[1][:2]), rng.uniform(*HOLDING_HEIGHT))
    thing = things[rng.integers(len(things))] if kind == "above a thing" else things[target]
    low, high = (0.075, 0.15) if kind == "above a thing" else (0.020, 0.09)
    return np.append(thing[:2] + rng.normal(0, 0.015, 2), rng.uniform(low, high))


def _clear(position: np.ndarray, things: np.ndarray, lateral: np.ndarray) -> bool:
    """Whether a low, open gripper at `position` touches nothing: either far from all things, or straddling one."""
    nearest = int(np.argmin(lateral))
    offset = np.abs(things[nearest, :2] - position[:2])
    straddles = offset[0] < 0.02 and offset[1] < 0.010
    return straddles or bool((lateral > 0.085).all())
