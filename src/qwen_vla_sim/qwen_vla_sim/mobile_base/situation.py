"""What a task of the base, its judge and its expert depend on: where everything is, and how the base has driven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.mobile_base.free_space import FreeSpace, shortened
from qwen_vla_sim.mobile_base.journey import SUCCESS_RADIUS, Journey
from qwen_vla_sim.mobile_base.scene import Scene

BASE_RADIUS = 0.24  # [m] of the circle around the base's footprint, about the middle of its wheels
OUTSIDE = 0.25  # [m] of the base's middle beyond the wall's: all of it is in the hall
STANDS = (0.05, 0.2)  # [m/s], [rad/s] commanded: slower than this, it stands
REST = 1.0  # [s] of standing that count as having stopped

InView = Callable[[int | None], bool]  # whether a thing, None: the door, is seen


class Drive:
    """One episode, from where the base is put. `observe` it at regular times; distances are those of the shortest way.

    Near a thing is within SUCCESS_RADIUS of its rim, on its side of the wall. Without a target, the hall is to be
    reached: the whole base is in it.

    Attributes:
        seen: what is to be reached in the end has been in view.
        touches: the base touches something.
        collisions: how often it has run into something.
        journey: its way against the shortest one.
    """

    def __init__(self, scene: Scene, pose: np.ndarray, things: np.ndarray) -> None:
        """Begin with the base at `pose` (3,) and the things at `things` (n, 2)."""
        self.seen, self.touches, self.collisions = False, False, 0
        self._scene, self._things = scene, np.array(things)
        self._rim = 0.0 if scene.target is None else scene.things[scene.target].form.radius
        self._free_space: FreeSpace | None = None
        self._resting = 0.0
        self.distance(pose)
        done = scene.target is None and self.reached(pose)
        way = pose[None, :2] if done else shortened(self._free_space.way(pose[:2]), self._rim)
        self.journey = Journey(way)

    def observe(
        self, pose: np.ndarray, told: tuple[float, float], things: np.ndarray, touches: bool, duration: float
    ) -> None:
        """Take in what has been so for `duration` [s]: commanded speeds [m/s], [rad/s], where all things are."""
        if not np.array_equal(things, self._things):
            self._things, self._free_space = np.array(things), None
        stands = abs(told[0]) < STANDS[0] and abs(told[1]) < STANDS[1]
        self._resting = self._resting + duration if stands else 0.0
        self.collisions += touches and not self.touches
        self.touches = touches
        self.journey.go_on(pose[:2], self.reached(pose))

    @property
    def stopped(self) -> bool:
        """Whether it has stood for long enough."""
        return self._resting > REST - 1e-6

    def reached(self, pose: np.ndarray) -> bool:
        """Whether what is to be reached in the end is, at `pose` (3,)."""
        target = self._scene.target
        return pose[0] > OUTSIDE if target is None else self.near(pose, target)

    def near(self, pose: np.ndarray, thing: int) -> bool:
        """Whether `pose` (3,) is near a thing."""
        place, radius = self._things[thing], self._scene.things[thing].form.radius
        return bool(np.hypot(*(pose[:2] - place)) < radius + SUCCESS_RADIUS and pose[0] * place[0] > 0)

    def distance(self, pose: np.ndarray) -> float:
        """Shortest way [m] from the base's middle to the rim of the target, or until the room is left."""
        target = self._scene.target
        if target is None and self.reached(pose):
            return 0.0
        if self._free_space is None:
            goal = np.array([OUTSIDE, self._scene.door]) if target is None else self._things[target]
            self._free_space = FreeSpace(self._scene.with_things_at(self._things), goal, BASE_RADIUS, target)
        return max(0.0, self._free_space.distance(pose[:2]) - self._rim)


@dataclass(frozen=True)
class Situation:
    """Now.

    Attributes:
        scene: with its things where they are now.
        pose: (3,) of the base, x, y [m], heading [rad].
        in_view: what its camera sees.
        drive: so far.
    """

    scene: Scene
    pose: np.ndarray
    in_view: InView
    drive: Drive
