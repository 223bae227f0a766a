# SPDX-License-Identifier: Apache-2.0
"""From hand goals to smooth joint targets, one per control step."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment, KinematicsError
from qwen_vla_sim.aloha.grasping import Goals
from qwen_vla_sim.aloha.hands import SIDES, Hands

SPEED = 1.2  # [rad/s] of the fastest joint of an arm; the robot's limit is pi
ACCELERATION = 10.0  # [rad/s²]; the gate's limit is 60
ARRIVAL = 0.12  # [s] time constant of the final approach
GRIPPER_SPEED = 3.5  # [1/s] of the opening 0 closed .. 1 open


class SmoothMotion:
    """Moves both arms toward goals that may change at every step; each arm's joints arrive together."""

    def __init__(self, embodiment: Embodiment, hands: Hands) -> None:
        self._embodiment, self._hands = embodiment, hands
        self._period = embodiment.period

    def begin(self, joints: np.ndarray) -> None:
        """Start at rest from joints (14,) [rad, m] in the order of the embodiment."""
        self._arms = {"left": joints[:6].copy(), "right": joints[6:12].copy()}
        self._velocities = {side: np.zeros(6) for side in SIDES}
        self._openings = {
            side: float(np.clip(self._embodiment.gripper_from_joint(float(joints[12 + k]), k), 0, 1))
            for k, side in enumerate(SIDES)
        }

    def step(self, goals: Goals) -> np.ndarray:
        """(14,) joint targets [rad, m] for the next control step."""
        for side, goal in zip(SIDES, (goals.left, goals.right), strict=True):
            self._advance(side, self._displacement(side, goal.pose))
            reach = GRIPPER_SPEED * self._period
            self._openings[side] += float(np.clip(goal.opening - self._openings[side], -reach, reach))
        return self._targets()

    def stop(self) -> np.ndarray:
        """(14,) joint targets of the next step of decelerating to rest; fingers hold their command."""
        for side in SIDES:
            self._advance(side, np.zeros(6))
        return self._targets()

    def _targets(self) -> np.ndarray:
        fingers = [self._embodiment.gripper_to_joint(self._openings[side], k) for k, side in enumerate(SIDES)]
        return np.concatenate([self._arms["left"], self._arms["right"], fingers])

    def _displacement(self, side: str, pose: np.ndarray) -> np.ndarray:
        """(6,) from the joints to those of a hand pose [rad]; zero where the pose is out of reach."""
        try:
            return self._hands.joints(side, pose) - self._arms[side]
        except KinematicsError:
            return np.zeros(6)

    def _advance(self, side: str, displacement: np.ndarray) -> None:
        """Advance one arm by a step of the remaining displacement (6,) [rad]."""
        joints, velocity = self._arms[side], self._velocities[side]
        distance = float(np.abs(displacement).max())
        speed = min(SPEED, 0.8 * np.sqrt(2 * ACCELERATION * distance), distance / ARRIVAL)
        change = displacement * (speed / max(distance, 1e-9)) - velocity
        largest = float(np.abs(change).max())
        velocity += change * min(1.0, ACCELERATION * self._period / max(largest, 1e-9))
        joints += velocity * self._period
