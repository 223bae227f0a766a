# SPDX-License-Identifier: Apache-2.0
"""How the scripted expert does the four tasks, in the robot's root frame, by actions of mani_skill's controller."""

from __future__ import annotations

import numpy as np

from benchmarks.public.protocol.disturbance import Disturbances
from benchmarks.public.protocol.pick_and_place import Grasp, Pace

PACE = Pace(
    step=0.040, slow_step=0.025, turn=0.25, gain=1.0, above=0.07, near=0.012, close_by=0.006, held=0.045,
    closing=4, opening=3, descent=6, carrying=12, withdrawal=4,
)  # fmt: skip
# [rad] Where the hand could turn either way, a policy learns neither: halfway between along and across the table, where
# few things lie.
TURN = -np.pi / 4
GRASPS = {
    "carrot_on_plate": Grasp(0.022, 0.08, 0.03, turn=TURN),
    "spoon_on_towel": Grasp(0.020, 0.07, 0.02, along=0.03, turn=TURN),
    "stack_cube": Grasp(0.018, 0.09, 0.036, across=False, quarter=True),
    "eggplant_in_basket": Grasp(None, 0.13, 0.07),
}
DISTURBANCES = Disturbances(share=0.10, length=(1, 4), longer=(2, 6), push=0.018, twist=0.12)
