"""Where demonstrations begin: all over the states that the expert can be asked to recover from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodiment_descriptions import KinematicsError
from qwen_vla_sim.widowx.expert import HOVER_HEIGHT, Step
from qwen_vla_sim.widowx.tool import ToolDown
from qwen_vla_sim.widowx.world import WidowXWorld

PICK_KINDS = {"home": 0.25, "anywhere": 0.35, "above a thing": 0.15, "low near the target": 0.25}
PLACE_KINDS = {"home": 0.20, "anywhere": 0.25, "above a thing": 0.10, "low near the target": 0.15, "holding": 0.30}
BOX = ((0.19, -0.19, 0.06), (0.41, 0.19, 0.24))  # of the tip, "anywhere" [m]
HOLDING_HEIGHT = (0.075, 0.20)  # of the tip [m]: clear of everything


@dataclass(frozen=True)
class Start:
    """Joints (7,) [rad; last: left_finger, m] and whether the target is in the gripper."""

    joints: np.ndarray
    holding: bool = False

    @property
    def options(self) -> dict:
        """As `WidowXEnv.reset` takes it."""
        return {"joints": self.joints, "holding": self.holding}


def draw_start(world: WidowXWorld, tool: ToolDown, rng: np.random.Generator) -> Start:
    """A start in the scene that is laid out, never inside a thing."""
    kinds = PICK_KINDS if world.scene.goal is None else PLACE_KINDS
    things, target = world.grip_points(), world.scene.target
    while True:
        kind = str(rng.choice(list(kinds), p=list(kinds.values())))
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
            joints[-1] = world.scene.things[target].design.hull[0].size[1]
        return Start(joints, kind == "holding")


def _position(kind: str, tool: ToolDown, things: np.ndarray, target: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "home":
        return tool.home_pose[:3, 3] + rng.uniform(-0.03, 0.03, 3)
    if kind == "anywhere":
        return rng.uniform(*BOX)
    if kind == "holding":
        return np.append(rng.uniform(BOX[0][:2], BOX[1][:2]), rng.uniform(*HOLDING_HEIGHT))
    thing = things[rng.integers(len(things))] if kind == "above a thing" else things[target]
    low, high = (0.075, 0.15) if kind == "above a thing" else (0.020, 0.09)
    return np.append(thing[:2] + rng.normal(0, 0.015, 2), rng.uniform(low, high))


def _clear(position: np.ndarray, things: np.ndarray, lateral: np.ndarray) -> bool:
    """Whether a low, open gripper at `position` touches nothing: either far from all, or straddling one."""
    nearest = int(np.argmin(lateral))
    offset = np.abs(things[nearest, :2] - position[:2])
    straddles = offset[0] < 0.02 and offset[1] < 0.010
    return straddles or bool((lateral > 0.085).all())
