"""Scripted expert for the bimanual tasks: where the hands should go now, from the present situation alone.

It can take over anywhere: hands approach what they grasp through a funnel along their fingers, close when they are
around it, and go on with the next part of the task when what they hold, and where it is, says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.aloha.hands import hand_pose, opening_at
from qwen_vla_sim.aloha.scene import GRIP
from qwen_vla_sim.aloha.situation import Hand, Situation

PITCH = np.radians(60.0)  # a hand that takes something from the table looks down by this much
FUNNEL = (0.008, 0.035)  # [m] sideways error at which a hand may be at its grip / must be STANDOFF before it
STANDOFF = 0.09  # [m] along the fingers: their ends are then above everything that lies on the table
LOST = 0.05  # [m] sideways error at which a low hand first moves back
AROUND = (0.011, 0.009)  # [m] sideways and lengthwise error at which a hand closes
ARM_LENGTH = 0.06  # [m/rad] what a wrong orientation counts as sideways error
# [m] that fingers are told to close further than what they hold is wide: 4 N. Told to close wholly, the two hands at
# the cube would pass through each other as far as the gate can know.
SQUEEZE = 0.008
OPEN_ENOUGH = 0.75  # opening needed to go over something
# [m] height of a hand that takes something from the table: high enough to keep the ends of its fingers (14 mm below)
# off the table, low enough to hold on
GRIP_HEIGHTS = {"cube": 0.034, "peg": 0.022, "socket": 0.038, "tray": 0.030}
CUBE_GRIPS = {"right": -0.010, "left": 0.020}  # [m] along y: each hand holds its own side, so their fingers stay apart
MEETING = np.array([-0.019, 0.0, 0.19])  # where the cube changes hands
CLEAR = (0.030, 0.070)  # [m] heights between which a thing that was lifted begins to move sideways
SOCKET_PLACE = np.array([-0.019, 0.075, 0.17])  # where the socket waits for the peg
PEG_GRIP, SOCKET_GRIP = -0.030, 0.030  # [m] along peg and socket, from their middles: away from each other
BEFORE, INSIDE = -0.155, -0.085  # [m] from the middle of the socket to that of the peg: before it, and against the pin
ALIGNED = (0.003, 0.008)  # [m] sideways error at which the peg goes in / waits before the socket
TRAY_HEIGHT, TRAY_STEP = 0.13, 0.05  # [m] to which a tray is lifted, and how far above its lower end the hands aim


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


def expert_goals(state: Situation) -> Goals:
    """What the hands should do now, from the present situation alone."""
    return _TASKS[state.scene.task](state)


def _transfer(state: Situation) -> Goals:
    cube, place, closed = state.scene.target, state.target[:3, 3], _closed(state, state.scene.target)
    picks = hand_pose("right", _on_table(state, cube, CUBE_GRIPS["right"]), PITCH)
    takes = hand_pose("left", place + [0, CUBE_GRIPS["left"], 0], 0.0, -np.pi / 2)
    waiting = hand_pose("left", MEETING + [0, STANDOFF + 0.03, 0], 0.0, -np.pi / 2)
    if not _has(state, state.right, cube) and not _has(state, state.left, cube):
        return Goals(Goal(waiting, 1.0), _grasp(state.right, picks, closed))
    if state.left.touched[cube] == 2 and not state.on_table[cube]:
        return Goals(Goal(state.left.pose, closed), Goal(state.right.pose, 1.0))
    carry = Goal(_carry("right", state.right, place, MEETING, PITCH), closed)
    there = np.linalg.norm(place - MEETING) < 0.025
    return Goals(_grasp(state.left, takes, closed) if there else Goal(waiting, 1.0), carry)


def _insert(state: Situation) -> Goals:
    peg, socket = state.target, state.poses[state.scene.goal]
    has_peg = _has(state, state.right, state.scene.target)
    has_socket = _has(state, state.left, state.scene.goal)
    closed = {"right": _closed(state, state.scene.target), "left": _closed(state, state.scene.goal)}
    grips = {
        "right": hand_pose("right", _on_table(state, state.scene.target, PEG_GRIP), PITCH),
        "left": hand_pose("left", _on_table(state, state.scene.goal, SOCKET_GRIP), PITCH),
    }
    right = _grasp(state.right, grips["right"], closed["right"])
    left = _grasp(state.left, grips["left"], closed["left"])
    if has_socket:
        left = Goal(_carry("left", state.left, socket[:3, 3], SOCKET_PLACE, PITCH), closed["left"])
    if has_peg:
        waits = np.linalg.norm(socket[:3, 3] - SOCKET_PLACE) < 0.03
        aim = socket[:3, 3] if waits else SOCKET_PLACE
        place = aim + [0, _gap(peg[:3, 3] - aim) if has_socket and waits else BEFORE, 0]
        right = Goal(_carry("right", state.right, peg[:3, 3], place, PITCH), closed["right"])
    return Goals(left, right)


def _gap(offset: np.ndarray) -> float:
    """How far before the socket [m] the peg should be that lies `offset` from it: nearer the better it is aligned."""
    sideways = float(np.hypot(offset[0], offset[2]))
    return BEFORE + (INSIDE - BEFORE) * (1.0 - _ramp(sideways, ALIGNED))


def _lift_tray(state: Situation) -> Goals:
    tray = state.scene.target
    grips = {"left": GRIP, "right": -GRIP}
    ends = {side: (state.target @ [0, along, 0, 1])[:3] for side, along in grips.items()}
    hands, closed = {"left": state.left, "right": state.right}, _closed(state, tray)
    if not all(_has(state, hand, tray) for hand in hands.values()):
        goals = {
            side: Goal(hands[side].pose, closed)
            if _has(state, hands[side], tray)
            else _grasp(hands[side], hand_pose(side, _on_table(state, tray, grips[side]), PITCH), closed)
            for side in hands
        }
        return Goals(goals["left"], goals["right"])
    height = min(min(end[2] for end in ends.values()) + TRAY_STEP, TRAY_HEIGHT)
    up = {
        side: Goal(hand_pose(side, hands[side].position + [0, 0, height - ends[side][2]], PITCH), closed)
        for side in hands
    }
    return Goals(up["left"], up["right"])


def _grasp(hand: Hand, grip: np.ndarray, closed: float) -> Goal:
    """Bring an open hand around a grip (4x4 pose), along its fingers, and close it there."""
    offset = grip[:3, :3].T @ (hand.position - grip[:3, 3])
    turned = np.arccos(np.clip((np.trace(grip[:3, :3].T @ hand.pose[:3, :3]) - 1) / 2, -1, 1))
    sideways = float(np.hypot(offset[1], offset[2])) + ARM_LENGTH * float(turned)
    if sideways < AROUND[0] and abs(offset[0]) < AROUND[1]:
        return Goal(grip, closed)
    if offset[0] > -0.6 * STANDOFF and (sideways > LOST or hand.opening < OPEN_ENOUGH):
        return Goal(_shifted(hand.pose, -0.08), 1.0)
    standoff = STANDOFF * (1.0 if hand.opening < OPEN_ENOUGH else _ramp(sideways, FUNNEL))
    return Goal(_shifted(grip, -standoff), 1.0)


def _carry(side: str, hand: Hand, place: np.ndarray, goal: np.ndarray, pitch: float) -> np.ndarray:
    """Hand pose that brings the thing it holds, now at `place`, to `goal` [m]: up first, then sideways as well."""
    way = goal - place
    way[:2] *= 1.0 - _ramp(CLEAR[1] - place[2], (0.0, CLEAR[1] - CLEAR[0]))
    return hand_pose(side, hand.position + way, pitch)


def _closed(state: Situation, thing: int) -> float:
    """Opening of a hand that is told to hold a thing."""
    return opening_at(state.scene.items[thing].width - SQUEEZE)


def _has(state: Situation, hand: Hand, thing: int) -> bool:
    """Whether a hand holds a thing: between both fingers, or still at one of them in the air."""
    touched = hand.touched[thing]
    return touched == 2 or (touched == 1 and not state.on_table[thing] and hand.opening < OPEN_ENOUGH)


def _on_table(state: Situation, thing: int, along: float) -> np.ndarray:
    """Where a hand takes a thing: `along` [m] its y axis from its middle, and not too near the table."""
    grip = (state.poses[thing] @ [0, along, 0, 1])[:3]
    grip[2] = max(grip[2], GRIP_HEIGHTS[state.scene.items[thing].kind])
    return grip


def _shifted(pose: np.ndarray, way: float) -> np.ndarray:
    """A hand pose moved along its fingers [m]."""
    shifted = pose.copy()
    shifted[:3, 3] += way * pose[:3, 0]
    return shifted


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second on."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))


_TASKS: dict[str, Callable[[Situation], Goals]] = {
    "cube_transfer": _transfer,
    "insertion": _insert,
    "tray_lift": _lift_tray,
}
