"""Judges a drive: whether the base has come to rest where the sentence wants it, how it got there, what went wrong.

Success is as in VLN-CE: to stop near the goal. Near a thing is within SUCCESS_RADIUS of its rim, on its side of the
wall; a room is left when the whole base is in the hall.
"""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.mobile_base.free_space import FreeSpace, shortened
from qwen_vla_sim.mobile_base.journey import SUCCESS_RADIUS, Journey
from qwen_vla_sim.mobile_base.scene import Scene
from qwen_vla_sim.task import TaskState

BASE_RADIUS = 0.24  # [m] of the circle around the base's footprint, about the middle of its wheels
OUTSIDE = 0.25  # [m] of the base's middle beyond the wall's: all of it is in the hall
STANDS = (0.05, 0.2)  # [m/s], [rad/s] commanded: slower than this, it stands
REST = 1.0  # [s] of standing that count as having stopped


class Judge:
    """One episode, from where the base is put. `observe` it at regular times; distances are those of the shortest way.

    Attributes:
        seen: what is to be reached in the end has been in view.
        collisions: how often the base has run into something.
    """

    def __init__(self, scene: Scene, pose: np.ndarray, things: np.ndarray) -> None:
        """Begin with the base at `pose` (3,) and the things at `things` (n, 2)."""
        self.seen, self.collisions = False, 0
        self._scene, self._things = scene, np.array(things)
        self._rim = 0.0 if scene.target is None else scene.things[scene.target].form.radius
        self._free_space: FreeSpace | None = None
        self._resting, self._touches = 0.0, False
        self._distance(pose)
        done = scene.target is None and self._reached(pose)
        way = pose[None, :2] if done else shortened(self._free_space.way(pose[:2]), self._rim)
        self.journey = Journey(way)

    def observe(
        self, pose: np.ndarray, told: tuple[float, float], things: np.ndarray, touches: bool, duration: float
    ) -> None:
        """Take note of what has been so for `duration` [s]: commanded speeds [m/s], [rad/s], where all things are."""
        if not np.array_equal(things, self._things):
            self._things, self._free_space = np.array(things), None
        stands = abs(told[0]) < STANDS[0] and abs(told[1]) < STANDS[1]
        self._resting = self._resting + duration if stands else 0.0
        self.collisions += touches and not self._touches
        self._touches = touches
        self.journey.go_on(pose[:2], self._reached(pose))

    def state(self, pose: np.ndarray) -> TaskState:
        """What is to be said about the base at `pose` (3,)."""
        success = self._reached(pose) and self._stopped
        distance = self._distance(pose)
        scene = self._scene
        return TaskState(
            instruction=scene.instruction,
            task=scene.task,
            target=scene.target_name,
            success=success,
            distance=distance,
            failure="" if success else self._failure(pose),
            metrics={**self.journey.metrics(success, distance), "collisions": float(self.collisions)},
        )

    @property
    def _stopped(self) -> bool:
        return self._resting > REST - 1e-6

    def _reached(self, pose: np.ndarray) -> bool:
        target = self._scene.target
        return pose[0] > OUTSIDE if target is None else self._near(pose, target)

    def _near(self, pose: np.ndarray, thing: int) -> bool:
        place, radius = self._things[thing], self._scene.things[thing].form.radius
        return bool(np.hypot(*(pose[:2] - place)) < radius + SUCCESS_RADIUS and pose[0] * place[0] > 0)

    def _distance(self, pose: np.ndarray) -> float:
        """Shortest way [m] from the base's middle to the rim of the target, or until the room is left."""
        target = self._scene.target
        if target is None and self._reached(pose):
            return 0.0
        if self._free_space is None:
            goal = np.array([OUTSIDE, self._scene.door]) if target is None else self._things[target]
            self._free_space = FreeSpace(self._scene.with_things_at(self._things), goal, BASE_RADIUS, target)
        return max(0.0, self._free_space.distance(pose[:2]) - self._rim)

    def _failure(self, pose: np.ndarray) -> str:
        """What is in the way of success, as a category."""
        if self.journey.been_there:
            return "did not stop"
        if self._touches:
            return "stuck"
        if self._scene.task != "go_to_object" and pose[0] < OUTSIDE:
            return "did not leave the room"
        others = [index for index in range(len(self._things)) if index != self._scene.target]
        if self._stopped and any(self._near(pose, index) for index in others):
            return "stopped at another thing"
        if self._stopped:
            return "stopped elsewhere"
        return "on the way" if self.seen else "not found"
