# SPDX-License-Identifier: Apache-2.0
"""LIBERO in its own environment: the official protocol of its four suites, and the scripted expert of two of them.

A row of a chunk is the pose to which OSC_POSE is to drive the tip, relative to that at the observation, and the opening
of the gripper.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial

from benchmarks.public.protocol.world_server import serve_world, use_software_rendering

use_software_rendering()  # before MuJoCo is imported

import numpy as np  # noqa: E402

from benchmarks.public.libero.actions import action_towards, aimed_at, scaled  # noqa: E402
from benchmarks.public.libero.expert import DISTURBANCES, Planner  # noqa: E402
from benchmarks.public.libero.scene import CAMERAS, Scene  # noqa: E402
from benchmarks.public.libero.tasks import NAMES, OFFICIAL_STATES, STEPS, SUITE_OF, instruction, objects  # noqa: E402
from benchmarks.public.protocol.disturbance import Disturbance  # noqa: E402
from benchmarks.public.protocol.poses import moved  # noqa: E402
from benchmarks.public.protocol.track import Track, annotations  # noqa: E402
from benchmarks.public.protocol.trials import FIRST_EXPERT, STATES_PER_TASK  # noqa: E402

PERIOD = 0.05  # [s]
REACHED = 0.05  # [m] of the tip from the object's origin
LIFTED = 0.02  # [m]
SHUT = 0.0016  # [m] of a finger: with less, nothing is between them
BEFORE = 60  # rows before a snapshot, at most: most demonstrations have grasped the object by then
EVERY = 4  # rows of a demonstration per new image: rendering costs more than all the rest


class Libero:
    """One task at a time. See `World`."""

    def __init__(self) -> None:
        self._task = ""
        self._scene: Scene | None = None

    def start(self, task: str, start: int) -> dict:
        self._reset(task, start)
        return self._seen()

    def execute(self, rows: np.ndarray, film: bool) -> dict:
        looks = []
        for row in rows:
            pose = moved(self._anchor, row[:6])
            self._step(action_towards(pose, self._scene.hand(), opened=row[6] > 0.5))
            if film:
                looks.append({"seconds": self._seconds, "images": self._images()})
            if self._over:
                break
        return {
            "observation": self._seen(),
            "success": self._success,
            "over": self._over,
            "seconds": self._seconds,
            "failure": "" if self._success else self._failure(),
            "distance": self._distance(),
            "looks": looks,
            "elapsed": self._steps / STEPS[SUITE_OF[self._task]],
            "free": self._opened or self._scene.joints()[-1] < SHUT,
        }

    def demonstrate(self, task: str, start: int, size: list[int] | None) -> dict:
        """With images, the expert is disturbed now and then, and corrects it."""
        self._reset(task, start)
        return self._recorded(size, Disturbance(DISTURBANCES, start) if size else None)

    def take_over(self, size: list[int] | None) -> dict:
        self._steps = 0
        return self._recorded(size, None)

    def _recorded(self, size: list[int] | None, disturbance: Disturbance | None) -> dict:
        """Run the expert from here."""
        expert = Planner(self._scene)
        track = Track(partial(self._annotated, tuple(size)) if size else None, EVERY)
        while not self._over:
            delta = self._shown(expert, track)
            self._step(scaled(disturbance.applied(delta, expert.phase) if disturbance else delta))
        return {"success": self._success, "instruction": instruction(self._task), "frames": track.columns()}

    def snapshot(self, task: str, start: int, size: list[int]) -> dict:
        self._reset(task, start)
        expert, disturbance = Planner(self._scene), Disturbance(DISTURBANCES, start)
        for _ in range(np.random.default_rng([start, 2]).integers(BEFORE)):
            self._step(scaled(disturbance.applied(expert.act(), expert.phase)))
        track = Track(partial(self._annotated, tuple(size)), EVERY)
        self._shown(expert, track)
        return {"success": True, "instruction": instruction(task), "frames": track.columns()}

    def close(self) -> None:
        """Let go of the simulator."""
        if self._scene:
            self._scene.close()
        self._scene = None

    # --- the episode ------------------------------------------------------------------------------------------------

    def _reset(self, task: str, start: int) -> None:
        """States below FIRST_EXPERT are the official ones, again and again."""
        if task != self._task:
            self.close()
            self._scene, self._task = Scene(task), task
        if start < FIRST_EXPERT:
            self._scene.reset_official(start % STATES_PER_TASK % OFFICIAL_STATES)
        else:
            self._scene.reset(start)
        self._rest = self._scene.pose(self._scene.object)[2, 3]
        self._steps, self._success, self._stages, self._opened = 0, False, set(), True

    @property
    def _over(self) -> bool:
        return self._success or self._steps >= STEPS[SUITE_OF[self._task]]

    @property
    def _seconds(self) -> float:
        return self._steps * PERIOD

    def _shown(self, expert: Planner, track: Track) -> np.ndarray:
        """The expert's next shift of the hand, added to the rows."""
        hand, delta = self._scene.hand(), expert.act()
        track.add(self._scene.joints(), hand, aimed_at(hand, scaled(delta)), (delta[6] + 1) / 2)
        return delta

    def _step(self, action: np.ndarray) -> None:
        scene = self._scene
        self._success = scene.step(action)
        self._steps += 1
        self._opened = action[6] < 0
        thing = scene.pose(scene.object)[:3, 3]
        if np.linalg.norm(scene.hand()[:3, 3] - thing) < REACHED:
            self._stages.add("reached")
        if thing[2] > self._rest + LIFTED:
            self._stages.add("lifted")

    def _seen(self) -> dict:
        self._anchor = self._scene.hand()
        return {"images": self._images(), "state": self._scene.joints(), "instruction": instruction(self._task)}

    def _images(self) -> dict[str, np.ndarray]:
        return {tag: self._scene.image(tag) for tag in CAMERAS}

    def _annotated(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Small images and where object, destination and tip are in them."""
        images = {f"observation.images.{tag}": self._scene.image(tag, size) for tag in CAMERAS}
        points = np.stack([self._scene.points(tag) for tag in CAMERAS])
        thing, goal = (NAMES.index(name) for name in objects(self._task))
        return images | annotations(points, (thing, goal), list(SUITE_OF).index(self._task))

    def _distance(self) -> float:
        """Of the object from its destination, seen from above [m]."""
        thing, goal = (self._scene.pose(name) for name in (self._scene.object, self._scene.goal))
        return float(np.linalg.norm(thing[:2, 3] - goal[:2, 3]))

    def _failure(self) -> str:
        """How far it got."""
        if "lifted" in self._stages:
            return "lifted the object, but did not put it there"
        return "reached the object, but did not lift it" if "reached" in self._stages else "did not reach the object"


if __name__ == "__main__":
    with closing(Libero()) as world:
        serve_world(world)
