"""The base class of ALOHA's tasks: how scenes are laid out, where demonstrations begin, what counts as failed in all.

A scene has two things of one kind in different colors, of which the instruction names one, and may have more. A task
says where they lie, how far it has come, and what the hands do; its instructions have the field {colour}.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from qwen_vla_sim.aloha.grasping import PITCH, Goals
from qwen_vla_sim.aloha.hands import hand_pose
from qwen_vla_sim.aloha.scene import (
    COLOURS,
    CUBE,
    DRIFT_SPEED,
    HELD_OUT_COLOURS,
    INSTANCE_SCALES,
    Box,
    Item,
    Scene,
    draw_other_room,
    draw_place,
    draw_room,
)
from qwen_vla_sim.aloha.situation import Situation
from qwen_vla_sim.aloha.starts import TAKING_HEIGHT, start_anywhere
from qwen_vla_sim.aloha.world import AlohaWorld
from qwen_vla_sim.task import Shift, Task, TaskState

DONE = 4


class BimanualTask(Task[AlohaWorld, Scene, Situation, Goals, np.ndarray]):
    """A task that is about one of two things of a kind.

    Attributes:
        kind: what there are two of, one of KINDS.
        regions: where each thing of a scene may lie in training: the two, then what else there is.
        more: kind and colour of what else there is; the target is brought to the first of them.
        grips: for each hand, from the middle of what it takes to where it takes it, along y [m].
    """

    kind: str
    regions: tuple[Box, ...]
    more: tuple[tuple[str, str], ...] = ()
    grips: Mapping[str, float]

    # ----------------------------------------------------------------- scenes
    def scene(self, seed: int, shift: Shift | None = None) -> Scene:
        """The scene of a seed; the same on every machine (NumPy's PCG64).

        A shifted scene differs from the plain one of the same seed in what is shifted alone.
        """
        rng, shifted = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        target = int(rng.integers(2))
        colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:2]]
        number, room = int(rng.integers(1000)), draw_room(rng)
        outside = shift == "position"
        places = self._places(shifted if outside else rng, target if outside else -1)
        scales, drift = [1.0, 1.0], (0.0, 0.0)
        if shift == "colour":
            colours[target] = str(shifted.choice(list(HELD_OUT_COLOURS)))
        elif shift == "instance":
            scales[target] = float(shifted.uniform(*INSTANCE_SCALES[int(shifted.integers(len(INSTANCE_SCALES)))]))
        elif shift == "background":
            room = draw_other_room(shifted)
        elif shift == "dynamic":
            angle, speed = shifted.uniform(0, 2 * np.pi), shifted.uniform(*DRIFT_SPEED)
            drift = (float(speed * np.cos(angle)), float(speed * np.sin(angle)))
        items = [Item(self.kind, colours[i], *places[i], scales[i]) for i in range(2)]
        items += [Item(kind, colour, *place) for (kind, colour), place in zip(self.more, places[2:], strict=True)]
        templates = self.held_out_instructions if shift == "instruction" else self.instructions
        template, goal = templates[number % len(templates)], 2 if self.more else -1
        return Scene(seed, self, tuple(items), target, goal, template, room, self.regions[target], drift)

    def apart(self, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether the two things may lie at these places (2,) [m] at once."""
        return True

    def _places(self, rng: np.random.Generator, outside: int) -> list[tuple[float, float]]:
        """Places (x, y) of a scene's things; that of number `outside` beside its region (-1: none)."""
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
        """Stage, 0 to DONE; distance to what comes next [m]; and what is in the way of being done, as a category."""

    # ----------------------------------------------------------------- starts
    def start(self, world: AlohaWorld, rng: np.random.Generator) -> np.ndarray:
        """Puts the arms somewhere; the command (14,) [rad, m] that holds them there (see `AlohaEnv.begin`)."""
        return start_anywhere(world, self, rng)

    def held(self, scene: Scene, rng: np.random.Generator) -> dict[str, int]:
        """Which thing each hand holds in the middle of the task."""
        return {}

    def carried_to(self, side: str) -> np.ndarray:
        """(3,) where the middle of the thing that a hand holds is when it is nearly done [m]."""
        raise NotImplementedError(f"hands of {self.name} hold things in the middle of it, so it has to say where")

    def approach(self, scene: Scene, side: str, handed: bool) -> np.ndarray:
        """4x4 pose of a hand around what it takes; handed: the other hand holds something already."""
        return self.above_table(scene, scene.target, side)

    def above_table(self, scene: Scene, thing: int, side: str) -> np.ndarray:
        """4x4 pose of a hand around a thing of the scene that lies on the table."""
        item = scene.items[thing]
        return hand_pose(side, np.array([item.x, item.y, TAKING_HEIGHT]) + self.grip(side), PITCH)

    def grip(self, side: str) -> np.ndarray:
        """(3,) from the middle of what a hand takes to where it takes it [m]."""
        return np.array([0.0, self.grips[side], 0.0])


def _another_is_up(situation: Situation) -> bool:
    """Whether a hand has the thing that was not named, off the table."""
    other = situation.scene.other
    touched = situation.left.touched[other] + situation.right.touched[other]
    return touched > 0 and not situation.on_table[other] and situation.poses[other][2, 3] > CUBE
