# SPDX-License-Identifier: Apache-2.0
"""Messages of times and poses from the numbers that the suite computes with."""

from __future__ import annotations

import math

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, Vector3
from scipy.spatial.transform import Rotation

NANOSECONDS = 1_000_000_000


def time_message(nanoseconds: int) -> Time:
    """Write nanoseconds as a stamp."""
    sec, nanosec = divmod(nanoseconds, NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def duration_message(seconds: float) -> Duration:
    """Write seconds as a duration."""
    sec, nanosec = divmod(round(seconds * NANOSECONDS), NANOSECONDS)
    return Duration(sec=sec, nanosec=nanosec)


def pose_message(pose: np.ndarray) -> Pose:
    """Write a homogeneous (4, 4) matrix as a pose [m]."""
    return Pose(position=point_message(pose[:3, 3]), orientation=_quaternion(pose))


def transform_message(pose: np.ndarray) -> Transform:
    """Write a homogeneous (4, 4) matrix as a transform [m]."""
    x, y, z = (float(value) for value in pose[:3, 3])
    return Transform(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(pose))


def planar_pose_message(pose: np.ndarray) -> Pose:
    """Write (x [m], y [m], heading [rad]) as a pose in the plane."""
    x, y, heading = (float(value) for value in pose)
    return Pose(position=Point(x=x, y=y), orientation=Quaternion(z=math.sin(heading / 2), w=math.cos(heading / 2)))


def point_message(position: np.ndarray) -> Point:
    """Write (x, y, z) [m] as a point."""
    x, y, z = (float(value) for value in position)
    return Point(x=x, y=y, z=z)


def _quaternion(pose: np.ndarray) -> Quaternion:
    """The rotation of a (4, 4) matrix, of the two quaternions that are the same rotation the one with w ≥ 0."""
    x, y, z, w = (float(value) for value in Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True))
    return Quaternion(x=x, y=y, z=z, w=w)
