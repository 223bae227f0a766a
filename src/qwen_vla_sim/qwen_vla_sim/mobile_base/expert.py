"""Scripted expert of the mobile base: what to do next follows from what the camera shows and the sentence.

It looks, plans eight waypoints, drives the first of them and looks again. What it needs (the door, or the named thing)
is either in view, then it drives there around what stands in the way, or it is not, then it turns to the left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embodiment_descriptions.angles import wrapped
from embodiment_descriptions.base_path import moved, seen_from
from qwen_vla_sim.mobile_base.free_space import FreeSpace, length
from qwen_vla_sim.mobile_base.scene import Scene

SPEED, TURN = 0.20, 0.5  # [m/s], [rad/s]: below the robot's 0.26 and 1.82, so that a copy with small errors passes
SEARCH = 0.46  # [rad/s]: half a picture is seen anew in 1.2 s, so that nothing is skipped in the 2 s of four waypoints
GAIN = 1.8  # [1/s] turning speed per angle to where it drives
ALIGNED = 0.7  # [rad] off its way it turns without driving
SLOWING = 0.9  # [1/s] speed per distance that is left
CLEARANCE = 0.27  # [m] from the middle of the base to all it drives around
STAND_OFF = 0.34  # [m] from the middle of the base to the rim of the target, 0.25 m of it before the camera
CORNER = 0.10  # [m] from a corner of the way at which the next one counts
ARRIVED = 0.03  # [m]
PAST_MAT = 0.4  # [m] behind the wall the mat is out of view to who looks ahead: out of the room
DOORSTEP = -0.35  # [m] behind it the door's posts are out of view, too
VIEW = 0.45  # [rad] to either side within which the way through the door lies in view
SUBSTEP = 0.05  # [s]

Phase = Literal["search", "drive", "stop"]
InView = Callable[[int | None], bool]  # whether a thing, None: the door, is seen


@dataclass(frozen=True)
class Plan:
    """rows (steps, 3): waypoints (dx, dy [m], dtheta [rad]), each from the one before. goal: thing, None: the door."""

    rows: np.ndarray
    phase: Phase
    goal: int | None


class Expert:
    """The expert in a scene as it is at one moment."""

    def __init__(self, scene: Scene, steps: int, period: float) -> None:
        self._scene, self._steps, self._period = scene, steps, period
        self._door = np.array([PAST_MAT + 0.06, scene.door])

    def plan(self, pose: np.ndarray, in_view: InView) -> Plan:
        """What to do next at `pose` (x, y, heading)."""
        goal = self.goal(pose, in_view)
        if self._scene.task == "leave_room" and pose[0] > PAST_MAT:
            return self._standing(goal)
        if not (in_view(goal) or (goal is None and self._on_doorstep(pose))):
            return self._searching(goal)
        return self._driving(pose, goal)

    def goal(self, pose: np.ndarray, in_view: InView) -> int | None:
        """What is needed now: a thing, None: the door."""
        scene = self._scene
        if scene.task == "leave_room":
            return None
        if scene.task == "go_to_object":
            return scene.target
        here_to_stay = pose[0] > PAST_MAT or (pose[0] > 0 and (in_view(scene.target) or not self._on_doorstep(pose)))
        return scene.target if here_to_stay else None

    def _on_doorstep(self, pose: np.ndarray) -> bool:
        """Whether the way through the door is in view without the door: from between its posts and on the mat."""
        if not DOORSTEP < pose[0] < PAST_MAT:
            return False
        way = seen_from(pose, np.append(self._door, 0.0))
        return abs(np.arctan2(way[1], way[0])) < VIEW

    def _standing(self, goal: int | None) -> Plan:
        return Plan(np.zeros((self._steps, 3)), "stop", goal)

    def _searching(self, goal: int | None) -> Plan:
        return Plan(np.tile([0.0, 0.0, SEARCH * self._period], (self._steps, 1)), "search", goal)

    def _driving(self, pose: np.ndarray, goal: int | None) -> Plan:
        """Along the shortest way, as a base would that turns and drives at once."""
        if goal is None:
            space, short = FreeSpace(self._scene, self._door, CLEARANCE), 0.0
        else:
            thing = self._scene.things[goal]
            space = FreeSpace(self._scene, np.array([thing.x, thing.y]), CLEARANCE, goal)
            short = thing.form.radius + STAND_OFF
        count = round(self._period / SUBSTEP)
        poses, now = [np.array(pose)], np.array(pose)
        for _ in range(self._steps):
            way = _way(space, now)
            for _ in range(count):
                way = _passed(way, now)
                now = moved(now, _substep(now, way, length(way) - short))
            poses.append(now)
        rows = np.array([seen_from(a, b) for a, b in zip(poses[:-1], poses[1:], strict=True)])
        return Plan(rows, "drive" if np.abs(rows).max() > 1e-6 else "stop", goal)


def _way(space: FreeSpace, pose: np.ndarray) -> np.ndarray:
    """(n, 2) corners of the shortest way to the goal; a straight line where there is none."""
    try:
        return space.way(pose[:2])
    except ValueError:
        return np.array([pose[:2], space.goal])


def _passed(way: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The way from where the base is now, without the corners that it has come to."""
    ahead = way[1:]
    while len(ahead) > 1 and np.hypot(*(ahead[0] - pose[:2])) < CORNER:
        ahead = ahead[1:]
    return np.vstack([pose[:2], ahead])


def _substep(pose: np.ndarray, way: np.ndarray, left: float) -> np.ndarray:
    """The motion of one substep along a way of which `left` [m] are to be driven, as an offset (dx, dy, dtheta)."""
    if left < ARRIVED:
        return np.zeros(3)
    error = wrapped(np.arctan2(*(way[1] - pose[:2])[::-1]) - pose[2])
    turn = np.clip(GAIN * error, -TURN, TURN) * SUBSTEP
    speed = min(SPEED, 0.03 + SLOWING * left) * max(0.0, 1 - abs(error) / ALIGNED)
    forward = min(speed * SUBSTEP, left)
    return np.array([forward * np.cos(turn / 2), forward * np.sin(turn / 2), turn])
