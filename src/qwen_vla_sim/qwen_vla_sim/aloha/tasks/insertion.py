# SPDX-License-Identifier: Apache-2.0
"""Insert the named peg, in the right hand, into the socket, in the left one; they meet in the air."""

from __future__ import annotations

import numpy as np

from qwen_vla_sim.aloha.bimanual_task import DONE, BimanualTask
from qwen_vla_sim.aloha.grasping import PITCH, Goal, Goals, carry, closed_around, grasp, grip_on_table, holds, ramp
from qwen_vla_sim.aloha.hands import SIDES, hand_pose
from qwen_vla_sim.aloha.scene import PEG, PIN, SOCKET, Scene
from qwen_vla_sim.aloha.situation import Situation

PEG_REGION = ((-0.119, -0.2), (0.081, -0.1))
SOCKET_REGION = ((-0.119, 0.1), (0.081, 0.2))
CLEARANCE = 0.085  # [m] between two pegs across their length
SOCKET_PLACE = np.array([-0.019, 0.075, 0.17])  # [m] where the socket waits for the peg
BEFORE, INSIDE = -0.155, -0.085  # [m] from the center of the socket to that of the peg: before it / against the pin
ALIGNED = (0.003, 0.008)  # [m] lateral error at which the peg goes in / waits before the socket


class Insertion(BimanualTask):
    """Done when gym-aloha's reward is 4: the peg touches the pin in the socket. Stages are those of that reward."""

    name = "insertion"
    instructions = (
        "insert the {color} peg into the socket",
        "put the {color} peg into the socket",
        "push the {color} peg into the socket",
        "pick up the {color} peg and put it into the socket",
    )
    held_out_instructions = (
        "into the socket put the {color} peg",
        "the {color} peg goes into the socket",
        "plug the {color} peg in",
    )
    kind = "peg"
    regions = (PEG_REGION, PEG_REGION, SOCKET_REGION)
    more = ((SOCKET, "cyan"),)
    grips = {"right": -0.030, "left": 0.030}  # away from each other

    def apart(self, first: np.ndarray, second: np.ndarray) -> bool:
        return bool(abs(first[0] - second[0]) >= CLEARANCE)

    def progress(self, situation: Situation) -> tuple[int, float, str]:
        peg, socket = situation.scene.target, situation.scene.goal
        held = situation.right.touched[peg] > 0, situation.left.touched[socket] > 0
        up = not situation.on_table[peg], not situation.on_table[socket]
        front, pin = situation.target @ [0, PEG[1] / 2, 0, 1], situation.poses[socket] @ [0, -PIN[1] / 2, 0, 1]
        distance = float(np.linalg.norm((front - pin)[:3]))
        if situation.pin:
            return DONE, distance, ""
        if all(held) and all(up):
            return 2, distance, "both lifted, not inserted"
        if all(held):
            return 1, distance, "grasped, not lifted"
        if any(held):
            return 0, distance, "only the peg grasped" if held[0] else "only the socket grasped"
        return 0, distance, "not grasped"

    def expert(self, situation: Situation) -> Goals:
        s, scene = situation, situation.scene
        peg, socket = s.target[:3, 3], s.poses[scene.goal][:3, 3]
        taken = {"right": scene.target, "left": scene.goal}
        hands = {"right": s.right, "left": s.left}
        has = {side: holds(s, hands[side], taken[side]) for side in SIDES}
        closed = {side: closed_around(s, taken[side]) for side in SIDES}
        goals = {
            side: grasp(
                hands[side], hand_pose(side, grip_on_table(s, taken[side], self.grips[side]), PITCH), closed[side]
            )
            for side in SIDES
        }
        if has["left"]:
            goals["left"] = Goal(carry("left", s.left, socket, SOCKET_PLACE, PITCH), closed["left"])
        if has["right"]:
            waits = np.linalg.norm(socket - SOCKET_PLACE) < 0.03
            aim = socket if waits else SOCKET_PLACE
            place = aim + [0, _gap(peg - aim) if has["left"] and waits else BEFORE, 0]
            goals["right"] = Goal(carry("right", s.right, peg, place, PITCH), closed["right"])
        return Goals(goals["left"], goals["right"])

    def held(self, scene: Scene, rng: np.random.Generator) -> dict[str, int]:
        both = {"right": scene.target, "left": scene.goal}
        alone = str(rng.choice(SIDES))
        return both if rng.random() < 0.6 else {alone: both[alone]}

    def carried_to(self, side: str) -> np.ndarray:
        return SOCKET_PLACE + [0, 0 if side == "left" else BEFORE, 0]

    def approach(self, scene: Scene, side: str, handed: bool) -> np.ndarray:
        return self.above_table(scene, scene.goal if side == "left" else scene.target, side)


def _gap(offset: np.ndarray) -> float:
    """Desired y of the peg relative to the socket [m], from its present `offset` (3,): closer the better aligned."""
    lateral = float(np.hypot(offset[0], offset[2]))
    return BEFORE + (INSIDE - BEFORE) * (1.0 - ramp(lateral, ALIGNED))
