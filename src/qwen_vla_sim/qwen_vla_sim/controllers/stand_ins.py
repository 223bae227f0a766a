# SPDX-License-Identifier: Apache-2.0
"""What stands in for the devices behind command interfaces: it takes their messages, and a controller obeys. No ROS.

`CommandInterface.simulated` names what makes one. For joints it is called with the entry of `commands`, the Embodiment,
the positions (joints,) at the start [rad | m] and, by name, the parameters of trajectory controllers (switches, and
the period of a cycle [ns]); for a base with the entry of `commands` and the SimulatedBase, see
mobile_base.velocity_input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import CommandInterface, ForwardCommand, XsGroupCommand, XsSingleCommand
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_sim.controllers.joint_trajectory_controller import (
    JointTrajectory,
    JointTrajectoryController,
    TrajectoryPoint,
)
from qwen_vla_sim.controllers.position_interfaces import GripperMotor, PositionInterface, PositionsRejected

Controller = JointTrajectoryController | PositionInterface
Kind = TypeVar("Kind", JointTrajectoryController, PositionInterface)


class StandIn(ABC, Generic[Kind]):
    """The device behind one command interface of joints.

    Attributes:
        topic, message_type: what it listens to; the type by its full name.
        streams: it is sent one set-point after another.
        controller: makes set-points of what was commanded.
        motors: by the names that joint states report them under besides the joints.
    """

    streams = False

    def __init__(self, command: CommandInterface, controller: Kind) -> None:
        self.topic, self.message_type = command.endpoint, command.types[0]
        self.controller = controller
        self.motors: dict[str, GripperMotor] = {}

    @abstractmethod
    def take(self, message: Any, now_ns: int) -> None:
        """Obey a message from now [ns, simulated] on; CommandRejected, and then nothing has changed."""


class TrajectoryStandIn(StandIn[JointTrajectoryController]):
    """A JointTrajectoryController."""

    def __init__(
        self, command: CommandInterface, embodiment: Embodiment, positions: Sequence[float], **parameters: Any
    ) -> None:
        super().__init__(command, JointTrajectoryController(command.commanded, positions, **parameters))

    def take(self, message: Any, now_ns: int) -> None:
        self.controller.accept(trajectory_from_message(message), now_ns)


class PositionStandIn(StandIn[PositionInterface]):
    """Joints that go to the last positions they were given; `values_of` takes these (joints,) from a message."""

    streams = True

    def __init__(
        self,
        command: CommandInterface,
        embodiment: Embodiment,
        positions: Sequence[float],
        values_of: Callable[[Any], Sequence[float]],
    ) -> None:
        speeds = [embodiment.limits[name].velocity for name in command.commanded]
        super().__init__(command, PositionInterface(command.commanded, positions, speeds))
        self._values_of = values_of

    def take(self, message: Any, now_ns: int) -> None:
        self.controller.accept(self._values_of(message))


def forward_command(
    command: ForwardCommand, embodiment: Embodiment, positions: Sequence[float], **parameters: Any
) -> PositionStandIn:
    """A forward_command_controller."""
    return PositionStandIn(command, embodiment, positions, lambda message: message.data)


def xs_group(
    command: XsGroupCommand, embodiment: Embodiment, positions: Sequence[float], **parameters: Any
) -> PositionStandIn:
    """The joint group of an xs_sdk."""

    def values_of(message: Any) -> Sequence[float]:
        _refuse_others(message, command.group)
        return message.cmd

    return PositionStandIn(command, embodiment, positions, values_of)


class XsMotor(StandIn):
    """The gripper motor of an xs_sdk, which reports its angle, too."""

    streams = True

    def __init__(
        self, command: XsSingleCommand, embodiment: Embodiment, positions: Sequence[float], **parameters: Any
    ) -> None:
        gripper = next(arm.gripper for arm in embodiment.arms if arm.gripper and arm.gripper.joint == command.joint)
        angles = (command.calibration.closed, command.calibration.open)
        speed = embodiment.limits[command.joint].velocity
        motor = GripperMotor(command.joint, positions[0], speed, angles, (gripper.closed, gripper.open))
        super().__init__(command, motor)
        self._name = command.name
        self.motors = {command.joint[: command.joint.rfind("/") + 1] + command.name: motor}

    def take(self, message: Any, now_ns: int) -> None:
        _refuse_others(message, self._name)
        self.controller.accept([message.cmd])


def trajectory_from_message(message: Any) -> JointTrajectory:
    """A trajectory_msgs/JointTrajectory as the controllers take it; nothing is checked here."""
    points = [
        TrajectoryPoint(nanoseconds(p.time_from_start), p.positions, p.velocities, p.accelerations, p.effort)
        for p in message.points
    ]
    return JointTrajectory(tuple(message.joint_names), points, nanoseconds(message.header.stamp))


def _refuse_others(message: Any, name: str) -> None:
    """An xs_sdk has one topic for all its groups or motors; ours simulates one of them."""
    if message.name != name:
        raise PositionsRejected(f"'{message.name}' is unknown; it has: {name}")
