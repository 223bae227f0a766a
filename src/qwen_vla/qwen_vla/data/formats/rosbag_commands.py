"""Commands in a bag: the reader of each command interface, and the commanded position at any time."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.commands import (
    BaseVelocityCommand,
    CommandInterface,
    ForwardCommand,
    JointTrajectoryCommand,
    XsGroupCommand,
    XsSingleCommand,
    make_part,
)
from qwen_vla_control.stamps import nanoseconds, stamp_of


@dataclass(frozen=True)
class Trajectory:
    """A trajectory_msgs/JointTrajectory: it starts at `start_ns`; positions (P, n) are due at `due_ns` (P,)."""

    start_ns: int
    joints: tuple[str, ...]
    due_ns: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, message: Any, arrival_ns: int) -> Trajectory:
        """A stamp of zero means on arrival."""
        start = stamp_of(message) or arrival_ns
        offsets = [nanoseconds(p.time_from_start) for p in message.points]
        rows = np.array([list(p.positions) for p in message.points], float).reshape(len(message.points), -1)
        return cls(start, tuple(message.joint_names), start + np.array(offsets, np.int64), rows)

    @classmethod
    def at_once(cls, joints: Sequence[str], positions: Sequence[float], arrival_ns: int) -> Trajectory:
        """Set points that hold from their arrival on; joints without a value were not commanded."""
        values = np.array(positions, float).reshape(1, -1)
        return cls(arrival_ns, tuple(joints[: values.shape[1]]), np.array([arrival_ns], np.int64), values)


@dataclass(frozen=True)
class CommandReader:
    """Reads the commands of a command interface from a bag.

    `CommandInterface.recorded` names its factory, called with the entry of `commands` and the Embodiment.

    Attributes:
        read: from a message and its arrival [ns] to the Trajectory of URDF joints; for a base, to the time [ns] and the
            velocity (3,) vx, vy, wz [m/s, rad/s] from then on. None: a bag does not have the commands.
        measured: in that case, their replacement, as a phrase.
    """

    read: Callable[[Any, int], Any] | None
    measured: str = ""


def command_readers(embodiment: Embodiment) -> list[tuple[CommandInterface, CommandReader]]:
    """The reader of every command interface of a robot; ValueError names a kind without one."""
    return [
        (command, make_part(command, "recorded", ("read", "measured"), command, embodiment))
        for command in embodiment.commands
    ]


def joint_trajectory(command: JointTrajectoryCommand, embodiment: Embodiment) -> CommandReader:
    """Read messages that name their joints."""
    return CommandReader(Trajectory.of)


def forward_command(command: ForwardCommand, embodiment: Embodiment) -> CommandReader:
    """Read values in the order of the controller's joints."""
    return CommandReader(lambda message, arrival: Trajectory.at_once(command.joints, message.data, arrival))


def xs_group(command: XsGroupCommand, embodiment: Embodiment) -> CommandReader:
    """Read values in the order of the group's joints."""
    return CommandReader(lambda message, arrival: Trajectory.at_once(command.joints, message.cmd, arrival))


def xs_single(command: XsSingleCommand, embodiment: Embodiment) -> CommandReader:
    """Read the motor angle of a gripper as the position of its finger, by the robot's calibration."""
    gripper = next(arm.gripper for arm in embodiment.arms if arm.gripper and arm.gripper.joint == command.joint)
    motor = command.calibration
    scale = (gripper.open - gripper.closed) / (motor.open - motor.closed)

    def read(message: Any, arrival: int) -> Trajectory:
        return Trajectory.at_once((command.joint,), [gripper.closed + scale * (message.cmd - motor.closed)], arrival)

    return CommandReader(read)


def base_velocity(command: BaseVelocityCommand, embodiment: Embodiment) -> CommandReader:
    """Read a Twist or TwistStamped, which holds from its arrival on."""

    def read(message: Any, arrival: int) -> tuple[int, np.ndarray]:
        twist = getattr(message, "twist", message)
        return arrival, np.array([twist.linear.x, twist.linear.y, twist.angular.z])

    return CommandReader(read)


def measured_positions(command: CommandInterface, embodiment: Embodiment) -> CommandReader:
    """Replace the goals of an action, which are not in a bag, by the joint positions one row later."""
    joints = ", ".join(command.commanded)
    return CommandReader(None, f"the measured position of {joints} one row later")


def measured_poses(command: CommandInterface, embodiment: Embodiment) -> CommandReader:
    """Replace the goals of an action, which are not in a bag, by the odometry of the base."""
    return CommandReader(None, "the odometry of the base")


class CommandedPositions:
    """Positions commanded by trajectories that replace each other, linear between their points and held at the end.

    A trajectory starts from the commanded position of the one before it, or from the joint's position when the first
    one arrived, as a JointTrajectoryController interpolates from the commanded state.
    """

    def __init__(self, joints: Sequence[str], trajectories: Sequence[Trajectory]) -> None:
        """known: by joint, in their order, whether it was ever commanded."""
        self._paths = {name: _path(name, trajectories) for name in joints}
        self.known = np.array([bool(path) for path in self._paths.values()])

    def at(self, time_ns: int, measured: np.ndarray) -> np.ndarray:
        """Commanded positions in the order of the joints; for a joint not yet commanded, the measured one."""
        return np.array(
            [_value(path, time_ns, own) for path, own in zip(self._paths.values(), measured, strict=True)], float
        )


@dataclass(frozen=True)
class _Piece:
    """From `start_ns` on: positions over time, the first of them the commanded one at that time (NaN: unknown)."""

    start_ns: int
    times: np.ndarray
    values: np.ndarray


def _path(name: str, trajectories: Sequence[Trajectory]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for trajectory in sorted(trajectories, key=lambda t: t.start_ns):
        if name not in trajectory.joints or not len(trajectory.due_ns):
            continue
        values = trajectory.positions[:, trajectory.joints.index(name)]
        begin = _value(pieces, trajectory.start_ns, math.nan)
        times = np.concatenate([[trajectory.start_ns], trajectory.due_ns])
        pieces.append(_Piece(trajectory.start_ns, times, np.concatenate([[begin], values])))
    return pieces


def _value(pieces: list[_Piece], time_ns: int, unknown: float) -> float:
    place = bisect.bisect_right(pieces, time_ns, key=lambda piece: piece.start_ns) - 1
    if place < 0:
        return unknown
    piece = pieces[place]
    values = piece.values.copy()
    if math.isnan(values[0]):
        values[0] = unknown if not math.isnan(unknown) else values[1]
    return float(np.interp(time_ns - piece.start_ns, piece.times - piece.start_ns, values))
