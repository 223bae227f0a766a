# SPDX-License-Identifier: Apache-2.0
"""Put the eggplant in the basket."""

from qwen_vla_sim.widowx.placing import PlaceTask


class EggplantInBasket(PlaceTask):
    """The eggplant is dropped into the basket, where it may lie tilted."""

    name = "eggplant_in_basket"
    instructions = (
        "put the {object} in the {goal}",
        "place the {object} in the {goal}",
        "drop the {object} into the {goal}",
        "move the {object} into the {goal}",
        "take the {object} and put it in the {goal}",
        "in the {goal} put the {object}",
    )
    held_out_instructions = (
        "the {object} goes into the {goal}",
        "into the {goal} place the {object}",
        "pick up the {object} and drop it in the {goal}",
    )
    kind, goal = "eggplant", "basket"
    slack = 0.025
