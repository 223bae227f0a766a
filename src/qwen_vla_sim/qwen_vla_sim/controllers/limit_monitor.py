"""Whether a robot was ever commanded beyond its limits: the simulator's own check, independent of every gate.

Free of ROS. It checks each set point that reaches the servos, including those interpolated between two messages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Peak:
    """The worst set point so far.

    Attributes:
        speed_share, fastest_joint: commanded speed over the joint's limit [1], and the joint.
        excess, farthest_joint: distance beyond a position limit [rad | m] (negative: the smallest distance to one), and
            the joint.
    """

    speed_share: float
    fastest_joint: str
    excess: float
    farthest_joint: str


class LimitMonitor:
    """Follows the set points of joints with limits."""

    def __init__(
        self, joints: tuple[str, ...], lower: np.ndarray, upper: np.ndarray, speed: np.ndarray, timestep: float
    ) -> None:
        """All arrays (joints,): limits [rad | m], [rad/s | m/s]; `timestep` [s] between two set points."""
        self._joints = joints
        self._lower, self._upper = np.array(lower, float), np.array(upper, float)
        self._step = np.array(speed, float) * timestep
        self._previous: np.ndarray | None = None
        self._shares = np.zeros(len(joints))
        self._excess = np.full(len(joints), -np.inf)
        self._scratch = np.zeros(len(joints))

    def forget_position(self) -> None:
        """Forget the last set point: the robot was placed elsewhere without a command."""
        self._previous = None

    def record(self, target: np.ndarray) -> None:
        """Record the next set point (joints,) [rad | m]."""
        scratch = self._scratch
        np.subtract(target, self._upper, out=scratch)
        np.maximum(self._excess, scratch, out=self._excess)
        np.subtract(self._lower, target, out=scratch)
        np.maximum(self._excess, scratch, out=self._excess)
        if self._previous is None:
            self._previous = np.array(target, float)
            return
        np.subtract(target, self._previous, out=scratch)
        np.abs(scratch, out=scratch)
        np.divide(scratch, self._step, out=scratch)
        np.maximum(self._shares, scratch, out=self._shares)
        self._previous[:] = target

    def peak(self) -> Peak:
        """The worst of all recorded set points."""
        fastest, farthest = int(np.argmax(self._shares)), int(np.argmax(self._excess))
        return Peak(
            float(self._shares[fastest]), self._joints[fastest], float(self._excess[farthest]), self._joints[farthest]
        )
