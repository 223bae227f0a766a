# SPDX-License-Identifier: Apache-2.0
"""Put the carrot on the plate."""

from qwen_vla_sim.widowx.placing import ON_HELD_OUT, ON_INSTRUCTIONS, PlaceTask


class CarrotOnPlate(PlaceTask):
    """The carrot is grasped at its thick end and placed on the plate, not on its rim."""

    name = "carrot_on_plate"
    instructions = ON_INSTRUCTIONS
    held_out_instructions = ON_HELD_OUT
    kind, goal = "carrot", "plate"
