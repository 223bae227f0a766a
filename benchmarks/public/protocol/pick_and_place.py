# SPDX-License-Identifier: Apache-2.0
"""A scripted expert: from exact poses to the next action. It looks at the scene at every step, so it corrects.

All poses are in one fixed frame (REP-103; z up). An action is Δx Δy Δz [m] along its axes, Δroll Δpitch Δyaw [rad]
about them, and the gripper, 1 open and -1 closed. Deltas are added to the pose that the controller starts from, which
is its own target in one simulator and the measured pose in another; the expert plans from that pose, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

OPEN, CLOSED = 1.0, -1.0
MOVES = ("above", "down", "lift", "carry", "lower", "up")


@dataclass(frozen=True)
class Pace:
    """What depends on the rate and on the controller; lengths in m, angles in rad, durations in actions.

    Attributes:
        step, slow_step: longest translation of an action; the latter in descents.
        turn: largest rotation of an action.
        gain: share of the remaining translation in an action; close by, all of it, since friction stops a weaker push.
        above: over the grasp, before and after.
        near, close_by: what counts as being there.
        held: farther from the hand than that, the object is not held.
        closing, opening: until the fingers stand.
        descent: after it, `near` suffices; four actions later the descent ends anyhow, as lowering does after it.
        carrying: after it, the object may be twice as far from its place.
        withdrawal: of the hand.
    """

    step: float
    slow_step: float
    turn: float
    gain: float
    above: float
    near: float
    close_by: float
    held: float
    closing: int
    opening: int
    descent: int
    carrying: int
    withdrawal: int


@dataclass(frozen=True)
class Grasp:
    """How an object is grasped and put down; lengths in m.

    Attributes:
        height: of the tip over the table when the fingers close; None: at the object's own height.
        along: from the object's origin along its x axis.
        across: whether the fingers open at a right angle to the object's x axis.
        quarter: whether a quarter turn makes no difference, as for a cube.
        turn: of the turns that make no difference, the one closest to this is made [rad].
        lift: over the grasp.
        release: over the grasp, when the fingers open.
    """

    height: float | None
    lift: float
    release: float
    along: float = 0.0
    across: bool = True
    quarter: bool = False
    turn: float = 0.0


@dataclass(frozen=True)
class View:
    """The scene at one step.

    Attributes:
        hand, target: (4, 4) poses of the tip: measured, and the one that the controller adds deltas to.
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
    pace: Pace
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
        left = goal - view.target[:3, 3]
        delta = left if np.linalg.norm(left) < self.pace.near else self.pace.gain * left
        length = np.linalg.norm(delta)
        action = np.zeros(7)
        action[:3] = delta * min(1.0, largest / max(length, 1e-9))
        if self.phase in ("above", "down"):
            action[5] = np.clip(self.yaw_error(view), -self.pace.turn, self.pace.turn)
        action[6] = CLOSED if self.phase in ("close", "lift", "carry", "lower") else OPEN
        return action

    def over_grasp(self, view: View) -> bool:
        """Whether the tip is on the vertical way down to the grasp, as it may be where a policy has led."""
        offsets = np.stack([view.target[:3, 3], view.hand[:3, 3]]) - self._grasp_point(view)
        beside, over = np.linalg.norm(offsets[:, :2], axis=1), offsets[:, 2]
        return bool(np.all((beside < self.pace.near) & (over > 0) & (over < self.pace.above)))

    def yaw_error(self, view: View) -> float:
        """By how much the controller's target must turn about the vertical [rad]."""
        axis, wanted = view.target[:2, 1], view.object[:2, 0]
        error = (
            np.arctan2(wanted[1], wanted[0]) + (np.pi / 2 if self.grasp.across else 0) - np.arctan2(axis[1], axis[0])
        )
        period = np.pi / 2 if self.grasp.quarter else np.pi
        least = self.grasp.turn - period / 2
        return float((error - least) % period + least)

    def _advance(self, view: View) -> None:
        following = self._next(view)
        if following != self.phase:
            self.phase, self.steps = following, 0
            if following in ("close", "lift", "open", "up"):
                self.point = view.target[:3, 3].copy()

    def _next(self, view: View) -> str:
        pace, (goal, _) = self.pace, self._goal(view)
        left = max(np.linalg.norm(goal - view.target[:3, 3]), np.linalg.norm(goal - view.hand[:3, 3]))
        if self.phase in ("lift", "carry", "lower") and self._lost(view):
            return "above"
        match self.phase:
            case "above":
                there = left < pace.near or self.over_grasp(view)
                return "down" if there and abs(self.yaw_error(view)) < 0.1 else "above"
            case "down":
                late = self.steps > pace.descent and left < pace.near or self.steps > pace.descent + 4
                return "close" if left < pace.close_by or late else "down"
            case "close":
                return "lift" if self.steps >= pace.closing else "close"
            case "lift":
                return "carry" if left < 2 * pace.near else "lift"
            case "carry":
                away = np.linalg.norm(view.object[:2, 3] - view.goal[:2, 3])
                late = self.steps > pace.carrying and away < 2 * pace.near
                return "lower" if away < pace.near or late else "carry"
            case "lower":
                return "open" if left < pace.close_by or self.steps > pace.descent else "lower"
            case "open":
                return "up" if self.steps >= pace.opening else "open"
            case "up":
                return "rest" if self.steps >= pace.withdrawal else "up"
        return self.phase

    def _lost(self, view: View) -> bool:
        return bool(np.linalg.norm(self._grasp_point(view) - view.hand[:3, 3]) > self.pace.held)

    def _grasp_point(self, view: View) -> np.ndarray:
        point = view.object[:3, 3] + self.grasp.along * view.object[:3, 0]
        if self.phase in ("above", "down", "close") and self.grasp.height is not None:
            point[2] = view.table + self.grasp.height
        return point

    def _goal(self, view: View) -> tuple[np.ndarray, float]:
        """Where the tip goes, and how far in one step [m]."""
        pace = self.pace
        match self.phase:
            case "above":
                return self._grasp_point(view) + [0, 0, pace.above], pace.step
            case "down":
                return self._grasp_point(view), pace.slow_step
            case "lift":
                return self.point + [0, 0, self.grasp.lift], pace.step
            case "carry":
                return self._over_goal(view, self.point[2] + self.grasp.lift), pace.step
            case "lower":
                place = self._over_goal(view, self.point[2] + self.grasp.release)
                if np.linalg.norm(place[:2] - view.hand[:2, 3]) > pace.near:  # it came too fast and went past
                    place[2] = max(place[2], view.hand[2, 3])
                high = view.hand[2, 3] - place[2] > pace.above
                return place, pace.step if high else pace.slow_step
            case "up":
                return self.point + [0, 0, pace.above], pace.step
        return view.target[:3, 3].copy() if self.phase == "rest" else self.point, pace.slow_step

    def _over_goal(self, view: View, height: float) -> np.ndarray:
        """The tip's place for which the object's center is over its destination."""
        xy = view.hand[:2, 3] + view.goal[:2, 3] - view.object[:2, 3]
        return np.array([*xy, height])
