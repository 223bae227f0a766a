# SPDX-License-Identifier: Apache-2.0
"""The pose of the whole robot, for drawing: its joints, and its base in the world. Free of ROS and torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_control.observation.odometry_reader import BasePose, OdometryReader

MAX_GAP = 0.5  # [s] drawing tolerates a larger gap than moving a robot


@dataclass(frozen=True)
class RobotPose:
    """Where the robot is.

    Attributes:
        joints: positions by URDF joint name [rad | m]; all that are known.
        base: (4, 4) pose of the base in `odometry_frame`; None where it is not measured.
        odometry_frame: frame of `base`.
    """

    joints: Mapping[str, float]
    base: np.ndarray | None = None
    odometry_frame: str = ""

    @classmethod
    def of(cls, joints: Mapping[str, float], base: BasePose | None) -> RobotPose:
        """Combine what the two readers return."""
        return cls(joints) if base is None else cls(joints, base.matrix, base.frame)


class RobotReader:
    """The two readers of a robot.

    Attributes:
        joints: requires the arms and the torso; other joints are included where known.
        odometry: None for a fixed robot.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        """Create empty readers."""
        arms = [joint for arm in embodiment.arms for joint in arm.joints]
        self.joints = JointReader(embodiment, (*arms, *embodiment.waist))
        self.odometry = OdometryReader(embodiment) if embodiment.odometry else None

    def latest(self) -> RobotPose | None:
        """Where the robot is by the newest messages; None before the first."""
        joints, base = self.joints.latest().known, self.odometry and self.odometry.latest()
        return RobotPose.of(joints, base) if joints or base else None

    def at(self, stamp_ns: int, max_gap: float = MAX_GAP) -> RobotPose:
        """Where the robot was.

        Args:
            stamp_ns: ROS time [ns].
            max_gap: largest distance to a message [s].

        Raises:
            NotObserved: a joint of an arm, or the base, has no message near that time.
        """
        base = self.odometry and self.odometry.at(stamp_ns, max_gap)
        return RobotPose.of(self.joints.at(stamp_ns, max_gap).known, base)
