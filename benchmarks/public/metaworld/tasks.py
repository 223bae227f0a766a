# SPDX-License-Identifier: Apache-2.0
"""Meta-World's 50 tasks: groups of difficulty as in LeRobot's and SmolVLA's evaluation, and a sentence for each."""

from __future__ import annotations

GROUPS: dict[str, dict[str, str]] = {
    "easy": {
        "button-press-topdown": "press the button from above",
        "button-press-topdown-wall": "reach over the wall and press the button from above",
        "button-press": "press the button",
        "button-press-wall": "reach around the wall and press the button",
        "coffee-button": "press the button of the coffee machine",
        "dial-turn": "turn the dial",
        "door-close": "close the door",
        "door-lock": "lock the door",
        "door-open": "open the door",
        "door-unlock": "unlock the door",
        "drawer-close": "close the drawer",
        "drawer-open": "open the drawer",
        "faucet-close": "close the faucet",
        "faucet-open": "open the faucet",
        "handle-press": "press the handle down",
        "handle-press-side": "press the handle down from the side",
        "handle-pull": "pull the handle up",
        "handle-pull-side": "pull the handle up from the side",
        "lever-pull": "pull the lever up",
        "peg-unplug-side": "pull the peg out of the box",
        "plate-slide": "slide the plate into the goal",
        "plate-slide-back": "slide the plate back out of the goal",
        "plate-slide-back-side": "slide the plate sideways out of the goal",
        "plate-slide-side": "slide the plate sideways into the goal",
        "reach": "reach the goal",
        "reach-wall": "reach the goal behind the wall",
        "window-close": "close the window",
        "window-open": "open the window",
    },
    "medium": {
        "basketball": "put the ball into the basket",
        "bin-picking": "move the cube from one bin into the other",
        "box-close": "put the lid on the box",
        "coffee-pull": "pull the mug away from the coffee machine",
        "coffee-push": "push the mug under the coffee machine",
        "hammer": "hammer the nail into the wall",
        "peg-insert-side": "insert the peg into the hole in the side of the box",
        "push-wall": "push the puck around the wall to the goal",
        "soccer": "kick the ball into the goal",
        "sweep": "sweep the cube off the table",
        "sweep-into": "sweep the cube into the hole",
    },
    "hard": {
        "assembly": "put the ring on the peg",
        "hand-insert": "push the cube into the hole with the hand",
        "pick-out-of-hole": "pick the puck out of the hole",
        "pick-place": "pick up the puck and hold it at the goal",
        "push": "push the puck to the goal",
        "push-back": "push the puck back to the goal",
    },
    "very hard": {
        "shelf-place": "place the cube on the shelf",
        "disassemble": "lift the ring off the peg",
        "stick-pull": "pull the thermos with the stick",
        "stick-push": "push the thermos with the stick",
        "pick-place-wall": "lift the puck over the wall and hold it at the goal",
    },
}
INSTRUCTIONS = {task: sentence for tasks in GROUPS.values() for task, sentence in tasks.items()}
FEW = (  # of all groups, in the proportions of their size as far as ten tasks allow
    "button-press", "door-open", "drawer-close", "reach", "window-open", "coffee-push", "sweep-into", "push",
    "pick-place", "stick-push",
)  # fmt: skip
