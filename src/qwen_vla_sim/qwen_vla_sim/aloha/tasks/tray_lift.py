# SPDX-License-Identifier: Apache-2.0
"""Lift the named tray with both hands, level."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.aloha.bimanual_task import DONE, BimanualTask
from qwen_vla_sim.aloha.grasping import PITCH, Goal, Goals, closed_around, grasp, grip_on_table, holds
from qwen_vla_sim.aloha.hands import hand_pose
from qwen_vla_sim.aloha.scene import HANDLE
from qwen_vla_sim.aloha.situation import Situation

LIFT = 0.06  # [m] that a tray has to be lifted
LEVEL = 0.35  # [rad] by which it may be tilted meanwhile
GRIP = 0.115  # [m] from the center of a tray to the grip of a hand
HEIGHT, STEP = 0.13, 0.05  # [m] to which it is lifted, and how far above its lower end the hands aim


class TrayLift(BimanualTask):
    """Done when the tray is up and level in both hands. Of two trays, one is near and one far."""

    name = "tray_lift"
    instructions = (
        "lift the {color} tray with both hands",
        "raise the {color} tray with both arms",
        "pick up the {color} tray with both hands",
        "take the {color} tray with both arms and lift it",
    )
    held_out_instructions = (
        "with both hands lift the {color} tray",
        "the {color} tray should go up with both arms",
        "hold up the {color} tray",
    )
    kind = "tray"
    regions = (((-0.13, -0.04), (-0.075, 0.04)), ((0.075, -0.04), (0.13, 0.04)))
    grips = {"left": GRIP, "right": -GRIP}

    def progress(self, situation: Situation) -> tuple[int, float, str]:
        tray = situation.scene.target
        held = [hand.touched[tray] > 0 for hand in (situation.left, situation.right)]
        ends = [(situation.target @ [0, side * GRIP, 0, 1])[:3] for side in (1, -1)]
        hands = (situation.left.position, situation.right.position)
        distance = float(max(np.linalg.norm(hand - end) for hand, end in zip(hands, ends, strict=True)))
        tilt = float(np.arccos(np.clip(situation.target[2, 2], -1, 1)))
        if not all(held):
            return 0, distance, "one hand only" if any(held) else "not grasped"
        if situation.on_table[tray]:
            return 1, distance, "grasped, not lifted"
        if tilt > LEVEL:
            return 2, distance, "tilted"
        if _height(situation) < LIFT:
            return 3, distance, "not lifted high enough"
        return DONE, distance, ""

    def expert(self, situation: Situation) -> Goals:
        s, tray = situation, situation.scene.target
        ends = {side: (s.target @ [0, along, 0, 1])[:3] for side, along in self.grips.items()}
        hands, closed = {"left": s.left, "right": s.right}, closed_around(s, tray)
        has = {side: holds(s, hand, tray) for side, hand in hands.items()}
        if not all(has.values()):
            goals = {
                side: Goal(hands[side].pose, closed)
                if has[side]
                else grasp(hands[side], hand_pose(side, grip_on_table(s, tray, self.grips[side]), PITCH), closed)
                for side in hands
            }
            return Goals(goals["left"], goals["right"])
        height = min(min(end[2] for end in ends.values()) + STEP, HEIGHT)
        up = {
            side: Goal(hand_pose(side, hands[side].position + [0, 0, height - ends[side][2]], PITCH), closed)
            for side in hands
        }
        return Goals(up["left"], up["right"])


def _height(situation: Situation) -> float:
    """Height of the named tray above its initial one [m], measured at its lower handle."""
    ends = [(situation.target @ [0, side * GRIP, 0, 1])[2] for side in (-1, 1)]
    return float(min(ends) - situation.scene.items[situation.scene.target].scale * HANDLE[2] / 2)
