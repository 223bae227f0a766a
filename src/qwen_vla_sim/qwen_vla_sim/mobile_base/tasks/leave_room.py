# SPDX-License-Identifier: Apache-2.0
"""Leave the room through its door, and stop in the hall."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.mobile_base.driving import PAST_MAT, Aim, aim_at
from qwen_vla_sim.mobile_base.driving_task import DrivingTask
from qwen_vla_sim.mobile_base.scene import IN_ROOM, Scene
from qwen_vla_sim.mobile_base.situation import Situation
from qwen_vla_sim.mobile_base.tasks.go_to_object import GoToObject


class LeaveRoom(DrivingTask):
    """One leg, to the other side of the door."""

    name = "leave_room"
    instructions = (
        "leave the room",
        "go out of the room",
        "drive through the door",
        "leave through the door and stop",
    )
    held_out_instructions = (
        "out of the room, through the door",
        "get out of this room",
        "find the door and go out",
    )

    def target(self, rng: np.random.Generator) -> None:
        return None

    def expert(self, situation: Situation) -> Aim:
        return Aim("stop", None) if situation.pose[0] > PAST_MAT else aim_at(situation, None)

    def other_instruction(self, scene: Scene, seed: int) -> str:
        """Go to a thing in the room instead of leaving it."""
        template = GoToObject.instructions[scene.seed % len(GoToObject.instructions)]
        return template.format(thing=scene.things[seed % IN_ROOM].name)
