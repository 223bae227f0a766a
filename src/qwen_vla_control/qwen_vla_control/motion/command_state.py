# SPDX-License-Identifier: Apache-2.0
"""What the executor has commanded, and so where the robot must hold. Free of ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np

from qwen_vla_control.chunk import Chunk
from qwen_vla_control.motion.timed_path import Kind


@dataclass(frozen=True)
class Motion(Generic[Kind]):
    """A path being executed.

    Attributes:
        path: what was sent.
        start_ns: ROS time of its start [ns].
        chunk: what it was made of; None for the executor's own motions.
        name: of the executor's own motions, in messages to the user.
    """

    path: Kind
    start_ns: int
    chunk: Chunk | None
    name: str = "home motion"

    def commanded(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities that the controllers are following now, if they started at once."""
        return self.path.at((now_ns - self.start_ns) / 1e9)

    def is_over(self, now_ns: int) -> bool:
        """Whether the last row has been reached."""
        return (now_ns - self.start_ns) / 1e9 >= self.path.duration


class CommandState(Generic[Kind]):
    """The current motion and the last commanded position.

    Attributes:
        motion: being executed now, or None.
        last: (columns,) last commanded position; None if unknown.
    """

    def __init__(self) -> None:
        """Begin with nothing commanded."""
        self.motion: Motion[Kind] | None = None
        self.last: np.ndarray | None = None

    def begin(self, motion: Motion[Kind]) -> None:
        """Record a path that was sent."""
        self.motion = motion
        self.last = motion.path.positions[-1].copy()

    def end(self) -> Motion[Kind] | None:
        """Record that the motion is over; returns it."""
        motion, self.motion = self.motion, None
        return motion

    def stand(self, positions: np.ndarray | None) -> Motion[Kind] | None:
        """Record that the robot holds there (columns,), None for unknown; returns the motion that this aborted."""
        self.last = None if positions is None else np.array(positions, float)
        return self.end()
