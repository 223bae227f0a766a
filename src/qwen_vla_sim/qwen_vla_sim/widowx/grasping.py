# SPDX-License-Identifier: Apache-2.0
"""Motions of experts: functions of the current state only, so that they can take over anywhere.

From any pose, `pick_step` rises, moves above the thing, descends through a funnel, closes, and lifts. `place_step`
continues from there: over the goal, down through a funnel, opens, and rises; a lost thing is picked up again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_sim.widowx.things import GRASP_HEIGHT

HOVER_HEIGHT = 0.090  # fingertips 35 mm above the cubes [m]
CARRY_HEIGHT = 0.105  # a held thing clears everything on the table [m]
LIFT_HEIGHT = 0.150
FUNNEL = (0.006, 0.022)  # lateral error [m] at which the tip may be at grasp height / must be at hover height
ALIGNED = 0.010  # lateral error [m] and height error at which the gripper closes
IN_GRIP = 0.022  # [m] from the tip to the thing's grip point
RELEASE_ALIGNED = 0.008  # lateral error [m] at which the gripper opens over the goal
RELEASE_SLACK = 0.006  # [m] above the height of release
MAX_STEP = 0.045  # [m] per control step: 0.225 m/s at 5 Hz
APPROACH = 0.6  # share of the remaining distance covered per step, so that the arm slows down as it arrives
OPEN_ENOUGH = 0.8  # gripper fraction needed to descend over a thing
HELD_FRACTION = 0.45  # a 40 mm cube stops the fingers at fraction 0.23


@dataclass(frozen=True)
class Step:
    """Tip target in base_link (position [m]; the orientation never changes) and gripper 0 closed … 1 open."""

    position: np.ndarray
    gripper: float


def pick_step(tip: np.ndarray, gripper: float, thing: np.ndarray, height: float = GRASP_HEIGHT) -> Step:
    """Next target for lifting a thing.

    Args:
        tip: (3,) of the gripper in base_link [m].
        gripper: measured fraction.
        thing: (3,) the tip's position when it holds the thing [m].
        height: of the tip when the gripper closes [m].
    """
    lateral = float(np.linalg.norm(tip[:2] - thing[:2]))
    if holds(tip, gripper, thing):
        return Step(toward(tip, np.array([tip[0], tip[1], LIFT_HEIGHT])), 0.0)
    around = lateral < ALIGNED and tip[2] < height + ALIGNED and np.linalg.norm(tip - thing) < IN_GRIP
    if around and (gripper > OPEN_ENOUGH or gripper < HELD_FRACTION + 0.3):
        return Step(tip.copy(), 0.0)
    if lateral > FUNNEL[1] and tip[2] < HOVER_HEIGHT - 0.02:
        return Step(toward(tip, np.array([tip[0], tip[1], HOVER_HEIGHT + 0.01])), 1.0)
    goal = funnel(lateral, height, HOVER_HEIGHT)
    if gripper < OPEN_ENOUGH:
        goal = max(goal, min(tip[2], HOVER_HEIGHT))
    return Step(toward(tip, np.array([thing[0], thing[1], goal])), 1.0)


def place_step(tip: np.ndarray, gripper: float, thing: np.ndarray, goal: np.ndarray, settled: bool) -> Step:
    """Next target for bringing a thing to its goal.

    Args:
        tip, gripper, thing: as for `pick_step`.
        goal: (3,) position of `thing` at which the gripper opens [m].
        settled: the thing is on or in its goal, or would fall into it.
    """
    held = holds(tip, gripper, thing)
    if settled and not held:
        risen = tip.copy() if gripper < OPEN_ENOUGH else np.array([tip[0], tip[1], CARRY_HEIGHT])
        return Step(toward(tip, risen), 1.0)
    if not held:
        return pick_step(tip, gripper, thing, max(GRASP_HEIGHT, thing[2]))
    displacement = goal - thing
    lateral = float(np.linalg.norm(displacement[:2]))
    if lateral < RELEASE_ALIGNED and -displacement[2] < RELEASE_SLACK:
        return Step(tip.copy(), 1.0)
    if lateral > FUNNEL[1] and tip[2] < CARRY_HEIGHT - 0.02:
        return Step(toward(tip, np.array([tip[0], tip[1], CARRY_HEIGHT + 0.01])), 0.0)
    height = funnel(lateral, tip[2] + displacement[2], CARRY_HEIGHT)
    return Step(toward(tip, np.array([tip[0] + displacement[0], tip[1] + displacement[1], height])), 0.0)


def holds(tip: np.ndarray, gripper: float, thing: np.ndarray) -> bool:
    """Whether the fingers have closed on the thing."""
    return bool(gripper < HELD_FRACTION and np.linalg.norm(tip - thing) < IN_GRIP)


def funnel(lateral: float, low: float, high: float) -> float:
    """Height for a lateral error: `low` if it is small, `high` if it is large."""
    depth = np.clip((lateral - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]), 0, 1)
    return float(low + depth * (high - low))


def toward(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """One step toward a goal: decelerating, at most MAX_STEP, the last 8 mm at once."""
    displacement = goal - start
    distance = np.linalg.norm(displacement)
    if distance < 0.008:
        return goal
    return start + displacement * min(APPROACH, MAX_STEP / distance)
