# SPDX-License-Identifier: Apache-2.0
"""Put the spoon on the towel."""

from qwen_vla_sim.widowx.placing import ON_HELD_OUT, ON_INSTRUCTIONS, PlaceTask


class SpoonOnTowel(PlaceTask):
    """The spoon is grasped at its bowl and placed on the towel."""

    name = "spoon_on_towel"
    instructions = ON_INSTRUCTIONS
    held_out_instructions = ON_HELD_OUT
    kind, goal = "spoon", "towel"
