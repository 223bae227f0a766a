# SPDX-License-Identifier: Apache-2.0
"""A ros2_control DiffDriveController without ROS: from velocity commands to wheel speeds, from wheels to odometry.

The behavior is that of ros2_controllers 5.x (Kilted): a command is valid for `cmd_vel_timeout`, then the base is
brought to rest; commands that are older on arrival are ignored, stamp zero means now; speeds and accelerations are
limited; the odometry comes from the wheels and does not notice slip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_sim.controllers.rejected import CommandRejected

CONTROLLER_TYPE = "diff_drive_controller/DiffDriveController"


class VelocityRejected(CommandRejected):
    """The command is ignored; the text says why."""


@dataclass(frozen=True)
class SpeedLimits:
    """Limits of one axis; infinite where there are none.

    Attributes:
        lowest, highest: velocity [m/s or rad/s].
        acceleration: [m/s² or rad/s²].
        deceleration: largest acceleration toward rest, as a positive number [m/s² or rad/s²].
    """

    lowest: float = -math.inf
    highest: float = math.inf
    acceleration: float = math.inf
    deceleration: float = math.inf

    @classmethod
    def from_parameters(cls, parameters: dict) -> SpeedLimits:
        """Read linear.x or angular.z of a controllers file; a missing or NaN value is no limit."""

        def read(name: str, default: float) -> float:
            value = float(parameters.get(name, math.nan))
            return default if math.isnan(value) else value

        highest, acceleration = read("max_velocity", math.inf), read("max_acceleration", math.inf)
        return cls(
            lowest=read("min_velocity", -highest),
            highest=highest,
            acceleration=acceleration,
            deceleration=abs(read("max_deceleration", acceleration)),
        )

    def limited(self, wanted: float, before: float, duration: float) -> float:
        """The speed nearest to `wanted` that can follow `before` within `duration` [s]."""
        wanted = min(max(wanted, self.lowest), self.highest)
        slower = abs(wanted) < abs(before)
        change = (self.deceleration if slower else self.acceleration) * duration
        return min(max(wanted, before - change), before + change)


@dataclass(frozen=True)
class DiffDriveParameters:
    """Parameters of the controller, by their names there; lengths in m, times in s."""

    left_wheel_names: tuple[str, ...]
    right_wheel_names: tuple[str, ...]
    wheel_separation: float
    wheel_radius: float
    cmd_vel_timeout: float = 0.5
    publish_rate: float = 50.0
    odom_frame_id: str = "odom"
    base_frame_id: str = "base_link"
    enable_odom_tf: bool = True
    linear: SpeedLimits = SpeedLimits()
    angular: SpeedLimits = SpeedLimits()

    @classmethod
    def from_controllers_file(cls, path: Path) -> DiffDriveParameters:
        """Read the only diff_drive_controller of a ros2_control file; ValueError for none or several."""
        sections = yaml.safe_load(path.read_text(encoding="utf-8")).values()
        found = [s["ros__parameters"] for s in sections if s.get("ros__parameters", {}).get("type") == CONTROLLER_TYPE]
        if len(found) != 1:
            raise ValueError(f"{path} configures {len(found)} controllers of the type {CONTROLLER_TYPE}; one is needed")
        given = found[0]
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if name in cls.__dataclass_fields__ and name not in ("linear", "angular")
        }
        return cls(
            **plain,
            linear=SpeedLimits.from_parameters(given.get("linear", {}).get("x", {})),
            angular=SpeedLimits.from_parameters(given.get("angular", {}).get("z", {})),
        )


class DiffDrive:
    """Limited speeds for the base from velocity commands, and its odometry from the wheels.

    Poses are (x [m], y [m], heading [rad]) in the odometry frame. Not thread-safe.
    """

    def __init__(self, parameters: DiffDriveParameters) -> None:
        self.parameters = parameters
        self.reset()

    def reset(self) -> None:
        """Stop, discard the command, and restart the odometry at the origin."""
        self.pose = np.zeros(3)
        self.twist = np.zeros(2)
        self.stop()

    def stop(self) -> None:
        """Stop at once, and discard the command."""
        self.linear = self.angular = 0.0
        self._command: tuple[float, float, int] | None = None

    def command(self, linear: float, angular: float, stamp_ns: int, now_ns: int) -> None:
        """Drive at `linear` [m/s] and `angular` [rad/s] until the timeout; raises VelocityRejected."""
        if not (math.isfinite(linear) and math.isfinite(angular)):
            raise VelocityRejected(f"the velocities are not finite: {linear}, {angular}")
        stamp_ns = stamp_ns or now_ns
        age = (now_ns - stamp_ns) / NANOSECONDS
        if age > self.parameters.cmd_vel_timeout:
            raise VelocityRejected(f"the command is {age:.3f} s old (limit {self.parameters.cmd_vel_timeout} s)")
        self._command = (linear, angular, stamp_ns)

    def update(self, now_ns: int, duration: float) -> tuple[float, float]:
        """Speeds [m/s], [rad/s] for the next `duration` [s]."""
        linear, angular, stamp_ns = self._command or (0.0, 0.0, now_ns)
        if now_ns - stamp_ns > self.parameters.cmd_vel_timeout * NANOSECONDS:
            linear = angular = 0.0
        self.linear = self.parameters.linear.limited(linear, self.linear, duration)
        self.angular = self.parameters.angular.limited(angular, self.angular, duration)
        return self.linear, self.angular

    def wheel_speeds(self) -> tuple[float, float]:
        """Left and right wheel [rad/s] at the speeds of the last update."""
        difference, radius = self.angular * self.parameters.wheel_separation / 2, self.parameters.wheel_radius
        return (self.linear - difference) / radius, (self.linear + difference) / radius

    def measure(self, left: float, right: float, duration: float) -> None:
        """Update the odometry: the wheels have rotated by `left` and `right` [rad] in `duration` [s]."""
        left, right = left * self.parameters.wheel_radius, right * self.parameters.wheel_radius
        distance, rotation = (left + right) / 2, (right - left) / self.parameters.wheel_separation
        heading = self.pose[2] + rotation / 2  # of the chord of the arc
        chord = distance * (math.sin(rotation / 2) / (rotation / 2) if rotation else 1.0)
        self.pose += [chord * math.cos(heading), chord * math.sin(heading), rotation]
        self.twist[:] = distance / duration, rotation / duration
