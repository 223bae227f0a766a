# SPDX-License-Identifier: Apache-2.0
"""Stack one cube on another; the instruction names both by their colors."""

from qwen_vla_sim.widowx.placing import PlaceTask


class StackCube(PlaceTask):
    """One of three cubes is put on a second one."""

    name = "stack_cube"
    instructions = (
        "stack the {object} on the {goal}",
        "put the {object} on the {goal}",
        "put the {object} on top of the {goal}",
        "place the {object} on the {goal}",
        "take the {object} and stack it on the {goal}",
        "on the {goal} put the {object}",
    )
    held_out_instructions = (
        "the {object} goes on top of the {goal}",
        "on top of the {goal} place the {object}",
        "pick up the {object} and stack it on top of the {goal}",
    )
    kind, goal = "cube", "cube"
    most_spare_things = 1
