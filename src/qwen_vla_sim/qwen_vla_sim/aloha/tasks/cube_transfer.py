# SPDX-License-Identifier: Apache-2.0
"""Transfer the named cube from the right hand to the left one."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.aloha.bimanual_task import DONE, BimanualTask
from qwen_vla_sim.aloha.grasping import (
    PITCH,
    STANDOFF,
    Goal,
    Goals,
    carry,
    closed_around,
    grasp,
    grip_on_table,
    holds,
)
from qwen_vla_sim.aloha.hands import hand_pose
from qwen_vla_sim.aloha.scene import Scene
from qwen_vla_sim.aloha.situation import Situation

REGION = ((-0.119, -0.2), (0.081, 0.0))
CLEARANCE = 0.095  # [m] between the centers of two cubes: an open finger (48 mm out) passes between them
MEETING = np.array([-0.019, 0.0, 0.19])  # [m] where the cube changes hands
TAKEN_FROM_ABOVE = (0.0, -np.pi / 2)  # pitch and roll [rad] of the left hand


class CubeTransfer(BimanualTask):
    """Done when gym-aloha's reward is 4 and, in addition, both fingers of the left hand touch the cube, not only one.

    Stages are those of that reward.
    """

    name = "cube_transfer"
    instructions = (
        "hand the {color} cube to the left arm",
        "pass the {color} cube to the left hand",
        "give the {color} cube to the left arm",
        "pick up the {color} cube and pass it to the left hand",
    )
    held_out_instructions = (
        "to the left hand pass the {color} cube",
        "the left arm should get the {color} cube",
        "move the {color} cube from the right hand to the left hand",
    )
    kind = "cube"
    regions = (REGION, REGION)
    grips = {"right": -0.010, "left": 0.020}  # each hand holds its own side, so that their fingers stay apart

    def apart(self, first: np.ndarray, second: np.ndarray) -> bool:
        return bool(np.hypot(*np.abs(first - second)) >= CLEARANCE)

    def progress(self, situation: Situation) -> tuple[int, float, str]:
        cube = situation.scene.target
        left, right, lies = (
            situation.left.touched[cube], situation.right.touched[cube], situation.on_table[cube],
        )  # fmt: skip
        taker = situation.left if right and not lies else situation.right
        distance = float(np.linalg.norm(taker.position - situation.target[:3, 3]))
        if left and not lies:
            return (DONE, distance, "") if left == 2 else (3, distance, "touched by the left hand, not taken")
        if left:
            return 3, distance, "on the table between the hands"
        if right and not lies:
            return 2, distance, "lifted, not handed over"
        if right:
            return 1, distance, "touched, not lifted"
        return 0, distance, "not grasped"

    def expert(self, situation: Situation) -> Goals:
        s, cube, place = situation, situation.scene.target, situation.target[:3, 3]
        closed = closed_around(s, cube)
        picks = hand_pose("right", grip_on_table(s, cube, self.grips["right"]), PITCH)
        takes = hand_pose("left", place + [0, self.grips["left"], 0], *TAKEN_FROM_ABOVE)
        waiting = hand_pose("left", MEETING + [0, STANDOFF + 0.03, 0], *TAKEN_FROM_ABOVE)
        if not holds(s, s.right, cube) and not holds(s, s.left, cube):
            return Goals(Goal(waiting, 1.0), grasp(s.right, picks, closed))
        if s.left.touched[cube] == 2 and not s.on_table[cube]:
            return Goals(Goal(s.left.pose, closed), Goal(s.right.pose, 1.0))
        brings = Goal(carry("right", s.right, place, MEETING, PITCH), closed)
        there = np.linalg.norm(place - MEETING) < 0.025
        return Goals(grasp(s.left, takes, closed) if there else Goal(waiting, 1.0), brings)

    def held(self, scene: Scene, rng: np.random.Generator) -> dict[str, int]:
        return {"right": scene.target}

    def carried_to(self, side: str) -> np.ndarray:
        return MEETING

    def approach(self, scene: Scene, side: str, handed: bool) -> np.ndarray:
        if side == "right":
            return super().approach(scene, side, handed)
        return hand_pose(side, MEETING + self.grip(side) + [0, 0.0 if handed else STANDOFF, 0], *TAKEN_FROM_ABOVE)
