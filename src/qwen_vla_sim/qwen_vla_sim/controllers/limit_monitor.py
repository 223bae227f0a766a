# SPDX-License-Identifier: Apache-2.0
"""Whether a robot was ever commanded beyond its limits: the simulator's own check, independent of every gate.

Free of ROS. It checks each set point that reaches the servos, including those interpolated between two messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from embodiment_descriptions.config import BaseLimits


@dataclass(frozen=True)
class Peak:
    """The worst set point so far.

    Attributes:
        speed_share, fastest_joint: commanded speed over the joint's limit [1], and the joint.
        excess, farthest_joint: distance beyond a position limit [rad | m] (negative: the smallest distance to one), and
            the joint. A joint that stands beyond one, where no command took it, may stay there and come back.
        step, stepping_joint: the largest distance between two set points [rad | m], and the joint.
        catch_up, catching_joint: the largest distance that a servo made up at once [rad | m], which had not followed
            while its set points went on, and the joint.
        misled, misled_joint: the largest distance that a joint was measured beside where it is [rad | m] when its
            controller was activated, which begins there, and the joint.
    """

    speed_share: float
    fastest_joint: str
    excess: float
    farthest_joint: str
    step: float
    stepping_joint: str
    catch_up: float
    catching_joint: str
    misled: float
    misled_joint: str


class LimitMonitor:
    """Follows the set points of joints with limits."""

    def __init__(
        self, joints: tuple[str, ...], lower: np.ndarray, upper: np.ndarray, speed: np.ndarray, timestep: float
    ) -> None:
        """All arrays (joints,): limits [rad | m], [rad/s | m/s]; `timestep` [s] between two set points."""
        self._joints = joints
        self._limits = np.array(lower, float), np.array(upper, float)
        self._lower, self._upper = (limit.copy() for limit in self._limits)
        self._step = np.array(speed, float) * timestep
        self._previous: np.ndarray | None = None
        self._shares = np.zeros(len(joints))
        self._excess = np.full(len(joints), -np.inf)
        self._steps = np.zeros(len(joints))
        self._caught_up = np.zeros(len(joints))
        self._misled = np.zeros(len(joints))
        self._scratch = np.zeros(len(joints))

    def forget_position(self) -> None:
        """Forget the last set point: the robot was placed elsewhere without a command."""
        self._previous = None
        self._lower, self._upper = (limit.copy() for limit in self._limits)

    def continue_from(self, positions: np.ndarray, offsets: np.ndarray, columns: np.ndarray) -> None:
        """Judge the next set points of some joints from where they are measured: there an activated controller begins.

        Args:
            positions: where all joints are, (joints,) [rad | m].
            offsets: what is added to them in measuring, (joints,) [rad | m]. The way there is no command's.
            columns: which of them, as indices.
        """
        if self._previous is not None:
            self._previous[columns] = (positions + offsets)[columns]
        self._misled[columns] = np.maximum(self._misled, np.abs(offsets))[columns]
        self._admit(positions, columns)

    def record(self, target: np.ndarray, limp: np.ndarray | None = None, catching_up: np.ndarray | None = None) -> None:
        """Record the next set point.

        Args:
            target: (joints,) [rad | m].
            limp: joints that go where nobody commanded them (bool).
            catching_up: joints that follow their set points again (bool); what they make up is recorded by itself.
        """
        scratch = self._scratch
        if limp is not None and limp.any():
            self._admit(target, limp)
        self._record_excess(target)
        if self._previous is None:
            self._previous = np.array(target, float)
            return
        np.subtract(target, self._previous, out=scratch)
        np.abs(scratch, out=scratch)
        if limp is not None:
            scratch[limp] = 0.0
        if catching_up is not None and catching_up.any():
            self._caught_up[catching_up] = np.maximum(self._caught_up, scratch)[catching_up]
            scratch[catching_up] = 0.0
        np.maximum(self._steps, scratch, out=self._steps)
        np.divide(scratch, self._step, out=scratch)
        np.maximum(self._shares, scratch, out=self._shares)
        self._previous[:] = target

    def _admit(self, positions: np.ndarray, columns: np.ndarray) -> None:
        self._lower[columns] = np.minimum(self._limits[0], positions)[columns]
        self._upper[columns] = np.maximum(self._limits[1], positions)[columns]

    def _record_excess(self, target: np.ndarray) -> None:
        """Record how far beyond its limits each joint is; one that has stood beyond may not go back there again."""
        scratch = self._scratch
        for sign, bound in ((-1, self._lower), (1, self._upper)):
            np.subtract(target, bound, out=scratch)
            np.multiply(scratch, sign, out=scratch)
            np.maximum(self._excess, scratch, out=self._excess)
        np.clip(target, self._lower, self._limits[0], out=self._lower)
        np.clip(target, self._limits[1], self._upper, out=self._upper)

    def peak(self) -> Peak:
        """The worst of all recorded set points."""
        found = []
        for values in (self._shares, self._excess, self._steps, self._caught_up, self._misled):
            worst = int(np.argmax(values))
            found += [float(values[worst]), self._joints[worst]]
        return Peak(*found)


class VelocityMonitor:
    """Follows the velocities that a base is commanded.

    Attributes:
        linear_share, angular_share: the largest speed over the base's limit [1].
        count: commands so far.
    """

    def __init__(self, limits: BaseLimits) -> None:
        """Begin with nothing commanded."""
        self._limits = limits
        self.linear_share = self.angular_share = 0.0
        self.count = 0

    def record(self, linear_x: float, linear_y: float, angular: float) -> None:
        """Record the next command [m/s, m/s, rad/s]."""
        self.linear_share = max(self.linear_share, math.hypot(linear_x, linear_y) / self._limits.max_linear)
        self.angular_share = max(self.angular_share, abs(angular) / self._limits.max_angular)
        self.count += 1
