"""Where points of the robot's base frame appear in an image. Free of rclpy: any object with the fields will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

NEAR = 1e-6  # [m] in front of the camera; nearer points are not in view


@dataclass(frozen=True)
class CameraView:
    """An ideal pinhole camera.

    Attributes:
        frame_id: the frame in which points are given.
        width, height: of the image [px].
        projection: (3, 4), homogeneous points of that frame to homogeneous pixels; the third row gives the depth [m].
    """

    frame_id: str
    width: int
    height: int
    projection: np.ndarray

    @classmethod
    def from_messages(cls, info: Any, pose: Any) -> CameraView:
        """From a sensor_msgs/CameraInfo of a camera without distortion and its optical frame as PoseStamped.

        The optical frame is that of REP-103: x right, y down, z forward.
        """
        if np.any(info.d):
            raise ValueError(f"camera '{info.header.frame_id}' has lens distortion {list(info.d)}; rectify its images")
        p, q = pose.pose.position, pose.pose.orientation
        rotation = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix().T
        extrinsics = np.column_stack([rotation, -rotation @ [p.x, p.y, p.z]])
        intrinsics = np.reshape(info.k, (3, 3))
        return cls(pose.header.frame_id, info.width, info.height, intrinsics @ extrinsics)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) points [m] to (N, 3): column, row [px] and depth [m].

        Pixels count from the corner of the image; points that are not in front of the camera get NaN for both.
        """
        seen = np.column_stack([points, np.ones(len(points))]) @ self.projection.T
        depth = seen[:, 2:]
        pixels = np.divide(seen[:, :2], depth, out=np.full((len(points), 2), np.nan), where=depth > NEAR)
        return np.hstack([pixels, depth])
