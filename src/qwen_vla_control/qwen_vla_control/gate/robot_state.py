# SPDX-License-Identifier: Apache-2.0
"""The robot's state on which the gate bases a decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_control.motion.command_state import Motion


@dataclass(frozen=True)
class Reference:
    """Where the controllers of the joints would start from.

    Attributes:
        positions: (joints,) [rad | m], continuous joints in the turn in which they are measured.
        sources: who says so, one per joint.
    """

    positions: np.ndarray
    sources: tuple[str, ...]


@dataclass(frozen=True)
class RobotState:
    """Where the robot is and was, and what it is executing.

    Vectors have the columns of the gate: (joints,) [rad | m], or of a base (x [m], y [m], theta [rad]) by its odometry.

    Attributes:
        now_ns: ROS time of the decision [ns].
        observed: where the robot was at the chunk's observation: what the chunk is relative to.
        measured: where it is now.
        motion: what it is executing, None at rest.
        frame: odometry frame of the vectors of a base; "" for joints.
        reference: where the controllers start from; None: where the robot is.
    """

    now_ns: int
    observed: np.ndarray
    measured: np.ndarray
    motion: Motion | None = None
    frame: str = ""
    reference: Reference | None = None

    @property
    def start(self) -> np.ndarray:
        """Where what is commanded next begins."""
        return self.measured if self.reference is None else self.reference.positions

    @property
    def velocity(self) -> np.ndarray | None:
        """Commanded velocity now [columns' units per second], None at rest."""
        return self.motion.commanded(self.now_ns)[1] if self.motion is not None else None
