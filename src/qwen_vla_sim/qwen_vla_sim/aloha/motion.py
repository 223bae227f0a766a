"""From hand goals to smooth joint targets, one per control step."""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment, KinematicsError
from qwen_vla_sim.aloha.expert import Goals
from qwen_vla_sim.aloha.hands import Hands
from qwen_vla_sim.aloha.world import SIDES

SPEED = 1.2  # [rad/s] of the fastest joint of an arm; the robot's limit is pi
ACCELERATION = 10.0  # [rad/s2]; the gate's limit is 60
ARRIVAL = 0.12  # [s] time constant of the last bit of a way
GRIPPER_SPEED = 3.5  # [1/s] shares of the way from open to closed


class SmoothMotion:
    """Moves both arms towards goals that may change at every step; each arm's joints arrive together."""

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
            self._turn(side, goal.pose)
            reach = GRIPPER_SPEED * self._period
            self._openings[side] += float(np.clip(goal.opening - self._openings[side], -reach, reach))
        fingers = [self._embodiment.gripper_to_joint(self._openings[side], k) for k, side in enumerate(SIDES)]
        return np.concatenate([self._arms["left"], self._arms["right"], fingers])

    def _turn(self, side: str, pose: np.ndarray) -> None:
        """Advance one arm by a step towards a hand pose; it comes to rest where the pose is out of reach."""
        joints, velocity = self._arms[side], self._velocities[side]
        try:
            way = self._hands.joints(side, pose, joints) - joints
        except KinematicsError:
            way = np.zeros(6)
        distance = float(np.abs(way).max())
        speed = min(SPEED, 0.8 * np.sqrt(2 * ACCELERATION * distance), distance / ARRIVAL)
        change = way * (speed / max(distance, 1e-9)) - velocity
        largest = float(np.abs(change).max())
        velocity += change * min(1.0, ACCELERATION * self._period / max(largest, 1e-9))
        joints += velocity * self._period
