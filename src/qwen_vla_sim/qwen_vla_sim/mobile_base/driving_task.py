# SPDX-License-Identifier: Apache-2.0
"""The base class of the base's tasks: how their scenes are built, where demonstrations begin, how a drive is judged.

Success is as in VLN-CE: to stop near the goal. A task defines the final goal and the next one of its expert; its
instructions have the field {thing}.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import numpy as np

from qwen_vla_sim.looks import any_color, any_light, varies
from qwen_vla_sim.mobile_base.driving import Aim
from qwen_vla_sim.mobile_base.furnishing import draw_start, draw_things, furnished, pick
from qwen_vla_sim.mobile_base.furniture import RGB
from qwen_vla_sim.mobile_base.scene import Scene, in_hall
from qwen_vla_sim.mobile_base.situation import OUTSIDE, Situation
from qwen_vla_sim.mobile_base.starts import disturbed_start
from qwen_vla_sim.mobile_base.world import MobileBaseWorld
from qwen_vla_sim.task import Shift, Task, TaskState

# Floor and wall of the room; the hall is always gray and white.
ROOMS: tuple[tuple[RGB, RGB], ...] = (
    ((0.76, 0.62, 0.42), (0.88, 0.82, 0.70)),
    ((0.50, 0.66, 0.45), (0.76, 0.86, 0.72)),
    ((0.72, 0.42, 0.32), (0.90, 0.74, 0.66)),
    ((0.42, 0.58, 0.75), (0.74, 0.82, 0.92)),
    ((0.62, 0.50, 0.72), (0.84, 0.76, 0.90)),
    ((0.80, 0.74, 0.35), (0.93, 0.90, 0.66)),
)
UNSEEN_ROOMS: tuple[tuple[RGB, RGB], ...] = (
    ((0.30, 0.58, 0.56), (0.64, 0.82, 0.80)),
    ((0.78, 0.52, 0.60), (0.92, 0.78, 0.82)),
    ((0.45, 0.32, 0.24), (0.70, 0.60, 0.50)),
)
USUAL_LIGHT, UNSEEN_LIGHT = (0.6, 0.9), (0.35, 0.5)
COLORED = 0.15  # least difference of two channels of a floor with a varied look: halls are gray
ROOM_EDGE, HALL_EDGE = (2.8, 3.6), (2.7, 3.5)  # inner edges of each [m]
DOOR_OFFSET, UNSEEN_DOOR_OFFSET = (0.0, 0.5), (0.6, 0.8)  # of the door from the center of its wall, to either side [m]


class DrivingTask(Task[MobileBaseWorld, Scene, Situation, Aim, np.ndarray]):
    """A task about a thing, or about the hall.

    Attributes:
        leads_through_door: the base starts in the room and ends in the hall; otherwise it starts where its target is.
    """

    leads_through_door = True

    @abstractmethod
    def target(self, rng: np.random.Generator) -> int | None:
        """Index of the thing to reach in the end, those in the room first; None: the hall."""

    # ----------------------------------------------------------------- scenes
    def scene(self, seed: int, shift: Shift | None = None) -> Scene:
        """The scene of a seed; the same on every machine (NumPy's PCG64)."""
        rng = np.random.default_rng(seed)
        while True:
            scene = self._attempt(rng, seed, shift)
            if scene is not None:
                return scene

    def _attempt(self, rng: np.random.Generator, seed: int, shift: Shift | None) -> Scene | None:
        """Draw a scene; None if there was no room for something."""
        scene = furnished(rng, self._unfurnished(rng, seed, shift), shift)
        if scene is None:
            return None
        hall = not self.leads_through_door and scene.target is not None and in_hall(scene.things[scene.target])
        start = draw_start(rng, scene, hall)
        if start is None:
            return None
        return replace(scene, start=start, instruction=scene.template.format(thing=_phrase(rng, scene, shift)))

    def _unfurnished(self, rng: np.random.Generator, seed: int, shift: Shift | None) -> Scene:
        """Draw a scene whose things have no positions yet."""
        room, hall = rng.uniform(*ROOM_EDGE, 2), rng.uniform(*HALL_EDGE, 2)
        offset = rng.uniform(*(UNSEEN_DOOR_OFFSET if shift == "position" else DOOR_OFFSET))
        target = self.target(rng)
        floor, wall = pick(rng, UNSEEN_ROOMS if shift == "background" else ROOMS)
        gray, white = rng.uniform(0.50, 0.66), rng.uniform(0.84, 0.94)
        light = rng.uniform(*(UNSEEN_LIGHT if shift == "background" else USUAL_LIGHT))
        varied = varies(seed, shift)
        if varied:
            floor, wall, light = _any_room(rng)
        return Scene(
            seed=seed,
            task=self,
            instruction="",
            template=str(pick(rng, self.held_out_instructions if shift == "instruction" else self.instructions)),
            room=tuple(room.tolist()),
            hall=tuple(hall.tolist()),
            door=float(offset * rng.choice([-1, 1])),
            things=draw_things(rng, target, shift, varied),
            target=target,
            start=(0.0, 0.0, 0.0),
            room_floor=floor if varied else _tinted(rng, floor),
            room_wall=wall if varied else _tinted(rng, wall),
            hall_floor=_tinted(rng, (gray, gray, gray), 0.01),
            hall_wall=_tinted(rng, (white, white, white), 0.01),
            light_intensity=float(light),
            light_direction=tuple(rng.uniform((-0.6, -0.6, -1.0), (0.6, 0.6, -0.6)).tolist()),
        )

    def other_instruction(self, scene: Scene, seed: int) -> str:
        """The same instruction for another thing in the same space."""
        here = scene.target is not None and in_hall(scene.things[scene.target])
        others = [i for i, thing in enumerate(scene.things) if i != scene.target and in_hall(thing) == here]
        return scene.template.format(thing=scene.things[others[seed % len(others)]].name)

    def start(self, world: MobileBaseWorld, rng: np.random.Generator) -> np.ndarray:
        """A pose (3,): x, y [m], heading [rad]."""
        return disturbed_start(world.scene, rng, self.leads_through_door)

    # ---------------------------------------------------------------- judging
    def judge(self, situation: Situation) -> TaskState:
        scene, pose, drive = situation.scene, situation.pose, situation.drive
        success = drive.reached(pose) and drive.stopped
        distance = drive.distance(pose)
        return TaskState(
            instruction=scene.instruction,
            task=self.name,
            target=scene.target_name,
            success=success,
            distance=distance,
            failure="" if success else self._failure(situation),
            metrics={**drive.journey.metrics(success, distance), "collisions": float(drive.collisions)},
        )

    def _failure(self, situation: Situation) -> str:
        """Why the task is not done, as a category."""
        pose, drive = situation.pose, situation.drive
        if drive.journey.ever_reached:
            return "did not stop"
        if drive.touches:
            return "stuck"
        if self.leads_through_door and pose[0] < OUTSIDE:
            return "did not leave the room"
        others = [index for index in range(len(situation.scene.things)) if index != situation.scene.target]
        if drive.stopped and any(drive.near(pose, index) for index in others):
            return "stopped at another thing"
        if drive.stopped:
            return "stopped elsewhere"
        return "on the way" if drive.seen else "not found"


def _phrase(rng: np.random.Generator, scene: Scene, shift: Shift | None) -> str:
    """The target's name in the instruction: sometimes without its color, if it is the only one of its kind."""
    if scene.target is None:
        return ""
    thing = scene.things[scene.target]
    alone = sum(other.kind == thing.kind for other in scene.things) == 1
    if alone and (shift == "colour" or rng.random() < 0.35):
        return thing.kind
    return thing.name


def _any_room(rng: np.random.Generator) -> tuple[RGB, RGB, float]:
    """Colors of floor and wall, and the light, of a room with a varied look."""
    floors, walls = zip(*UNSEEN_ROOMS, strict=True)
    floor = any_color(rng, floors)
    while max(floor) - min(floor) < COLORED:
        floor = any_color(rng, floors)
    return floor, any_color(rng, walls), any_light(rng, USUAL_LIGHT, [UNSEEN_LIGHT])


def _tinted(rng: np.random.Generator, rgb: RGB, spread: float = 0.04) -> RGB:
    red, green, blue = np.clip(np.array(rgb) + rng.uniform(-spread, spread, 3), 0, 1).tolist()
    return red, green, blue
