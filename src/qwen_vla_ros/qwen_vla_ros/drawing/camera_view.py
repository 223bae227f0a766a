# SPDX-License-Identifier: Apache-2.0
"""Projection of points around a robot into its camera images. Free of rclpy: any object with the fields will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embodiment_descriptions.poses import pose_matrix

NEAR = 1e-6  # [m] in front of the camera; closer points are out of view


@dataclass(frozen=True)
class CameraView:
    """An ideal pinhole camera.

    Attributes:
        frame_id: the frame in which points are expressed.
        width, height: of the image [px].
        projection: (3, 4), homogeneous points in that frame to homogeneous pixels; the third row yields the depth [m].
    """

    frame_id: str
    width: int
    height: int
    projection: np.ndarray

    @classmethod
    def placed(cls, info: Any, frame_id: str, pose: np.ndarray) -> CameraView:
        """From a sensor_msgs/CameraInfo of a camera without distortion and the (4, 4) pose of its optical frame.

        The optical frame is that of REP-103: x right, y down, z forward.
        """
        if np.any(info.d):
            raise ValueError(f"camera '{info.header.frame_id}' has lens distortion {list(info.d)}; rectify its images")
        extrinsics = np.linalg.inv(pose)[:3]
        return cls(frame_id, info.width, info.height, np.reshape(info.k, (3, 3)) @ extrinsics)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project (N, 3) points [m] to (N, 3): column, row [px] and depth [m].

        Pixels are measured from the corner of the image; points that are not in front of the camera have NaN for both.
        """
        seen = np.column_stack([points, np.ones(len(points))]) @ self.projection.T
        depth = seen[:, 2:]
        pixels = np.divide(seen[:, :2], depth, out=np.full((len(points), 2), np.nan), where=depth > NEAR)
        return np.hstack([pixels, depth])


def pose_from_message(pose: Any) -> np.ndarray:
    """(4, 4) pose from a geometry_msgs/Pose."""
    p, q = pose.position, pose.orientation
    return pose_matrix((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
