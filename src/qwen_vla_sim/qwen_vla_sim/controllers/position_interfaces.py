# SPDX-License-Identifier: Apache-2.0
"""Joint interfaces that take positions instead of trajectories. Free of ROS.

`forward_command_controller` forwards the values, in a fixed order and without names; so does Interbotix' xs_sdk for the
joint groups and single motors of its arms. None of them interpolates or times out: the last value is held forever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_sim.controllers.joint_trajectory_controller import JointState
from qwen_vla_sim.controllers.rejected import CommandRejected


class PositionsRejected(CommandRejected):
    """The command is refused as a whole; the text says what is wrong with it."""


class PositionInterface:
    """Joints that move to the last commanded positions at their maximum speed.

    `joint_names` is the order of the values of a command. Not thread-safe: the owner serializes the calls.
    """

    def __init__(self, joint_names: Sequence[str], positions: Sequence[float], speeds: Sequence[float]) -> None:
        """All (joints,): names, start positions [rad or m], maximum speeds [rad/s or m/s]."""
        self.joint_names = tuple(joint_names)
        self._speeds = np.array(speeds, float)
        self.hold(positions)

    def hold(self, positions: ArrayLike) -> None:
        """Discard the command and stay at `positions`, shape (joints,), until the next one."""
        self._goal = np.array(positions, float)
        self._command = self._goal.copy()
        self._at_ns: int | None = None

    def accept(self, values: Sequence[float]) -> None:
        """Move to `values` (joints,) [rad or m]; after PositionsRejected, nothing has changed."""
        wanted = np.asarray(values, float)
        if len(wanted) != len(self.joint_names):
            names = ", ".join(self.joint_names)
            raise PositionsRejected(f"{len(wanted)} values for {len(self.joint_names)} joints ({names})")
        if not np.isfinite(wanted).all():
            raise PositionsRejected(f"the values are not finite: {wanted.tolist()}")
        self._goal = self.positions(wanted)

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Joint positions [rad or m] from the values of a command."""
        return values

    def update(self, now_ns: int, measured: JointState | None = None) -> np.ndarray:
        """The set point at `now_ns`, shape (joints,); times of successive calls must not decrease."""
        elapsed = 0 if self._at_ns is None else now_ns - self._at_ns
        self._at_ns = now_ns
        reach = self._speeds * (elapsed / NANOSECONDS)
        self._command += np.clip(self._goal - self._command, -reach, reach)
        return self._command


class GripperMotor(PositionInterface):
    """One motor that moves a gripper: commands are motor angles [rad], the joint is a finger [m]."""

    def __init__(
        self, joint: str, position: float, speed: float, angles: tuple[float, float], fingers: tuple[float, float]
    ) -> None:
        """angles, fingers: (closed, open) as motor angles [rad] and finger positions [m]; linear in between."""
        self._angles, self._fingers = angles, fingers
        super().__init__([joint], [position], [speed])

    def positions(self, values: np.ndarray) -> np.ndarray:
        (closed, opened), (finger_closed, finger_open) = self._angles, self._fingers
        return finger_closed + (values - closed) / (opened - closed) * (finger_open - finger_closed)

    def angle(self, finger: float) -> float:
        """Motor angle [rad] at a position of the finger [m]."""
        (closed, opened), (finger_closed, finger_open) = self._angles, self._fingers
        return closed + (finger - finger_closed) / (finger_open - finger_closed) * (opened - closed)
