# SPDX-License-Identifier: Apache-2.0
"""Go to the named thing, which is on the side of the wall where the base starts."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.mobile_base.driving import Aim, aim_at
from qwen_vla_sim.mobile_base.driving_task import DrivingTask
from qwen_vla_sim.mobile_base.scene import IN_HALL, IN_ROOM
from qwen_vla_sim.mobile_base.situation import Situation


class GoToObject(DrivingTask):
    """One leg, in the room or in the hall."""

    name = "go_to_object"
    instructions = (
        "go to the {thing}",
        "drive to the {thing}",
        "move to the {thing}",
        "find the {thing} and stop there",
    )
    held_out_instructions = (
        "to the {thing}, go",
        "drive until the {thing} is there",
        "stop in front of the {thing}",
    )
    leads_through_door = False

    def target(self, rng: np.random.Generator) -> int:
        hall = rng.random() < 0.35
        return int(rng.integers(IN_ROOM, IN_ROOM + IN_HALL) if hall else rng.integers(IN_ROOM))

    def expert(self, situation: Situation) -> Aim:
        return aim_at(situation, situation.scene.target)
