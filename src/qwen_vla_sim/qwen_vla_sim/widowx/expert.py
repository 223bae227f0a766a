"""Scripted expert for picking one cube: a function of the present state only, so that it can take over anywhere.

From whatever pose it is asked, it rises, moves above the cube, descends through a funnel, closes, and lifts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GRASP_HEIGHT = 0.020  # tip at the cube's centre [m]
HOVER_HEIGHT = 0.090  # finger tips 35 mm above the cubes [m]
LIFT_HEIGHT = 0.150
FUNNEL = (0.006, 0.022)  # lateral error [m] at which the tip may be at grasp height / must be at hover height
ALIGNED = 0.010  # lateral error [m] and height error at which the gripper closes
MAX_STEP = 0.045  # [m] per control step: 0.225 m/s at 5 Hz
APPROACH = 0.6  # share of the remaining way covered per step, so that the arm slows down as it arrives
OPEN_ENOUGH = 0.8  # gripper fraction needed to go down over a cube
HELD_FRACTION = 0.45  # a 40 mm cube stops the fingers at fraction 0.23


@dataclass(frozen=True)
class Step:
    """Tip target in base_link (position [m]; orientation is always the given one) and gripper 0 closed … 1 open."""

    position: np.ndarray
    gripper: float


def expert_step(tip: np.ndarray, gripper: float, cube: np.ndarray) -> Step:
    """Next target from the tip (3,) and the cube's centre (3,), base_link [m], and the measured gripper fraction."""
    lateral = float(np.linalg.norm(tip[:2] - cube[:2]))
    holding = gripper < HELD_FRACTION and np.linalg.norm(tip - cube) < 0.022
    if holding:
        return Step(_towards(tip, np.array([tip[0], tip[1], LIFT_HEIGHT])), 0.0)
    around_the_cube = lateral < ALIGNED and tip[2] < GRASP_HEIGHT + ALIGNED and np.linalg.norm(tip - cube) < 0.022
    if around_the_cube and (gripper > OPEN_ENOUGH or gripper < HELD_FRACTION + 0.3):
        return Step(tip.copy(), 0.0)
    if lateral > FUNNEL[1] and tip[2] < HOVER_HEIGHT - 0.02:
        return Step(_towards(tip, np.array([tip[0], tip[1], HOVER_HEIGHT + 0.01])), 1.0)
    depth = np.clip((lateral - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]), 0, 1)
    height = GRASP_HEIGHT + depth * (HOVER_HEIGHT - GRASP_HEIGHT)
    if gripper < OPEN_ENOUGH:
        height = max(height, min(tip[2], HOVER_HEIGHT))
    return Step(_towards(tip, np.array([cube[0], cube[1], height])), 1.0)


def _towards(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """One step of the way: decelerating, at most MAX_STEP, the last 8 mm at once."""
    way = goal - start
    distance = np.linalg.norm(way)
    if distance < 0.008:
        return goal
    return start + way * min(APPROACH, MAX_STEP / distance)
