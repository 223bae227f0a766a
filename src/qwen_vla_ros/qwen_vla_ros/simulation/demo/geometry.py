# SPDX-License-Identifier: Apache-2.0
"""Cameras and predicted paths of a recorded episode, moment by moment, in one frame.

That frame is the odometry frame of a mobile robot, otherwise the root link. Cameras move with their links. Free of
rclpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qwen_vla_control.observation.robot_pose import RobotPose
from qwen_vla_ros.drawing.camera_view import CameraView, pose_from_message
from qwen_vla_ros.drawing.robot_shapes import RobotShapes
from qwen_vla_ros.simulation.demo.recording import FIXED_CAMERA, Moment, Recording


@dataclass(frozen=True)
class Situation:
    """Spatial state at one moment; what is unknown is omitted.

    Attributes:
        views: by camera.
        paths: (N, 3) points of the predicted path [m], by arm, or of the base.
        base: (4, 4) pose of a mobile base.
    """

    views: Mapping[str, CameraView]
    paths: Mapping[str, np.ndarray]
    base: np.ndarray | None


NOTHING_KNOWN = Situation({}, {}, None)


class Geometry:
    """The kinematics of a recording."""

    def __init__(self, recording: Recording) -> None:
        """Prepare the forward kinematics of the robot."""
        self._recording = recording
        self._shapes = RobotShapes(recording.robot.urdf)
        base = recording.robot.base
        self._base_link = base.link if base else self._shapes.root

    def at(self, moment: Moment) -> Situation:
        """State at a moment; empty when the robot's state at it is unknown."""
        if moment.pose is None:
            return NOTHING_KNOWN
        frames = self._frames(moment.pose)
        views = {tag: self._view(tag, info, frames) for tag, info in self._recording.infos.items()}
        paths = {
            name: _moved(frames[path.header.frame_id], path_points(path))
            for name, path in moment.paths.items()
            if path.header.frame_id in frames
        }
        return Situation({tag: view for tag, view in views.items() if view is not None}, paths, moment.pose.base)

    def _frames(self, pose: RobotPose) -> dict[str, np.ndarray]:
        """(4, 4) poses of the robot's frames."""
        links = self._shapes.link_poses(pose.joints)
        if pose.base is None:
            return links
        root = pose.base @ np.linalg.inv(links[self._base_link])
        return {link: root @ place for link, place in links.items()} | {pose.odometry_frame: np.eye(4)}

    def _view(self, tag: str, info, frames: Mapping[str, np.ndarray]) -> CameraView | None:
        optical, fixed = info.header.frame_id, self._recording.fixed_pose
        if optical in frames:
            return CameraView.placed(info, "", frames[optical])
        if tag != FIXED_CAMERA or fixed is None or fixed.header.frame_id not in frames:
            return None
        return CameraView.placed(info, "", frames[fixed.header.frame_id] @ pose_from_message(fixed.pose))


def path_points(path) -> np.ndarray:
    """(N, 3) positions of a nav_msgs/Path [m]."""
    positions = [stamped.pose.position for stamped in path.poses]
    return np.array([(p.x, p.y, p.z) for p in positions]).reshape(-1, 3)


def _moved(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ pose[:3, :3].T + pose[:3, 3]
