# SPDX-License-Identifier: Apache-2.0
"""How the base's experts drive: they observe, plan eight waypoints, drive the first of them and observe again.

If what an expert needs (the door, or a thing) is in view, it drives there around obstacles; otherwise it rotates to the
left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from embodiment_descriptions.angles import wrapped
from qwen_vla_control.motion.base_path import moved, seen_from
from qwen_vla_sim.mobile_base.free_space import FreeSpace, length
from qwen_vla_sim.mobile_base.scene import Scene
from qwen_vla_sim.mobile_base.situation import Situation

SPEED, TURN = 0.20, 0.5  # [m/s], [rad/s]: below the robot's 0.26 and 1.82, so that an inexact imitation passes the gate
SEARCH = 0.46  # [rad/s]: half an image is new after 1.2 s, so that nothing is skipped in the 2 s of four waypoints
GAIN = 1.8  # [1/s] angular speed per heading error
ALIGNED = 0.7  # [rad] heading error at and above which it rotates in place
SLOWING = 0.9  # [1/s] speed per remaining distance
CLEARANCE = 0.27  # [m] from the center of the base to all obstacles
STAND_OFF = 0.34  # [m] from the center of the base to the rim of the target, 0.25 m of it in front of the camera
CORNER = 0.10  # [m] from a corner of the path at which it heads for the next one
ARRIVED = 0.03  # [m]
PAST_MAT = 0.4  # [m] beyond the wall, from where the mat is out of view of a camera facing forward: out of the room
DOORSTEP = -0.35  # [m] x from which the door's posts are out of view, too
VIEW = 0.45  # [rad] to either side within which the passage through the door is in view
SUBSTEP = 0.05  # [s]

Phase = Literal["search", "drive", "stop"]


@dataclass(frozen=True)
class Aim:
    """What the base should do now, and its current goal: a thing, or None for the door."""

    phase: Phase
    goal: int | None


@dataclass(frozen=True)
class Plan:
    """A planned chunk.

    Attributes:
        rows: (steps, 3) waypoints (dx, dy [m], dtheta [rad]), each relative to the one before.
        phase, goal: as in Aim.
    """

    rows: np.ndarray
    phase: Phase
    goal: int | None


def aim_at(situation: Situation, goal: int | None) -> Aim:
    """Drive to the goal, a thing or None for the door; search for it if it is not in view."""
    known = situation.in_view(goal) or (goal is None and on_doorstep(situation))
    return Aim("drive" if known else "search", goal)


def on_doorstep(situation: Situation) -> bool:
    """Whether the passage is in view without the door itself: from between its posts and on the mat."""
    if not DOORSTEP < situation.pose[0] < PAST_MAT:
        return False
    beyond = seen_from(situation.pose, np.append(_behind_door(situation.scene), 0.0))
    return abs(np.arctan2(beyond[1], beyond[0])) < VIEW


def plan(scene: Scene, pose: np.ndarray, aim: Aim, steps: int, period: float) -> Plan:
    """Waypoints from `pose` (3,) on, `period` [s] apart; a base that has arrived stops."""
    if aim.phase == "stop":
        return Plan(np.zeros((steps, 3)), "stop", aim.goal)
    if aim.phase == "search":
        return Plan(np.tile([0.0, 0.0, SEARCH * period], (steps, 1)), "search", aim.goal)
    rows = _driven(scene, pose, aim.goal, steps, period)
    return Plan(rows, "drive" if np.abs(rows).max() > 1e-6 else "stop", aim.goal)


def _driven(scene: Scene, pose: np.ndarray, goal: int | None, steps: int, period: float) -> np.ndarray:
    """(steps, 3) waypoints along the shortest path, for a base that rotates and drives at once."""
    if goal is None:
        space, short = FreeSpace(scene, _behind_door(scene), CLEARANCE), 0.0
    else:
        thing = scene.things[goal]
        space = FreeSpace(scene, np.array([thing.x, thing.y]), CLEARANCE, goal)
        short = thing.form.radius + STAND_OFF
    poses, now = [np.array(pose)], np.array(pose)
    for _ in range(steps):
        path = _path(space, now)
        for _ in range(round(period / SUBSTEP)):
            path = _ahead(path, now)
            now = moved(now, _substep(now, path, length(path) - short))
        poses.append(now)
    return np.array([seen_from(a, b) for a, b in zip(poses[:-1], poses[1:], strict=True)])


def _behind_door(scene: Scene) -> np.ndarray:
    """(2,) the point to which a base driving to the door is heading [m]."""
    return np.array([PAST_MAT + 0.06, scene.door])


def _path(space: FreeSpace, pose: np.ndarray) -> np.ndarray:
    """(n, 2) corners of the shortest path to the goal; a straight line if there is none."""
    try:
        return space.path(pose[:2])
    except ValueError:
        return np.array([pose[:2], space.goal])


def _ahead(path: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The path from the base's position, without the corners that it has reached."""
    ahead = path[1:]
    while len(ahead) > 1 and np.hypot(*(ahead[0] - pose[:2])) < CORNER:
        ahead = ahead[1:]
    return np.vstack([pose[:2], ahead])


def _substep(pose: np.ndarray, path: np.ndarray, remaining: float) -> np.ndarray:
    """The motion (dx, dy, dtheta) of one substep along a path of which `remaining` [m] are to be driven."""
    if remaining < ARRIVED:
        return np.zeros(3)
    error = wrapped(np.arctan2(*(path[1] - pose[:2])[::-1]) - pose[2])
    rotation = np.clip(GAIN * error, -TURN, TURN) * SUBSTEP
    speed = min(SPEED, 0.03 + SLOWING * remaining) * max(0.0, 1 - abs(error) / ALIGNED)
    forward = min(speed * SUBSTEP, remaining)
    return np.array([forward * np.cos(rotation / 2), forward * np.sin(rotation / 2), rotation])
