# SPDX-License-Identifier: Apache-2.0
"""Simpler-WidowX in its own environment: mani_skill's four Bridge tasks, and the scripted expert.

A row of a chunk is the pose of the tip relative to that at the observation, and the opening of the gripper. The
simulator's own actions shift its controller's target along the root's axes.
"""

from __future__ import annotations

import itertools
from functools import partial

from benchmarks.public.protocol.world_server import serve_world
from benchmarks.public.simpler_widowx.simulator import prepare

prepare()  # before mani_skill is imported

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.public.protocol.disturbance import Disturbance  # noqa: E402
from benchmarks.public.protocol.pick_and_place import Expert  # noqa: E402
from benchmarks.public.protocol.poses import moved  # noqa: E402
from benchmarks.public.protocol.track import Track, annotations  # noqa: E402
from benchmarks.public.protocol.trials import FIRST_EXPERT, STATES_PER_TASK  # noqa: E402
from benchmarks.public.simpler_widowx.actions import action_towards, applied  # noqa: E402
from benchmarks.public.simpler_widowx.expert import DISTURBANCES, GRASPS, PACE  # noqa: E402
from benchmarks.public.simpler_widowx.scene import Scene  # noqa: E402
from benchmarks.public.simpler_widowx.tasks import NAMES, OFFICIAL_STATES, TASKS, training_start  # noqa: E402

PERIOD = 0.2  # [s]
REACHED = 0.04  # [m] of the tip from the object
EVERY = 2  # rows of a demonstration per new image: rendering costs more than all the rest
RESTING = 3  # rows after the hand has withdrawn
BEFORE = 20  # rows before a snapshot, at most: most demonstrations have grasped the object by then
LONGEST = 90  # rows of an attempt: most take 35 to 50


class SimplerWidowX:
    """Four scenes, made when they are needed. See `World`."""

    def __init__(self) -> None:
        self._scenes: dict[str, Scene] = {}
        cv2.setNumThreads(1)

    def start(self, task: str, start: int) -> dict:
        self._reset(task, start)
        return self._seen()

    def execute(self, rows: np.ndarray, film: bool) -> dict:
        looks = []
        for row in rows[: self._scene.task.steps - self._steps]:
            pose = moved(self._anchor, row[:6])
            self._step(action_towards(pose, self._scene.view().target, opened=row[6] > 0.5))
            if film:
                looks.append({"seconds": self._seconds, "images": {"ego": self._scene.frame().image}})
        over = self._steps >= self._scene.task.steps
        success = over and self._judged["success"]
        return {
            "observation": self._seen(),
            "success": success,
            "over": over,
            "seconds": self._seconds,
            "failure": "" if success else self._failure(),
            "distance": self._distance(),
            "looks": looks,
            "elapsed": self._steps / self._scene.task.steps,
            "free": self._free,
        }

    def demonstrate(self, task: str, start: int, size: list[int] | None) -> dict:
        """With images, the expert is disturbed now and then, and corrects it."""
        self._reset(task, start)
        return self._recorded(size, Disturbance(DISTURBANCES, start) if size else None)

    def take_over(self, size: list[int] | None) -> dict:
        return self._recorded(size, None)

    def _recorded(self, size: list[int] | None, disturbance: Disturbance | None) -> dict:
        """Run the expert from here."""
        expert = Expert(GRASPS[self._scene.task.name], PACE)
        track = Track(partial(self._annotated, size) if size else None, EVERY)
        for _ in range(LONGEST):
            action = self._shown(expert, track)
            if expert.phase == "rest" and expert.steps > RESTING:
                break
            self._step(disturbance.applied(action, expert.phase) if disturbance else action)
        instruction = self._scene.task.instruction
        return {"success": self._judged["success"], "instruction": instruction, "frames": track.columns()}

    def snapshot(self, task: str, start: int, size: list[int]) -> dict:
        self._reset(task, start)
        expert, disturbance = Expert(GRASPS[task], PACE), Disturbance(DISTURBANCES, start)
        for _ in range(np.random.default_rng([start, 2]).integers(BEFORE)):
            action = expert.act(self._scene.view())
            self._step(disturbance.applied(action, expert.phase))
        track = Track(partial(self._annotated, size), EVERY)
        self._shown(expert, track)
        return {"success": True, "instruction": self._scene.task.instruction, "frames": track.columns()}

    # --- the episode ------------------------------------------------------------------------------------------------

    def _reset(self, task: str, start: int) -> None:
        """States below FIRST_EXPERT are the official ones, again and again."""
        if task not in self._scenes:
            self._scenes[task] = Scene(TASKS[task])
        self._scene = self._scenes[task]
        if start < FIRST_EXPERT:
            self._scene.reset_official(start % STATES_PER_TASK % OFFICIAL_STATES)
        else:
            self._reset_for_training(start)
        self._steps, self._judged, self._stages = 0, {"success": False}, set()
        self._closed = 0  # steps for which the fingers have closed

    def _reset_for_training(self, start: int) -> None:
        """The first attempt of a state in which the object stays: some eggplants overlap the sink, and are thrown."""
        official = self._scene.official_starts()
        for attempt in itertools.count():
            state = training_start(self._scene.task, official, start, attempt)
            self._scene.reset(state)
            if self._scene.stays(state):
                return

    def _shown(self, expert: Expert, track: Track) -> np.ndarray:
        """The expert's next action, added to the rows."""
        view = self._scene.view()
        action = expert.act(view)
        track.add(self._scene.joints(), view.hand, applied(view.target, action), (action[6] + 1) / 2)
        return action

    def _step(self, action: np.ndarray) -> None:
        self._judged = self._scene.step(action)
        self._steps += 1
        self._closed = 0 if action[6] > 0 else self._closed + 1
        self._stages |= {name for name, holds in self._judged.items() if holds}
        view = self._scene.view()
        if np.linalg.norm(view.hand[:3, 3] - view.object[:3, 3]) < REACHED:
            self._stages.add("reached")

    @property
    def _free(self) -> bool:
        """Whether the hand is empty and something is left to do; while the fingers close, they may hold something."""
        empty = not self._closed or self._closed > PACE.closing and not self._judged["is_src_obj_grasped"]
        return empty and not self._judged["success"]

    @property
    def _seconds(self) -> float:
        return self._steps * PERIOD

    def _seen(self) -> dict:
        self._anchor = self._scene.view().hand
        image, instruction = self._scene.frame().image, self._scene.task.instruction
        return {"images": {"ego": image}, "state": self._scene.joints(), "instruction": instruction}

    def _annotated(self, size: list[int]) -> dict[str, np.ndarray]:
        """A small image and where object, destination and tip are in it."""
        frame, task = self._scene.frame(), self._scene.task
        image = cv2.resize(frame.image, size[::-1], interpolation=cv2.INTER_AREA)
        thing, goal = (NAMES.index(name) for name in task.objects)
        found = annotations(frame.points[None], (thing, goal), list(TASKS).index(task.name))
        return {"observation.images.ego": image} | found

    def _distance(self) -> float:
        """Of the object from its destination, seen from above [m]."""
        view = self._scene.view()
        return float(np.linalg.norm(view.object[:2, 3] - view.goal[:2, 3]))

    def _failure(self) -> str:
        """How far it got."""
        for stage, words in (
            ("success", "put it there, and away again"),
            ("consecutive_grasp", "held the object, but did not put it there"),
            ("is_src_obj_grasped", "grasped the object, but lost it"),
            ("reached", "reached the object, but did not grasp it"),
        ):
            if stage in self._stages:
                return words
        return "did not reach the object"


if __name__ == "__main__":
    serve_world(SimplerWidowX())
