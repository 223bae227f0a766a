# SPDX-License-Identifier: Apache-2.0
"""The state on which a task of the base, its judge and its expert depend: where everything is, and the drive so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.mobile_base.free_space import FreeSpace, shortened
from qwen_vla_sim.mobile_base.journey import SUCCESS_RADIUS, Journey
from qwen_vla_sim.mobile_base.scene import Scene

BASE_RADIUS = 0.24  # [m] of the circle around the base's footprint, about the center of its wheels
OUTSIDE = 0.25  # [m] x of the base's center from which all of it is in the hall
STANDS = (0.05, 0.2)  # [m/s], [rad/s] commanded: below these, the base is at rest
REST = 1.0  # [s] at rest that count as having stopped

InView = Callable[[int | None], bool]  # whether a thing, None: the door, is in view


class Drive:
    """One episode of the base. Call `observe` at regular intervals; distances are those of the shortest path.

    Near a thing means within SUCCESS_RADIUS of its rim, on its side of the wall. Without a target, the goal is the
    hall: the whole base is in it.

    Attributes:
        seen: whether the final goal has been in view.
        touches: whether the base touches something.
        collisions: number of collisions so far.
        journey: its path compared with the shortest one.
    """

    def __init__(self, scene: Scene, pose: np.ndarray, things: np.ndarray) -> None:
        """Start with the base at `pose` (3,) and the things at `things` (n, 2)."""
        self.seen, self.touches, self.collisions = False, False, 0
        self._scene, self._things = scene, np.array(things)
        self._rim = 0.0 if scene.target is None else scene.things[scene.target].form.radius
        self._free_space: FreeSpace | None = None
        self._resting = 0.0
        done = scene.target is None and self.reached(pose)
        reference = pose[None, :2] if done else shortened(self._space().path(pose[:2]), self._rim)
        self.journey = Journey(reference)

    def observe(
        self, pose: np.ndarray, commanded: tuple[float, float], things: np.ndarray, touches: bool, duration: float
    ) -> None:
        """Record the state of the last `duration` [s]: commanded speeds [m/s], [rad/s], and where all things are."""
        if not np.array_equal(things, self._things):
            self._things, self._free_space = np.array(things), None
        stands = abs(commanded[0]) < STANDS[0] and abs(commanded[1]) < STANDS[1]
        self._resting = self._resting + duration if stands else 0.0
        self.collisions += touches and not self.touches
        self.touches = touches
        self.journey.update(pose[:2], self.reached(pose))

    @property
    def stopped(self) -> bool:
        """Whether it has been at rest for long enough."""
        return self._resting > REST - 1e-6

    def reached(self, pose: np.ndarray) -> bool:
        """Whether `pose` (3,) is at the final goal."""
        target = self._scene.target
        return pose[0] > OUTSIDE if target is None else self.near(pose, target)

    def near(self, pose: np.ndarray, thing: int) -> bool:
        """Whether `pose` (3,) is near a thing."""
        place, radius = self._things[thing], self._scene.things[thing].form.radius
        return bool(np.hypot(*(pose[:2] - place)) < radius + SUCCESS_RADIUS and pose[0] * place[0] > 0)

    def distance(self, pose: np.ndarray) -> float:
        """Shortest path [m] from the base's center to the rim of the target, or out of the room."""
        target = self._scene.target
        if target is None and self.reached(pose):
            return 0.0
        return max(0.0, self._space().distance(pose[:2]) - self._rim)

    def _space(self) -> FreeSpace:
        """Where the base can be, on the way to the target, around the things as they are placed now."""
        if self._free_space is None:
            target = self._scene.target
            goal = np.array([OUTSIDE, self._scene.door]) if target is None else self._things[target]
            self._free_space = FreeSpace(self._scene.with_things_at(self._things), goal, BASE_RADIUS, target)
        return self._free_space


@dataclass(frozen=True)
class Situation:
    """The current state.

    Attributes:
        scene: with its things at their current positions.
        pose: (3,) of the base, x, y [m], heading [rad].
        in_view: of its camera.
        drive: so far.
    """

    scene: Scene
    pose: np.ndarray
    in_view: InView
    drive: Drive
