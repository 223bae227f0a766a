# SPDX-License-Identifier: Apache-2.0
"""Joint paths to devices that take one setpoint at a time: forward controllers and the groups of an Interbotix xs_sdk.

They neither interpolate nor stop on their own; the last value holds indefinitely. So the path is sampled here, at the
rate of the executor's timer, and a stop is a setpoint at which to hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import CommandInterface, ForwardCommand, XsGroupCommand, XsSingleCommand
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_rclpy.optional_interfaces import interface
from qwen_vla_ros.executor.command_interfaces.command_interface import Capabilities, CommandedRobot, Publishing


class Setpoints(Publishing):
    """Samples the current path, in the interface's order of joints."""

    capabilities = Capabilities(streams=True, stands=True)

    def __init__(self, node: Node, command: CommandInterface, write: Callable[[Any, np.ndarray], None]) -> None:
        """Create the publisher.

        Args:
            node: its owner.
            command: the interface; its first type is that of the messages.
            write: stores positions (joints,) [rad | m] in a message, which is reused.

        Raises:
            MissingInterface: the message package is not installed.
        """
        kind = interface(command.types[0])
        super().__init__(node, kind, command.endpoint)
        self._joints, self._write = command.commanded, write
        self._message: Any = kind()
        self._path: JointPath | None = None
        self._start_ns = 0
        self._due = False

    def prepare(self, path: JointPath, now_ns: int) -> Callable[[], None]:
        """Follow the path from the next sample on."""
        mine = path.select(self._joints)

        def begin() -> None:
            self._path, self._start_ns = mine, now_ns

        return begin

    def sample(self, now_ns: int) -> None:
        """Sample the current position of the path; the last row is the last sample."""
        path = self._path
        self._due = path is not None
        if path is None:
            return
        elapsed = (now_ns - self._start_ns) / 1e9
        self._write(self._message, path.at(elapsed)[0])
        if elapsed >= path.duration:
            self._path = None

    def publish(self) -> None:
        """Send the sample."""
        if self._due:
            self._publisher.publish(self._message)
            self._due = False

    def stop(self, standing: JointPath | None) -> None:
        """Hold at `standing`; without known positions the device keeps its last setpoint."""
        self._path, self._due = None, False
        if standing is not None:
            self._write(self._message, standing.select(self._joints).positions[-1])
            self._publisher.publish(self._message)


def forward_command(node: Node, command: ForwardCommand, robot: CommandedRobot) -> Setpoints:
    """A forward_command_controller: std_msgs/Float64MultiArray, values in the controller's order."""

    def write(message: Any, positions: np.ndarray) -> None:
        message.data = array("d", positions)

    return Setpoints(node, command, write)


def xs_group(node: Node, command: XsGroupCommand, robot: CommandedRobot) -> Setpoints:
    """A joint group of an xs_sdk: interbotix_xs_msgs/JointGroupCommand."""

    def write(message: Any, positions: np.ndarray) -> None:
        message.name, message.cmd = command.group, array("f", positions)

    return Setpoints(node, command, write)


def xs_single(node: Node, command: XsSingleCommand, robot: CommandedRobot) -> Setpoints:
    """The gripper of an xs_sdk: interbotix_xs_msgs/JointSingleCommand, a motor angle from the robot's calibration."""
    angle_of = motor_angle(command, robot.embodiment)

    def write(message: Any, positions: np.ndarray) -> None:
        message.name, message.cmd = command.name, angle_of(float(positions[0]))

    return Setpoints(node, command, write)


def motor_angle(command: XsSingleCommand, embodiment: Embodiment) -> Callable[[float], float]:
    """Return the conversion from the position of a gripper joint [m] to the angle of its motor [rad]."""
    gripper = next(arm.gripper for arm in embodiment.arms if arm.gripper and arm.gripper.joint == command.joint)
    closed, scale = command.calibration.closed, command.calibration.open - command.calibration.closed
    return lambda position: closed + scale * (position - gripper.closed) / (gripper.open - gripper.closed)
