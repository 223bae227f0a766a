# SPDX-License-Identifier: Apache-2.0
"""Motions of bimanual experts: from the current state to the next goal of a hand that grasps, holds or carries.

Hands approach what they grasp through a funnel along their fingers, close when they are around it, and continue
depending on what they hold and where it is: an expert built from these can take over anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.aloha.hands import hand_pose, opening_at
from qwen_vla_sim.aloha.situation import Hand, Situation

PITCH = np.radians(60.0)  # downward pitch of a hand that grasps something on the table
FUNNEL = (0.008, 0.035)  # [m] lateral error at which a hand may be at its grip / must be STANDOFF before it
STANDOFF = 0.09  # [m] along the fingers: their tips are then above everything on the table
LOST = 0.05  # [m] lateral error at which a low hand first moves back
AROUND = (0.011, 0.009)  # [m] lateral and lengthwise error at which a hand closes
ARM_LENGTH = 0.06  # [m/rad] weight of an orientation error as a lateral error
# [m] by which the commanded gap is smaller than the width of what is held: 4 N. Commanded to close fully, the two hands
# at the cube would collide as far as the gate can tell.
SQUEEZE = 0.008
OPEN_ENOUGH = 0.75  # opening needed to move over something
# [m] height of a hand that grasps something on the table: high enough to keep its fingertips (14 mm below) off the
# table, low enough for a firm grasp
GRIP_HEIGHTS = {"cube": 0.034, "peg": 0.022, "socket": 0.038, "tray": 0.030}
CLEAR = (0.030, 0.070)  # [m] heights between which a lifted thing begins to move sideways


@dataclass(frozen=True)
class Goal:
    """Where a hand should go: 4x4 pose (see `hand_pose`) and opening 0 closed .. 1 open."""

    pose: np.ndarray
    opening: float


@dataclass(frozen=True)
class Goals:
    """What both hands should do now."""

    left: Goal
    right: Goal


def grasp(hand: Hand, grip: np.ndarray, closed: float) -> Goal:
    """Bring an open hand around a grip (4x4 pose), along its fingers, and close it there."""
    offset = grip[:3, :3].T @ (hand.position - grip[:3, 3])
    angle = np.arccos(np.clip((np.trace(grip[:3, :3].T @ hand.pose[:3, :3]) - 1) / 2, -1, 1))
    lateral = float(np.hypot(offset[1], offset[2])) + ARM_LENGTH * float(angle)
    if lateral < AROUND[0] and abs(offset[0]) < AROUND[1]:
        return Goal(grip, closed)
    if offset[0] > -0.6 * STANDOFF and (lateral > LOST or hand.opening < OPEN_ENOUGH):
        return Goal(shifted(hand.pose, -0.08), 1.0)
    standoff = STANDOFF * (1.0 if hand.opening < OPEN_ENOUGH else ramp(lateral, FUNNEL))
    return Goal(shifted(grip, -standoff), 1.0)


def carry(side: str, hand: Hand, place: np.ndarray, goal: np.ndarray, pitch: float) -> np.ndarray:
    """Hand pose that brings the thing it holds, now at `place`, to `goal` [m]: first up, then also sideways."""
    displacement = goal - place
    displacement[:2] *= 1.0 - ramp(CLEAR[1] - place[2], (0.0, CLEAR[1] - CLEAR[0]))
    return hand_pose(side, hand.position + displacement, pitch)


def closed_around(state: Situation, thing: int) -> float:
    """Commanded opening of a hand that holds a thing."""
    return opening_at(state.scene.items[thing].width - SQUEEZE)


def holds(state: Situation, hand: Hand, thing: int) -> bool:
    """Whether a hand holds a thing: both fingers touch it, or one does and it is in the air."""
    touched = hand.touched[thing]
    return touched == 2 or (touched == 1 and not state.on_table[thing] and hand.opening < OPEN_ENOUGH)


def grip_on_table(state: Situation, thing: int, along: float) -> np.ndarray:
    """Grip of a hand on a thing (3,) [m]: `along` [m] its y axis from its center, and not too close to the table."""
    grip = (state.poses[thing] @ [0, along, 0, 1])[:3]
    grip[2] = max(grip[2], GRIP_HEIGHTS[state.scene.items[thing].kind])
    return grip


def shifted(pose: np.ndarray, distance: float) -> np.ndarray:
    """A hand pose moved along its fingers by `distance` [m]."""
    moved = pose.copy()
    moved[:3, 3] += distance * pose[:3, 0]
    return moved


def ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second on."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))
