"""What the executor has commanded, and so where the robot must hold. Free of ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.motion.joint_path import JointPath


@dataclass(frozen=True)
class Motion:
    """A path being executed since ROS time `start_ns`; `chunk` is None for the executor's own motions."""

    path: JointPath
    start_ns: int
    chunk: Chunk | None

    def commanded(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities that the controllers are following now, if they started at once."""
        return self.path.at((now_ns - self.start_ns) / 1e9)

    def is_over(self, now_ns: int) -> bool:
        """Whether the last row has been reached."""
        return (now_ns - self.start_ns) / 1e9 >= self.path.duration


class CommandState:
    """The current motion and the last commanded position.

    Attributes:
        motion: being executed now, or None.
    """

    def __init__(self, keep: np.ndarray, near: float) -> None:
        """Begin with nothing commanded.

        Args:
            keep: (joints,) True for joints whose last command stays valid wherever they are measured: a closed gripper
                presses, and would let go if it were commanded to stay where the object stops it.
            near: largest distance between measurement and last command at which that command is held [rad | m].
        """
        self._keep, self._near = keep, near
        self.motion: Motion | None = None
        self._last: np.ndarray | None = None

    def begin(self, motion: Motion) -> None:
        """Record a path that was sent."""
        self.motion = motion
        self._last = motion.path.positions[-1].copy()

    def end(self) -> Motion | None:
        """Record that the motion is over; returns it."""
        motion, self.motion = self.motion, None
        return motion

    def hold(self, positions: np.ndarray) -> Motion | None:
        """Record that the robot was commanded to hold; returns the motion that this aborted."""
        self._last = np.array(positions, float)
        return self.end()

    def hold_positions(self, now_ns: int, measured: np.ndarray | None) -> np.ndarray | None:
        """Positions (joints,) at which to hold.

        During a motion of ours, the position commanded now. Otherwise the last command, but only if the robot is
        measured near it: somebody else may have moved it since, and holding must not move it far. None when no known
        position is safe to command.
        """
        if self.motion is not None:
            return self.motion.commanded(now_ns)[0]
        if measured is None:
            return None
        if self._last is None:
            return measured
        near = (np.abs(self._last - measured) <= self._near)[~self._keep].all()
        return self._last if near else np.where(self._keep, self._last, measured)
