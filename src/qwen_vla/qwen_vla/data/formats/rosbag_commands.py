# SPDX-License-Identifier: Apache-2.0
"""Commands in a bag: the reader of each command interface, and the commanded position at any time."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from embodiment_descriptions.angles import nearest_turn
from embodiment_descriptions.commands import (
    BaseVelocityCommand,
    CommandInterface,
    ForwardCommand,
    JointTrajectoryCommand,
    XsGroupCommand,
    XsSingleCommand,
    make_part,
)
from qwen_vla_control.observation.streams import OTHER_CLOCK
from qwen_vla_control.stamps import NANOSECONDS, nanoseconds, stamp_of


@dataclass(frozen=True)
class Trajectory:
    """A trajectory_msgs/JointTrajectory: it starts at `start_ns`; positions (P, n) are due at `due_ns` (P,).

    Without points, it stops its joints: what is commanded then holds.
    """

    start_ns: int
    joints: tuple[str, ...]
    due_ns: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, message: Any, arrival_ns: int) -> Trajectory:
        """A stamp of zero means on arrival; ValueError for a message that no controller would follow."""
        start, joints = stamp_of(message) or arrival_ns, tuple(message.joint_names)
        if abs(start - arrival_ns) > OTHER_CLOCK * NANOSECONDS:
            raise ValueError(
                "it is stamped by another clock than the measurements; is use_sim_time the same everywhere?"
            )
        if len(set(joints)) < len(joints):
            raise ValueError(f"it names joints more than once: {', '.join(joints)}")
        for number, point in enumerate(message.points, 1):
            if len(point.positions) != len(joints):
                raise ValueError(
                    f"point {number} of {len(message.points)} has {len(point.positions)} positions for {len(joints)} "
                    "joints; only trajectories of positions can be used"
                )
        offsets = np.array([nanoseconds(point.time_from_start) for point in message.points], np.int64)
        if (offsets < 0).any() or (np.diff(offsets) <= 0).any():
            raise ValueError("time_from_start does not increase from point to point")
        rows = np.array([point.positions for point in message.points], float).reshape(len(offsets), len(joints))
        return cls(start, joints, start + offsets, rows)

    @classmethod
    def at_once(cls, joints: Sequence[str], positions: Sequence[float], arrival_ns: int) -> Trajectory:
        """Set points that hold from their arrival on; ValueError unless there is one per joint."""
        if len(positions) != len(joints):
            raise ValueError(f"it has {len(positions)} values for the {len(joints)} joints {', '.join(joints)}")
        values = np.array(positions, float).reshape(1, -1)
        return cls(arrival_ns, tuple(joints), np.array([arrival_ns], np.int64), values)

    @classmethod
    def stop(cls, joints: Sequence[str], start_ns: int) -> Trajectory:
        """Without points."""
        return cls(start_ns, tuple(joints), np.zeros(0, np.int64), np.zeros((0, len(joints))))


@dataclass(frozen=True)
class CommandReader:
    """Reads the commands of a command interface from a bag.

    `CommandInterface.recorded` names its factory, called with the entry of `commands` and the Embodiment.

    Attributes:
        read: from a message and its arrival [ns] to the Trajectory of URDF joints; for a base, to the time [ns] and the
            velocity (3,) vx, vy, wz [m/s, rad/s] from then on; ValueError says what is wrong with a message. None: a
            bag does not have the commands.
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
    """Read messages that name their joints; one without points stops the controller's."""

    def read(message: Any, arrival: int) -> Trajectory:
        named = set(message.joint_names)
        if not message.points:
            return Trajectory.stop([name for name in command.joints if name in named or not named], arrival)
        if not named & set(command.joints):
            raise ValueError(
                f"it names {', '.join(message.joint_names) or 'no joints'}, and none of this controller's joints "
                f"{', '.join(command.joints)}"
            )
        return Trajectory.of(message, arrival)

    return CommandReader(read)


def forward_command(command: ForwardCommand, embodiment: Embodiment) -> CommandReader:
    """Read values in the order of the controller's joints."""
    return CommandReader(lambda message, arrival: Trajectory.at_once(command.joints, message.data, arrival))


def xs_group(command: XsGroupCommand, embodiment: Embodiment) -> CommandReader:
    """Read values in the order of the group's joints."""

    def read(message: Any, arrival: int) -> Trajectory:
        _check_name(message.name, command.group, "group")
        return Trajectory.at_once(command.joints, message.cmd, arrival)

    return CommandReader(read)


def xs_single(command: XsSingleCommand, embodiment: Embodiment) -> CommandReader:
    """Read the motor angle of a gripper as the position of its finger, by the robot's calibration."""
    gripper = next(arm.gripper for arm in embodiment.arms if arm.gripper and arm.gripper.joint == command.joint)
    motor = command.calibration
    scale = (gripper.open - gripper.closed) / (motor.open - motor.closed)

    def read(message: Any, arrival: int) -> Trajectory:
        _check_name(message.name, command.name, "motor")
        return Trajectory.at_once((command.joint,), [gripper.closed + scale * (message.cmd - motor.closed)], arrival)

    return CommandReader(read)


def _check_name(told: str, known: str, what: str) -> None:
    if told != known:
        raise ValueError(f"it moves the {what} {told!r}; the robot's YAML has {known!r} on this topic")


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
    one arrived, as a JointTrajectoryController interpolates from the commanded state; a continuous joint starts from
    there by the shorter way.

    Attributes:
        known: (joints,) whether each was ever commanded.
        since_ns: (joints,) when each was commanded first [ns]; infinite for never.
    """

    def __init__(
        self,
        joints: Sequence[str],
        trajectories: Sequence[Trajectory],
        continuous: Container[str] = (),
        measured: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        """Combine trajectories for these joints, of which some are continuous.

        measured: where the joints were at a time [ns], in their order; NaN where that is unknown.
        """
        ordered = sorted(trajectories, key=lambda trajectory: trajectory.start_ns)
        firsts = [next((t.start_ns for t in ordered if name in t.joints), None) for name in joints]
        known = [math.nan if time is None or measured is None else measured(time)[k] for k, time in enumerate(firsts)]
        self._paths = {
            name: _path(name, ordered, name in continuous, begin) for name, begin in zip(joints, known, strict=True)
        }
        self._turns = [name in continuous for name in joints]
        self.known = np.array([bool(path) for path in self._paths.values()])
        self.since_ns = np.array([path[0].start_ns if path else math.inf for path in self._paths.values()])

    def at(self, time_ns: int, measured: np.ndarray) -> np.ndarray:
        """Commanded positions in the order of the joints; for a joint not yet commanded, the measured one."""
        each = zip(self._paths.values(), self._turns, measured, strict=True)
        return np.array([_value(path, time_ns, own, turns) for path, turns, own in each], float)


@dataclass(frozen=True)
class _Piece:
    """From `start_ns` on: positions over time, the first of them the commanded one at that time (NaN: unknown)."""

    start_ns: int
    times: np.ndarray
    values: np.ndarray


def _path(name: str, trajectories: Sequence[Trajectory], turns: bool, measured: float) -> list[_Piece]:
    pieces: list[_Piece] = []
    for trajectory in trajectories:
        if name not in trajectory.joints:
            continue
        values = trajectory.positions[:, trajectory.joints.index(name)]
        begin = _value(pieces, trajectory.start_ns, math.nan, turns) if pieces else measured
        if turns and len(values):
            begin = float(nearest_turn(begin, values[0]))
        times = np.concatenate([[trajectory.start_ns], trajectory.due_ns])
        pieces.append(_Piece(trajectory.start_ns, times, np.concatenate([[begin], values])))
    return pieces


def _value(pieces: list[_Piece], time_ns: int, unknown: float, turns: bool) -> float:
    place = bisect.bisect_right(pieces, time_ns, key=lambda piece: piece.start_ns) - 1
    if place < 0:
        return unknown
    piece = pieces[place]
    values = piece.values.copy()
    if math.isnan(values[0]):
        first = values[1] if len(values) > 1 else unknown
        begin = float(nearest_turn(unknown, first)) if turns else unknown
        values[0] = first if math.isnan(unknown) else begin
    return float(np.interp(time_ns - piece.start_ns, piece.times - piece.start_ns, values))
