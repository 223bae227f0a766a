# SPDX-License-Identifier: Apache-2.0
"""The scripted expert: from exact poses to the next action. It looks at the scene at every step, so it corrects.

All poses are in the robot's root frame (REP-103; z up). An action is Δx Δy Δz [m] along the root's axes, Δroll Δpitch
Δyaw [rad] about them, and the gripper, 1 open and -1 closed: what the simulator's controller takes. The controller adds
deltas to its own target, so the expert, too, plans from that target.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

STEP, SLOW_STEP = 0.040, 0.025  # [m] per action; the latter in descents
TURN = 0.25  # [rad] per action
ABOVE = 0.07  # [m] over the grasp
OPEN, CLOSED = 1.0, -1.0
CLOSING, OPENING = 4, 3  # steps until the fingers stand
NEAR, CLOSE_BY = 0.012, 0.006  # [m]
HELD = 0.045  # [m] farther from the hand than that, the object is not held
MOVES = ("above", "down", "lift", "carry", "lower", "up")


@dataclass(frozen=True)
class Grasp:
    """How a task's object is grasped and put down; lengths in m.

    Attributes:
        height: of the tip over the table when the fingers close; None: at the object's own height.
        along: from the object's origin along its x axis.
        across: whether the fingers open at a right angle to the object's x axis.
        quarter: whether a quarter turn makes no difference, as for a cube.
        lift: over the grasp.
        release: over the grasp, when the fingers open.
    """

    height: float | None
    lift: float
    release: float
    along: float = 0.0
    across: bool = True
    quarter: bool = False


GRASPS = {
    "carrot_on_plate": Grasp(0.022, 0.08, 0.03),
    "spoon_on_towel": Grasp(0.020, 0.07, 0.02, along=0.03),
    "stack_cube": Grasp(0.018, 0.09, 0.036, across=False, quarter=True),
    "eggplant_in_basket": Grasp(None, 0.13, 0.07),
}


@dataclass(frozen=True)
class View:
    """The scene at one step, in the root frame.

    Attributes:
        hand, target: (4, 4) poses of the tip: measured, and what the controller holds.
        object, goal: (4, 4) poses of the object to be moved and of its destination.
        table: height of the table [m].
    """

    hand: np.ndarray
    target: np.ndarray
    object: np.ndarray
    goal: np.ndarray
    table: float


@dataclass
class Expert:
    """The expert for one episode."""

    grasp: Grasp
    phase: str = "above"
    steps: int = 0
    point: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def done(self) -> bool:
        """Whether the hand has withdrawn."""
        return self.phase == "rest"

    def act(self, view: View) -> np.ndarray:
        """The next action (7,)."""
        self._advance(view)
        self.steps += 1
        goal, largest = self._goal(view)
        delta = goal - view.target[:3, 3]
        length = np.linalg.norm(delta)
        action = np.zeros(7)
        action[:3] = delta * min(1.0, largest / max(length, 1e-9))
        if self.phase in ("above", "down"):
            action[5] = np.clip(self.yaw_error(view), -TURN, TURN)
        action[6] = CLOSED if self.phase in ("close", "lift", "carry", "lower") else OPEN
        return action

    def yaw_error(self, view: View) -> float:
        """By how much the controller's target must turn about the vertical [rad]."""
        axis, wanted = view.target[:2, 1], view.object[:2, 0]
        error = (
            np.arctan2(wanted[1], wanted[0]) + (np.pi / 2 if self.grasp.across else 0) - np.arctan2(axis[1], axis[0])
        )
        period = np.pi / 2 if self.grasp.quarter else np.pi
        return float((error + period / 2) % period - period / 2)

    def _advance(self, view: View) -> None:
        following = self._next(view)
        if following != self.phase:
            self.phase, self.steps = following, 0
            if following in ("close", "lift", "open", "up"):
                self.point = view.target[:3, 3].copy()

    def _next(self, view: View) -> str:
        goal, _ = self._goal(view)
        left = max(np.linalg.norm(goal - view.target[:3, 3]), np.linalg.norm(goal - view.hand[:3, 3]))
        if self.phase in ("lift", "carry", "lower") and self._lost(view):
            return "above"
        match self.phase:
            case "above":
                return "down" if left < NEAR and abs(self.yaw_error(view)) < 0.1 else "above"
            case "down":
                return "close" if left < CLOSE_BY or (self.steps > 6 and left < NEAR) or self.steps > 10 else "down"
            case "close":
                return "lift" if self.steps >= CLOSING else "close"
            case "lift":
                return "carry" if left < 2 * NEAR else "lift"
            case "carry":
                away = np.linalg.norm(view.object[:2, 3] - view.goal[:2, 3])
                return "lower" if away < NEAR or (self.steps > 12 and away < 2 * NEAR) else "carry"
            case "lower":
                return "open" if left < CLOSE_BY or self.steps > 6 else "lower"
            case "open":
                return "up" if self.steps >= OPENING else "open"
            case "up":
                return "rest" if self.steps >= 4 else "up"
        return self.phase

    def _lost(self, view: View) -> bool:
        return bool(np.linalg.norm(self._grasp_point(view) - view.hand[:3, 3]) > HELD)

    def _grasp_point(self, view: View) -> np.ndarray:
        point = view.object[:3, 3] + self.grasp.along * view.object[:3, 0]
        if self.phase in ("above", "down", "close") and self.grasp.height is not None:
            point[2] = view.table + self.grasp.height
        return point

    def _goal(self, view: View) -> tuple[np.ndarray, float]:
        """Where the tip goes, and how far in one step [m]."""
        match self.phase:
            case "above":
                return self._grasp_point(view) + [0, 0, ABOVE], STEP
            case "down":
                return self._grasp_point(view), SLOW_STEP
            case "lift":
                return self.point + [0, 0, self.grasp.lift], STEP
            case "carry":
                return self._over_goal(view, self.point[2] + self.grasp.lift), STEP
            case "lower":
                return self._over_goal(view, self.point[2] + self.grasp.release), SLOW_STEP
            case "up":
                return self.point + [0, 0, ABOVE], STEP
        return view.target[:3, 3].copy() if self.phase == "rest" else self.point, SLOW_STEP

    def _over_goal(self, view: View, height: float) -> np.ndarray:
        """The tip's place for which the object's center is over its destination."""
        xy = view.hand[:2, 3] + view.goal[:2, 3] - view.object[:2, 3]
        return np.array([*xy, height])
