# SPDX-License-Identifier: Apache-2.0
"""The base class of ALOHA's tasks: how scenes are laid out, where demonstrations begin, and the common failures.

A scene has two things of one kind in different colors, of which the instruction names one, and may have more. A task
defines where they are placed, its progress, and what the hands do; its instructions have the field {color}.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from qwen_vla_sim.aloha.grasping import PITCH, Goals
from qwen_vla_sim.aloha.hands import hand_pose
from qwen_vla_sim.aloha.scene import (
    COLORS,
    CUBE,
    DRIFT_SPEED,
    HELD_OUT_COLORS,
    INSTANCE_SCALES,
    Box,
    Item,
    Scene,
    draw_other_room,
    draw_place,
    draw_room,
    varied_items,
    varied_room,
)
from qwen_vla_sim.aloha.situation import Situation
from qwen_vla_sim.aloha.starts import GRASP_HEIGHT, start_anywhere
from qwen_vla_sim.aloha.world import AlohaWorld
from qwen_vla_sim.looks import varies
from qwen_vla_sim.task import Shift, Task, TaskState

DONE = 4


class BimanualTask(Task[AlohaWorld, Scene, Situation, Goals, np.ndarray]):
    """A task about one of two things of a kind.

    Attributes:
        kind: of the two things, one of KINDS.
        regions: where each thing may be placed in training: the two, then the others.
        more: kind and color of the others; the target is brought to the first of them.
        grips: for each hand, offset of its grip from the center of what it grasps, along y [m].
    """

    kind: str
    regions: tuple[Box, ...]
    more: tuple[tuple[str, str], ...] = ()
    grips: Mapping[str, float]

    # ----------------------------------------------------------------- scenes
    def scene(self, seed: int, shift: Shift | None = None) -> Scene:
        """The scene of a seed; the same on every machine (NumPy's PCG64).

        A shifted scene differs from the unshifted one of the same seed only in what is shifted.
        """
        rng, shifted = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        target = int(rng.integers(2))
        colors = [str(color) for color in rng.permutation(list(COLORS))[:2]]
        number, room = int(rng.integers(1000)), draw_room(rng)
        outside = shift == "position"
        places = self._places(shifted if outside else rng, target if outside else -1)
        scales, drift = [1.0, 1.0], (0.0, 0.0)
        if shift == "colour":
            colors[target] = str(shifted.choice(list(HELD_OUT_COLORS)))
        elif shift == "instance":
            scales[target] = float(shifted.uniform(*INSTANCE_SCALES[int(shifted.integers(len(INSTANCE_SCALES)))]))
        elif shift == "background":
            room = draw_other_room(shifted)
        elif shift == "dynamic":
            angle, speed = shifted.uniform(0, 2 * np.pi), shifted.uniform(*DRIFT_SPEED)
            drift = (float(speed * np.cos(angle)), float(speed * np.sin(angle)))
        items = [Item(self.kind, colors[i], *places[i], scales[i]) for i in range(2)]
        items += [Item(kind, color, *place) for (kind, color), place in zip(self.more, places[2:], strict=True)]
        if varies(seed, shift):
            looks = np.random.default_rng([seed, 3])
            items, room = varied_items(items, looks), varied_room(room, looks)
        templates = self.held_out_instructions if shift == "instruction" else self.instructions
        template, goal = templates[number % len(templates)], 2 if self.more else -1
        return Scene(seed, self, tuple(items), target, goal, template, room, self.regions[target], drift)

    def apart(self, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether the two things may be at these positions (2,) [m] at once."""
        return True

    def _places(self, rng: np.random.Generator, outside: int) -> list[tuple[float, float]]:
        """Positions (x, y) of a scene's things; that of index `outside` is outside its region (-1: none)."""
        while True:
            places = [draw_place(rng, region, i == outside) for i, region in enumerate(self.regions)]
            if self.apart(np.array(places[0]), np.array(places[1])):
                return places

    def other_instruction(self, scene: Scene, seed: int) -> str:
        return scene.other_instruction

    # ---------------------------------------------------------------- judging
    def judge(self, situation: Situation) -> TaskState:
        scene = situation.scene
        stage, distance, failure = self.progress(situation)
        if stage < DONE and _another_is_up(situation):
            failure = f"another {scene.items[scene.target].kind} taken"
        if situation.target[2, 3] < -0.05:
            failure = "off the table"
        return TaskState(
            instruction=scene.instruction,
            task=self.name,
            target=scene.items[scene.target].name,
            success=stage == DONE,
            distance=distance,
            failure="" if stage == DONE else failure,
            metrics={"stage": float(stage)},
        )

    @abstractmethod
    def progress(self, situation: Situation) -> tuple[int, float, str]:
        """Stage, 0 to DONE; distance to the next goal [m]; and why the task is not done, as a category."""

    # ----------------------------------------------------------------- starts
    def start(self, world: AlohaWorld, rng: np.random.Generator) -> np.ndarray:
        """Place the arms; returns the command (14,) [rad, m] that holds them there (see `AlohaEnv.begin`)."""
        return start_anywhere(world, self, rng)

    def held(self, scene: Scene, rng: np.random.Generator) -> dict[str, int]:
        """The thing that each hand holds midway through the task."""
        return {}

    def carried_to(self, side: str) -> np.ndarray:
        """(3,) center of the thing that a hand holds when the task is nearly done [m]."""
        raise NotImplementedError(f"hands of {self.name} hold things midway, so it must define carried_to")

    def approach(self, scene: Scene, side: str, handed: bool) -> np.ndarray:
        """4x4 pose of a hand around what it grasps; handed: the other hand already holds something."""
        return self.above_table(scene, scene.target, side)

    def above_table(self, scene: Scene, thing: int, side: str) -> np.ndarray:
        """4x4 pose of a hand around a thing of the scene on the table."""
        item = scene.items[thing]
        return hand_pose(side, np.array([item.x, item.y, GRASP_HEIGHT]) + self.grip(side), PITCH)

    def grip(self, side: str) -> np.ndarray:
        """(3,) offset of a hand's grip from the center of what it grasps [m]."""
        return np.array([0.0, self.grips[side], 0.0])


def _another_is_up(situation: Situation) -> bool:
    """Whether a hand has lifted the thing that was not named."""
    other = situation.scene.other
    touched = situation.left.touched[other] + situation.right.touched[other]
    return touched > 0 and not situation.on_table[other] and situation.poses[other][2, 3] > CUBE
