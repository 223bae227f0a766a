"""When a bimanual task is done, how far it has come, and what is in its way.

`cube_transfer` and `insertion` are done when gym-aloha's reward is 4, with one word more for the cube: both fingers of
the left hand have it, not one. `stage` counts as that reward does: 0 to 4.
"""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.aloha.scene import CUBE, GRIP, PEG, PIN
from qwen_vla_sim.aloha.situation import Situation
from qwen_vla_sim.task import TaskState

LIFT = 0.06  # [m] that a tray has to be lifted
LEVEL = 0.35  # [rad] by which it may be tilted meanwhile
DONE = 4


def judge(state: Situation) -> TaskState:
    """The task of the scene as it stands."""
    scene = state.scene
    stage, distance, failure = _JUDGES[scene.task](state)
    if stage < DONE and _another_is_up(state):
        failure = f"another {scene.items[scene.target].kind} taken"
    if state.target[2, 3] < -0.05:
        failure = "off the table"
    return TaskState(
        instruction=scene.instruction,
        task=scene.task,
        target=scene.items[scene.target].name,
        success=stage == DONE,
        distance=distance,
        failure="" if stage == DONE else failure,
        metrics={"stage": float(stage)},
    )


def tray_height(state: Situation) -> float:
    """How far the named tray is above where it lay [m]; its lower handle counts."""
    pose = state.target
    ends = [(pose @ [0, side * GRIP, 0, 1])[2] for side in (-1, 1)]
    return float(min(ends) - state.scene.items[state.scene.target].scale * 0.013)


def _transfer(state: Situation) -> tuple[int, float, str]:
    cube = state.scene.target
    left, right, lies = state.left.touched[cube], state.right.touched[cube], state.on_table[cube]
    taker = state.left if right and not lies else state.right
    distance = float(np.linalg.norm(taker.position - state.target[:3, 3]))
    if left and not lies:
        return (DONE, distance, "") if left == 2 else (3, distance, "touched by the left hand, not taken")
    if left:
        return 3, distance, "on the table between the hands"
    if right and not lies:
        return 2, distance, "lifted, not handed over"
    if right:
        return 1, distance, "touched, not lifted"
    return 0, distance, "not grasped"


def _insert(state: Situation) -> tuple[int, float, str]:
    peg, socket = state.scene.target, state.scene.goal
    held = state.right.touched[peg] > 0, state.left.touched[socket] > 0
    up = not state.on_table[peg], not state.on_table[socket]
    front, pin = state.target @ [0, PEG[1] / 2, 0, 1], state.poses[socket] @ [0, -PIN[1] / 2, 0, 1]
    distance = float(np.linalg.norm((front - pin)[:3]))
    if state.pin:
        return DONE, distance, ""
    if all(held) and all(up):
        return 2, distance, "both lifted, not inserted"
    if all(held):
        return 1, distance, "grasped, not lifted"
    if any(held):
        return 0, distance, "only the peg grasped" if held[0] else "only the socket grasped"
    return 0, distance, "not grasped"


def _lift_tray(state: Situation) -> tuple[int, float, str]:
    tray = state.scene.target
    held = [hand.touched[tray] > 0 for hand in (state.left, state.right)]
    ends = [(state.target @ [0, side * GRIP, 0, 1])[:3] for side in (1, -1)]
    hands = (state.left.position, state.right.position)
    distance = float(max(np.linalg.norm(hand - end) for hand, end in zip(hands, ends, strict=True)))
    tilt = float(np.arccos(np.clip(state.target[2, 2], -1, 1)))
    if not all(held):
        return 0, distance, "one hand only" if any(held) else "not grasped"
    if state.on_table[tray]:
        return 1, distance, "grasped, not lifted"
    if tilt > LEVEL:
        return 2, distance, "tilted"
    if tray_height(state) < LIFT:
        return 3, distance, "not lifted high enough"
    return DONE, distance, ""


def _another_is_up(state: Situation) -> bool:
    """Whether a hand has the thing that was not named, off the table."""
    other = state.scene.other
    touched = state.left.touched[other] + state.right.touched[other]
    return touched > 0 and not state.on_table[other] and state.poses[other][2, 3] > CUBE


_JUDGES = {"cube_transfer": _transfer, "insertion": _insert, "tray_lift": _lift_tray}
