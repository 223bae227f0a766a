# SPDX-License-Identifier: Apache-2.0
"""Where an episode may begin: at home, anywhere, around what is to be grasped, or midway through the task.

Demonstrations with widely spread starts teach a policy to recover.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import KinematicsError
from qwen_vla_sim.aloha.grasping import PITCH, SQUEEZE, STANDOFF
from qwen_vla_sim.aloha.hands import SIDES, finger_at, hand_pose, opening_at
from qwen_vla_sim.aloha.scene import Scene
from qwen_vla_sim.aloha.world import AlohaWorld

KINDS = ("home", "anywhere", "around", "amid")
SHARES = (0.2, 0.25, 0.25, 0.3)
REGIONS = {"left": ((-0.15, 0.06, 0.07), (0.12, 0.32, 0.26)), "right": ((-0.15, -0.32, 0.07), (0.12, -0.02, 0.26))}
SETTLE = 25  # physics steps until the fingers have grasped what was placed between them
ATTEMPTS = 200
GRASP_HEIGHT = 0.032  # [m] of a hand around something on the table
FARTHEST = 2.0  # [rad] of a joint from home: beyond, the straight path to anywhere sweeps across the table


class Handling(Protocol):
    """What a task defines about the hands midway through it; see `BimanualTask`."""

    def held(self, scene: Scene, rng: np.random.Generator) -> dict[str, int]: ...
    def carried_to(self, side: str) -> np.ndarray: ...
    def approach(self, scene: Scene, side: str, handed: bool) -> np.ndarray: ...
    def grip(self, side: str) -> np.ndarray: ...


def start_anywhere(world: AlohaWorld, task: Handling, rng: np.random.Generator) -> np.ndarray:
    """Place the arms of a world that was just reset, free of contact except with what they hold.

    Returns:
        The command (14,) that holds them there.
    """
    for _ in range(ATTEMPTS):
        kind = str(rng.choice(KINDS, p=SHARES))
        held = task.held(world.scene, rng) if kind == "amid" else {}
        try:
            command = _place(world, task, kind, held, rng)
        except KinematicsError:
            continue
        if command is not None and _is_free(world, held):
            break
        world.lay_out(world.scene.seed)
    else:
        world.reset(world.scene.seed)
        return world.joint_positions().copy()
    if held:
        world.set_joint_target(command)
        world.step(SETTLE)
    return command


def _place(
    world: AlohaWorld, task: Handling, kind: str, held: dict[str, int], rng: np.random.Generator
) -> np.ndarray | None:  # fmt: skip
    """Place the arms for a kind of start; returns the command that holds them there, None if an arm is too far off."""
    home = np.array([world.embodiment.home[name] for name in world.joint_names])
    joints, fingers, closed = home.copy(), {}, {}
    for k, side in enumerate(SIDES):
        arm = slice(6 * k, 6 * k + 6)
        if kind == "home":
            joints[arm] += rng.normal(0, 0.06, 6)
        else:
            joints[arm] = world.hands.joints(side, _pose(world, task, side, kind, held, rng))
            if np.abs(joints[arm] - home[arm]).max() > FARTHEST:
                return None
        opening = 1.0 if kind == "around" or rng.random() < 0.6 else float(rng.uniform(0, 1))
        fingers[side] = closed[side] = world.embodiment.gripper_to_joint(opening, k)
        if side in held:
            width = world.scene.items[held[side]].width
            fingers[side] = finger_at(width)
            closed[side] = world.embodiment.gripper_to_joint(opening_at(width - SQUEEZE), k)
    world.place_arm(np.append(joints[:12], [fingers[side] for side in SIDES]))
    for side, thing in held.items():
        world.hold_thing(thing, side, np.linalg.inv(hand_pose(side, task.grip(side), PITCH)))
    return np.append(joints[:12], [closed[side] for side in SIDES])


def _pose(
    world: AlohaWorld, task: Handling, side: str, kind: str, held: dict[str, int], rng: np.random.Generator
) -> np.ndarray:
    """Start pose of a hand that does not start at home."""
    if side in held:
        return _perturbed(hand_pose(side, _carried(task, side, rng), PITCH), rng, 0.06)
    if kind == "around" or (kind == "amid" and rng.random() < 0.5):
        return _before_grip(task.approach(world.scene, side, bool(held)), rng)
    low, high = REGIONS[side]
    return _perturbed(hand_pose(side, rng.uniform(low, high), PITCH + rng.uniform(-0.6, 0.3)), rng, 0.3)


def _carried(task: Handling, side: str, rng: np.random.Generator) -> np.ndarray:
    """Position of a hand that holds something: on the way to its goal, or close to it."""
    if rng.random() < 0.5:
        low, high = REGIONS[side]
        return rng.uniform(np.add(low, (0, 0, 0.03)), high)
    return task.carried_to(side) + task.grip(side) + rng.normal(0, 0.015, 3)


def _before_grip(grip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pose on the approach to a grip, with a small offset."""
    pose = grip.copy()
    pose[:3, 3] += -rng.uniform(0, 1.2 * STANDOFF) * pose[:3, 0] + np.append(rng.normal(0, 0.012, 2), 0.0)
    return _perturbed(pose, rng, 0.08)


def _perturbed(pose: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """A pose with a random small rotation about any axis [rad]."""
    perturbed = pose.copy()
    perturbed[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(rng.normal(0, spread / 2, 3)).as_matrix()
    return perturbed


def _is_free(world: AlohaWorld, held: dict[str, int]) -> bool:
    """Whether no arm touches anything except what it holds."""
    names = [world.model.body(body).name for body in range(world.model.nbody)]
    carried = {world.things.names[thing] for thing in held.values()}
    for pair in world.model.geom_bodyid[world.data.contact.geom] if world.data.ncon else ():
        first, second = (names[body] for body in pair)
        if {first, second} & carried:
            if "base_link" in (first, second):
                return False
            continue
        if first.startswith("follower_") or second.startswith("follower_"):
            return False
    return True
