# SPDX-License-Identifier: Apache-2.0
"""Leave the room, then go to the named thing in the hall."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.mobile_base.driving import PAST_MAT, Aim, aim_at, on_doorstep
from qwen_vla_sim.mobile_base.driving_task import DrivingTask
from qwen_vla_sim.mobile_base.scene import IN_HALL, IN_ROOM
from qwen_vla_sim.mobile_base.situation import Situation


class TwoLegs(DrivingTask):
    """Two legs: the current one depends on whether the base is in the room or in the hall."""

    name = "two_legs"
    instructions = (
        "leave the room, then go to the {thing}",
        "go out of the room and drive to the {thing}",
        "drive through the door, then find the {thing}",
        "leave the room and stop at the {thing}",
    )
    held_out_instructions = (
        "go to the {thing} when out of the room",
        "out through the door, and then to the {thing}",
        "the {thing} is outside, drive there",
    )

    def target(self, rng: np.random.Generator) -> int:
        return int(rng.integers(IN_ROOM, IN_ROOM + IN_HALL))

    def expert(self, situation: Situation) -> Aim:
        x, target = situation.pose[0], situation.scene.target
        here_to_stay = x > PAST_MAT or (x > 0 and (situation.in_view(target) or not on_doorstep(situation)))
        return aim_at(situation, target if here_to_stay else None)
