"""Joint paths to devices that take one set-point at a time: forward controllers and the groups of an Interbotix xs_sdk.

They neither interpolate nor stop by themselves, the last value stands for ever. So the path is sampled here, at the
rate of the executor's timer, and a stop is the set-point at which to hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import ForwardCommand, XsGroupCommand, XsSingleCommand
from qwen_vla_ros.backends.backend import Capabilities, Publishing
from qwen_vla_ros.joint_path import JointPath
from qwen_vla_ros.optional_interfaces import interface

GROUP_COMMAND, SINGLE_COMMAND = "interbotix_xs_msgs/msg/JointGroupCommand", "interbotix_xs_msgs/msg/JointSingleCommand"


class Setpoints(Publishing):
    """Samples the current path; a subclass says how positions are written into the message."""

    def __init__(self, node: Node, kind: Any, topic: str, joints: tuple[str, ...]) -> None:
        """Create the publisher; `joints` gives the order of the values."""
        super().__init__(node, kind, topic)
        self.capabilities = Capabilities(joints=joints, streams=True, stands=True)
        self._message = kind()
        self._path: JointPath | None = None
        self._start_ns = 0
        self._due = False

    def write(self, positions: np.ndarray) -> None:
        """Put positions (joints,) into the message."""
        raise NotImplementedError

    def prepare(self, path: JointPath, now_ns: int) -> Callable[[], None]:
        """Take over the path from the next sample on."""
        mine = path.select(self.capabilities.joints)

        def begin() -> None:
            self._path, self._start_ns = mine, now_ns

        return begin

    def sample(self, now_ns: int) -> None:
        """Write down where the path is by now; the last row is the last sample."""
        self._due = self._path is not None
        if not self._due:
            return
        elapsed = (now_ns - self._start_ns) / 1e9
        self.write(self._path.at(elapsed)[0])
        if elapsed >= self._path.duration:
            self._path = None

    def publish(self) -> None:
        """Send the sample."""
        if self._due:
            self._publisher.publish(self._message)
            self._due = False

    def stop(self, standing: JointPath | None) -> None:
        """Hold there; unknown positions leave the device with its last set-point."""
        self._path, self._due = None, False
        if standing is not None:
            self.write(standing.select(self.capabilities.joints).positions[-1])
            self._publisher.publish(self._message)


class ForwardBackend(Setpoints):
    """A forward_command_controller: std_msgs/Float64MultiArray, values in the controller's order."""

    def __init__(self, node: Node, command: ForwardCommand) -> None:
        """Create the publisher."""
        super().__init__(node, Float64MultiArray, command.topic, command.joints)
        self._message.data = [0.0] * len(command.joints)

    def write(self, positions: np.ndarray) -> None:
        """Values go in place, the array stays the same."""
        for index, value in enumerate(positions):
            self._message.data[index] = value


class XsGroupBackend(Setpoints):
    """A joint group of an xs_sdk: interbotix_xs_msgs/JointGroupCommand."""

    def __init__(self, node: Node, command: XsGroupCommand) -> None:
        """Create the publisher."""
        super().__init__(node, interface(GROUP_COMMAND), command.topic, command.joints)
        self._message.name = command.group
        self._message.cmd = [0.0] * len(command.joints)

    def write(self, positions: np.ndarray) -> None:
        """Values go in place, the array stays the same."""
        for index, value in enumerate(positions):
            self._message.cmd[index] = value


class XsSingleBackend(Setpoints):
    """The gripper of an xs_sdk: interbotix_xs_msgs/JointSingleCommand, a motor angle by the robot's calibration."""

    def __init__(self, node: Node, command: XsSingleCommand, embodiment: Embodiment) -> None:
        """Create the publisher."""
        kind = interface(SINGLE_COMMAND)
        super().__init__(node, kind, command.topic, (command.joint,))
        self._message.name = command.name
        self._angle_of = motor_angle(command, embodiment)

    def write(self, positions: np.ndarray) -> None:
        """Convert the finger position to the angle of the motor."""
        self._message.cmd = self._angle_of(float(positions[0]))


def motor_angle(command: XsSingleCommand, embodiment: Embodiment) -> Callable[[float], float]:
    """Return the conversion from the position of a gripper joint [m] to the angle of its motor [rad]."""
    gripper = next(arm.gripper for arm in embodiment.arms if arm.gripper and arm.gripper.joint == command.joint)
    closed, scale = command.calibration.closed, command.calibration.open - command.calibration.closed
    return lambda position: closed + scale * (position - gripper.closed) / (gripper.open - gripper.closed)
