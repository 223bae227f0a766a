# SPDX-License-Identifier: Apache-2.0
"""Pick up the cube of the color that the instruction names."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.task import TaskState
from qwen_vla_sim.widowx.grasping import Step, pick_step
from qwen_vla_sim.widowx.scene import SLOTS, Choice
from qwen_vla_sim.widowx.situation import Situation
from qwen_vla_sim.widowx.tabletop_task import TabletopTask

LIFTED = 0.05  # [m] above its rest height: picked up
LIFTED_WELL = 0.09  # [m] where a demonstration ends
HELD = 0.035  # [m] from the gripper tip to the center of the cube: in the gripper


class PickCube(TabletopTask):
    """One of three cubes is lifted."""

    name = "pick_cube"
    instructions = (
        "pick up the {color} cube",
        "lift the {color} cube",
        "grab the {color} block",
        "take the {color} cube off the table",
    )
    held_out_instructions = (
        "pick the {color} block up",
        "off the table lift the {color} cube",
        "take the {color} block and lift it",
    )
    kinds = ("cube",)

    def choose(self, rng: np.random.Generator) -> Choice:
        return Choice(["cube"] * SLOTS, int(rng.permutation(SLOTS).argmin()))

    def expert(self, situation: Situation) -> Step:
        return pick_step(situation.tip, situation.gripper, situation.grip)

    def judge(self, situation: Situation) -> TaskState:
        scene, target = situation.scene, situation.scene.target
        distance = float(np.linalg.norm(situation.positions[target] - situation.tip))
        grasped = distance < HELD and situation.lift > 0.01
        success = grasped and situation.lift > LIFTED
        failure = ""
        if not success:
            lifts = situation.positions[:, 2] - [thing.design.rest for thing in scene.things]
            another = any(lifts[other] > LIFTED for other in range(len(lifts)) if other != target)
            failure = "held, not lifted" if grasped else "another thing lifted" if another else "not grasped"
        return TaskState(
            instruction=scene.instruction,
            task=self.name,
            target=scene.named.name,
            success=success,
            distance=distance,
            failure=failure,
            metrics={"lift": situation.lift, "grasped": float(grasped)},
        )

    def shown(self, state: TaskState) -> bool:
        return state.success and state.metrics["lift"] > LIFTED_WELL
