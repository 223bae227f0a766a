"""What the executor has commanded, and therefore where the robot is to hold. Free of ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.motion.joint_path import JointPath


@dataclass(frozen=True)
class Motion:
    """A path on its way; `start_ns` is the ROS time of its start, `chunk` is None for the executor's own motions."""

    path: JointPath
    start_ns: int
    chunk: Chunk | None

    def commanded(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities that the controllers are following now, if they started at once."""
        return self.path.at((now_ns - self.start_ns) / 1e9)

    def is_over(self, now_ns: int) -> bool:
        """Tell whether the last row has been reached."""
        return (now_ns - self.start_ns) / 1e9 >= self.path.duration


class CommandState:
    """The current motion, and the position that was commanded last.

    Attributes:
        motion: on its way now, or None.
    """

    def __init__(self, keep: np.ndarray, near: float) -> None:
        """Begin with nothing commanded.

        Args:
            keep: (joints,) True for joints whose last command stands wherever they are measured: a closed gripper
                presses, and would let go if it were told to stay where the object stops it.
            near: how far a joint may be measured from its last command for that command to be held [rad | m].
        """
        self._keep, self._near = keep, near
        self.motion: Motion | None = None
        self._last: np.ndarray | None = None

    def begin(self, motion: Motion) -> None:
        """Take note of a path that was sent."""
        self.motion = motion
        self._last = motion.path.positions[-1].copy()

    def end(self) -> Motion | None:
        """Take note that the motion is over; returns it."""
        motion, self.motion = self.motion, None
        return motion

    def hold(self, positions: np.ndarray) -> Motion | None:
        """Take note that the robot was told to hold; returns the motion that this broke off."""
        self._last = np.array(positions, float)
        return self.end()

    def hold_positions(self, now_ns: int, measured: np.ndarray | None) -> np.ndarray | None:
        """Positions (joints,) at which to hold.

        While a motion of ours is on its way, that is where it has been commanded to be. Otherwise the last command, but
        only near where the robot is measured: somebody else may have moved it since, and holding must not move it far.
        None when nothing is known that is safe to command.
        """
        if self.motion is not None:
            return self.motion.commanded(now_ns)[0]
        if measured is None:
            return None
        if self._last is None:
            return measured
        near = (np.abs(self._last - measured) <= self._near)[~self._keep].all()
        return self._last if near else np.where(self._keep, self._last, measured)
