"""Joint interfaces that take positions instead of trajectories, without ROS: what they do with a command.

`forward_command_controller` hands the values on, in a fixed order and without names; so does Interbotix' xs_sdk with
the joint groups and single motors of its arms. None of them interpolates or times out: the last value is held for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_sim.controllers.joint_trajectory_controller import JointState
from qwen_vla_sim.controllers.rejected import CommandRejected


class PositionsRejected(CommandRejected):
    """The command is refused as a whole; the text says what is wrong with it."""


class PositionInterface:
    """Joints that go to the last positions they were given, no faster than they can.

    joint_names: order of the values of a command. speeds: what the joints can do [rad/s or m/s], shape (joints,).
    Not safe for use from several threads at once: the owner serialises the calls.
    """

    def __init__(self, joint_names: Sequence[str], positions: Sequence[float], speeds: Sequence[float]) -> None:
        self.joint_names = tuple(joint_names)
        self._speeds = np.array(speeds, float)
        self.hold(positions)

    def hold(self, positions: Sequence[float]) -> None:
        """Forget what was commanded and stay at `positions`, shape (joints,), until the next command."""
        self._goal = np.array(positions, float)
        self._command = self._goal.copy()
        self._at_ns: int | None = None

    def accept(self, values: Sequence[float]) -> None:
        """Go to `values` (joints,) [rad or m]; PositionsRejected, and then nothing has changed."""
        values = np.asarray(values, float)
        if len(values) != len(self.joint_names):
            names = ", ".join(self.joint_names)
            raise PositionsRejected(f"{len(values)} values for {len(self.joint_names)} joints ({names})")
        if not np.isfinite(values).all():
            raise PositionsRejected(f"values that are not finite numbers: {values.tolist()}")
        self._goal = self.positions(values)

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Joint positions [rad or m] of the values of a command."""
        return values

    def update(self, now_ns: int, measured: JointState | None = None) -> np.ndarray:
        """The set point at `now_ns`, shape (joints,); times of successive calls must not decrease."""
        elapsed = 0 if self._at_ns is None else now_ns - self._at_ns
        self._at_ns = now_ns
        reach = self._speeds * (elapsed / NANOSECONDS)
        self._command += np.clip(self._goal - self._command, -reach, reach)
        return self._command


class GripperMotor(PositionInterface):
    """One motor that moves a gripper: commands are motor angles [rad], the joint is a finger [m].

    angles, fingers: (closed, open) as motor angles [rad] and as positions of the finger [m]; linear in between.
    """

    def __init__(
        self, joint: str, position: float, speed: float, angles: tuple[float, float], fingers: tuple[float, float]
    ) -> None:
        self._angles, self._fingers = angles, fingers
        super().__init__([joint], [position], [speed])

    def positions(self, values: np.ndarray) -> np.ndarray:
        (closed, opened), (finger_closed, finger_open) = self._angles, self._fingers
        return finger_closed + (values - closed) / (opened - closed) * (finger_open - finger_closed)

    def angle(self, finger: float) -> float:
        """Motor angle [rad] at a position of the finger [m]."""
        (closed, opened), (finger_closed, finger_open) = self._angles, self._fingers
        return closed + (finger - finger_closed) / (finger_open - finger_closed) * (opened - closed)
