# SPDX-License-Identifier: Apache-2.0
"""The ghost: a second robot in RViz at the end of a chunk. It builds messages; a node publishes them."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from std_msgs.msg import Header

from embodiment_descriptions import Embodiment
from qwen_vla_control.observation.robot_pose import RobotPose
from qwen_vla_ros.drawing.chunk_markers import ghost_transforms
from qwen_vla_ros.drawing.robot_shapes import RobotShapes


class GhostRobot:
    """Shows the end of the last chunk while it is relevant, otherwise coincides with the robot."""

    def __init__(self, embodiment: Embodiment) -> None:
        """Prepare the kinematics of the whole robot."""
        self._shapes = RobotShapes(embodiment.urdf)
        self._base_link = embodiment.base.link if embodiment.base else self._shapes.root
        self._target: RobotPose | None = None
        self._until = 0.0

    def follow(self, target: RobotPose, until: float) -> None:
        """Show `target` until the steady time `until` [s]."""
        self._target, self._until = target, until

    def rest(self) -> None:
        """Return to the robot."""
        self._target = None

    def pose(self, measured: RobotPose, now: float) -> RobotPose:
        """State of the ghost at the steady time `now` [s], with the robot at `measured`."""
        if self._target is None or now > self._until:
            return measured
        return RobotPose({**measured.joints, **self._target.joints}, self._target.base, self._target.odometry_frame)

    def transforms(self, pose: RobotPose, stamp: Time) -> list[TransformStamped]:
        """Transforms of all links, in the robot's root link, or in the odometry frame where it is known."""
        links = self._shapes.link_poses(pose.joints)
        if pose.base is None:
            return ghost_transforms(Header(stamp=stamp, frame_id=self._shapes.root), links, np.eye(4))
        root = pose.base @ np.linalg.inv(links[self._base_link])
        return ghost_transforms(Header(stamp=stamp, frame_id=pose.odometry_frame), links, root)
