# SPDX-License-Identifier: Apache-2.0
"""From a base path to the velocity command for now: tracks the path by odometry and keeps the limits.

Kanayama, Kimura, Miyazaki and Noguchi, "A stable tracking control method for an autonomous mobile robot", ICRA 1990:
the velocity of the path plus a correction of the tracking error. An omnidirectional base corrects in all directions
directly. Free of ROS and torch.
"""

from __future__ import annotations

import math

import numpy as np

from embodiment_descriptions.config import BaseLimits
from qwen_vla_control.motion.base_path import BasePath, seen_from

FORWARD_GAIN = 1.5  # [1/s] of the error along the heading
SIDEWAYS_GAIN = 4.0  # [1/m²] of the error across it, times the speed; with HEADING_GAIN critically damped
HEADING_GAIN = 2.5  # [1/s] of the heading error
LONGEST_STEP = 0.1  # [s] a late timer must not allow a jump in velocity


class BaseFollower:
    """Follows one path after another; each command starts from the last one."""

    def __init__(self, limits: BaseLimits, omnidirectional: bool) -> None:
        """Begin at rest."""
        self._limits, self._omnidirectional = limits, omnidirectional
        self._last = np.zeros(3)
        self._time_ns: int | None = None

    def velocity(self, path: BasePath, start_ns: int, now_ns: int, pose: np.ndarray) -> np.ndarray:
        """Velocity (vx, vy, w) in the frame of the base [m/s, m/s, rad/s] for now.

        Args:
            path: what to follow.
            start_ns: ROS time of its row 0 [ns].
            now_ns: ROS time [ns].
            pose: (3,) of the base by the odometry, in the frame of the path.
        """
        step = LONGEST_STEP if self._time_ns is None else (now_ns - self._time_ns) / 1e9
        self._time_ns = now_ns
        target, speed = path.at((now_ns - start_ns) / 1e9)
        error = seen_from(pose, target)
        # Both in the frame of the base: where the path is, and how it moves there.
        c, s = math.cos(pose[2]), math.sin(pose[2])
        ahead, across, turning = c * speed[0] + s * speed[1], c * speed[1] - s * speed[0], speed[2]
        if self._omnidirectional:
            wanted = np.array(
                [ahead + FORWARD_GAIN * error[0], across + FORWARD_GAIN * error[1], turning + HEADING_GAIN * error[2]]
            )
        else:
            sideways = SIDEWAYS_GAIN * ahead * error[1]
            angular = turning + sideways + HEADING_GAIN * math.sin(error[2])
            wanted = np.array([ahead + FORWARD_GAIN * error[0], 0.0, angular])
        self._last = self._accelerated(self._slowed(wanted), min(max(step, 0.0), LONGEST_STEP))
        return self._last

    def rest(self) -> None:
        """Record that the base was commanded to stop."""
        self._last = np.zeros(3)
        self._time_ns = None

    def _slowed(self, velocity: np.ndarray) -> np.ndarray:
        """Keep the speed limits; all three are scaled by the same factor, so that the base stays on its curve."""
        linear, angular = math.hypot(velocity[0], velocity[1]), abs(velocity[2])
        share = max(linear / self._limits.max_linear, angular / self._limits.max_angular, 1.0)
        return velocity / share

    def _accelerated(self, velocity: np.ndarray, step: float) -> np.ndarray:
        """Keep the acceleration limits since the last command, `step` [s] ago; both parts take the same time."""
        change = velocity - self._last
        linear = math.hypot(change[0], change[1]) / self._limits.max_linear_acceleration
        angular = abs(change[2]) / self._limits.max_angular_acceleration
        needed = max(linear, angular)
        return velocity if needed <= step else self._last + change * (step / needed)
