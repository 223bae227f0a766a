"""The tasks on the WidowX's table and their sentences: those trained on, and others held out of training."""

from __future__ import annotations

from dataclasses import dataclass

ON_SENTENCES = (
    "put the {object} on the {goal}",
    "place the {object} on the {goal}",
    "move the {object} onto the {goal}",
    "set the {object} down on the {goal}",
    "take the {object} and put it on the {goal}",
    "on the {goal} put the {object}",
)
ON_HELD_OUT = (
    "the {object} goes onto the {goal}",
    "onto the {goal} place the {object}",
    "pick up the {object} and set it down on the {goal}",
)
IN_SENTENCES = (
    "put the {object} in the {goal}",
    "place the {object} in the {goal}",
    "drop the {object} into the {goal}",
    "move the {object} into the {goal}",
    "take the {object} and put it in the {goal}",
    "in the {goal} put the {object}",
)
IN_HELD_OUT = (
    "the {object} goes into the {goal}",
    "into the {goal} place the {object}",
    "pick up the {object} and drop it in the {goal}",
)
STACK_SENTENCES = (
    "stack the {object} on the {goal}",
    "put the {object} on the {goal}",
    "put the {object} on top of the {goal}",
    "place the {object} on the {goal}",
    "take the {object} and stack it on the {goal}",
    "on the {goal} put the {object}",
)
STACK_HELD_OUT = (
    "the {object} goes on top of the {goal}",
    "on top of the {goal} place the {object}",
    "pick up the {object} and stack it on top of the {goal}",
)
PICK_SENTENCES = (
    "pick up the {colour} cube",
    "lift the {colour} cube",
    "grab the {colour} block",
    "take the {colour} cube off the table",
)
PICK_HELD_OUT = (
    "pick the {colour} block up",
    "off the table lift the {colour} cube",
    "take the {colour} block and lift it",
)


@dataclass(frozen=True)
class Task:
    """What is moved (a kind) and where to (a kind; None: only up), and how one says so."""

    name: str
    kind: str
    goal: str | None
    sentences: tuple[str, ...]
    held_out: tuple[str, ...]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("spoon_on_towel", "spoon", "towel", ON_SENTENCES, ON_HELD_OUT),
        Task("carrot_on_plate", "carrot", "plate", ON_SENTENCES, ON_HELD_OUT),
        Task("stack_cube", "cube", "cube", STACK_SENTENCES, STACK_HELD_OUT),
        Task("eggplant_in_basket", "eggplant", "basket", IN_SENTENCES, IN_HELD_OUT),
        Task("pick_cube", "cube", None, PICK_SENTENCES, PICK_HELD_OUT),
    )
}
