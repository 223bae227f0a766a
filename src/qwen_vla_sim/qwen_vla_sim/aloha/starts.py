"""Where an episode may begin: at home, anywhere, around what is to be grasped, or in the middle of the task.

Demonstrations that begin all over are what teaches a policy to find back.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions import KinematicsError
from qwen_vla_sim.aloha.expert import (
    BEFORE,
    CUBE_GRIPS,
    MEETING,
    PEG_GRIP,
    PITCH,
    SOCKET_GRIP,
    SOCKET_PLACE,
    SQUEEZE,
    STANDOFF,
)
from qwen_vla_sim.aloha.hands import Hands, finger_at, hand_pose, opening_at
from qwen_vla_sim.aloha.scene import GRIP
from qwen_vla_sim.aloha.world import SIDES, AlohaWorld

KINDS = ("home", "anywhere", "around", "amid")
SHARES = (0.2, 0.25, 0.25, 0.3)
REGIONS = {"left": ((-0.15, 0.06, 0.07), (0.12, 0.32, 0.26)), "right": ((-0.15, -0.32, 0.07), (0.12, -0.02, 0.26))}
SETTLE = 25  # physics steps in which the fingers get hold of what was put between them
ATTEMPTS = 200
FARTHEST = 2.0  # [rad] of a joint from home: beyond, the straight way to anywhere sweeps across the table


def start_anywhere(world: AlohaWorld, hands: Hands, rng: np.random.Generator) -> np.ndarray:
    """Put the arms of a world that was just reset somewhere, free of contact but with what they hold.

    Returns the command (14,) that holds them there.
    """
    for _ in range(ATTEMPTS):
        kind = str(rng.choice(KINDS, p=SHARES))
        held = _things_in_hand(world, rng) if kind == "amid" else {}
        try:
            command = _place(world, hands, kind, held, rng)
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


def _things_in_hand(world: AlohaWorld, rng: np.random.Generator) -> dict[str, int]:
    """Which thing each hand holds in the middle of a task."""
    scene = world.scene
    if scene.task == "cube_transfer":
        return {"right": scene.target}
    if scene.task == "insertion":
        both = {"right": scene.target, "left": scene.goal}
        alone = str(rng.choice(SIDES))
        return both if rng.random() < 0.6 else {alone: both[alone]}
    return {}  # what two hands hold is taken up from around it


def _place(
    world: AlohaWorld, hands: Hands, kind: str, held: dict[str, int], rng: np.random.Generator
) -> np.ndarray | None:  # fmt: skip
    """Put the arms somewhere of a kind; the command that holds them there, None when an arm came to lie too far off."""
    home = np.array([world.embodiment.home[name] for name in world.joint_names])
    joints, fingers, closed = home.copy(), {}, {}
    for k, side in enumerate(SIDES):
        arm = slice(6 * k, 6 * k + 6)
        if kind == "home":
            joints[arm] += rng.normal(0, 0.06, 6)
        else:
            joints[arm] = hands.joints(side, _pose(world, side, kind, held, rng))
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
        world.hold_thing(thing, side, np.linalg.inv(hand_pose(side, _grip(world, side), PITCH)))
    return np.append(joints[:12], [closed[side] for side in SIDES])


def _pose(world: AlohaWorld, side: str, kind: str, held: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    """Where a hand begins that does not begin at home."""
    if side in held:
        return _loosely(hand_pose(side, _carried(world, side, rng), PITCH), rng, 0.06)
    if kind == "around" or (kind == "amid" and rng.random() < 0.5):
        return _before_grip(world, side, rng, bool(held))
    low, high = REGIONS[side]
    return _loosely(hand_pose(side, rng.uniform(low, high), PITCH + rng.uniform(-0.6, 0.3)), rng, 0.3)


def _carried(world: AlohaWorld, side: str, rng: np.random.Generator) -> np.ndarray:
    """Where a hand is that holds something: on the way, or nearly there."""
    if rng.random() < 0.5:
        low, high = REGIONS[side]
        return rng.uniform(np.add(low, (0, 0, 0.03)), high)
    there = MEETING
    if world.scene.task == "insertion":
        there = SOCKET_PLACE + [0, 0 if side == "left" else BEFORE, 0]
    return there + _grip(world, side) + rng.normal(0, 0.015, 3)


def _before_grip(world: AlohaWorld, side: str, rng: np.random.Generator, handed: bool) -> np.ndarray:
    """A pose on the way into the grip of what a hand is to take, a little beside it."""
    scene = world.scene
    if scene.task == "cube_transfer" and side == "left":
        place = MEETING + _grip(world, side) + [0, 0.0 if handed else STANDOFF, 0]
        pose = hand_pose(side, place, 0.0, -np.pi / 2)
    else:
        item = scene.items[scene.goal if scene.task == "insertion" and side == "left" else scene.target]
        pose = hand_pose(side, np.array([item.x, item.y, 0.032]) + _grip(world, side), PITCH)
    pose[:3, 3] += -rng.uniform(0, 1.2 * STANDOFF) * pose[:3, 0] + np.append(rng.normal(0, 0.012, 2), 0.0)
    return _loosely(pose, rng, 0.08)


def _grip(world: AlohaWorld, side: str) -> np.ndarray:
    """From the middle of what a hand takes to where it takes it [m]."""
    task, left = world.scene.task, side == "left"
    along = {
        "cube_transfer": CUBE_GRIPS[side],
        "insertion": SOCKET_GRIP if left else PEG_GRIP,
        "tray_lift": GRIP if left else -GRIP,
    }
    return np.array([0.0, along[task], 0.0])


def _loosely(pose: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
    """A pose turned a little, about any axis [rad]."""
    turned = pose.copy()
    turned[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(rng.normal(0, spread / 2, 3)).as_matrix()
    return turned


def _is_free(world: AlohaWorld, held: dict[str, int]) -> bool:
    """Whether no arm touches anything but what it holds."""
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
