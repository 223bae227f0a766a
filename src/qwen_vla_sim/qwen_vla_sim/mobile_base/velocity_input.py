# SPDX-License-Identifier: Apache-2.0
"""What stands in for the devices behind a base's command interfaces: the input of its diff_drive_controller."""

from __future__ import annotations

from typing import Any

from embodiment_descriptions.commands import CommandInterface
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_sim.mobile_base.simulated_base import SimulatedBase


class VelocityInput:
    """Velocities for the base's own controller, on its topic, whoever the robot's YAML commands in front of it.

    Nav2 is as with the robot: its velocity smoother and its servers drive the base through this topic. Without it, the
    executor's cmd_vel_nav is remapped to it.

    Attributes:
        topic, message_type: what it listens to; the type is that of the controller.
        streams: it is sent one velocity after another.
    """

    topic = "cmd_vel"
    streams = True

    def __init__(self, command: CommandInterface, base: SimulatedBase) -> None:
        self.message_type, self._base = base.velocity_type, base

    def take(self, message: Any, now_ns: int) -> None:
        """Drive; the stamp of a TwistStamped counts. CommandRejected, and then nothing has changed."""
        twist = getattr(message, "twist", message)
        stamp_ns = nanoseconds(message.header.stamp) if hasattr(message, "header") else 0
        self._base.velocities.record(twist.linear.x, twist.linear.y, twist.angular.z)
        self._base.command_velocity(twist.linear.x, twist.angular.z, stamp_ns)
