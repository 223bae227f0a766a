# SPDX-License-Identifier: Apache-2.0
"""Conversions between two representations of poses: homogeneous matrices, and position with quaternion (x y z w)."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation


def pose_vector(poses: ArrayLike) -> NDArray[np.float64]:
    """Convert (..., 4, 4) matrices to (..., 7): x y z [m], quaternion x y z w with w ≥ 0."""
    poses = np.asarray(poses, np.float64)
    quaternions = Rotation.from_matrix(poses[..., :3, :3].reshape(-1, 3, 3)).as_quat(canonical=True)
    return np.concatenate([poses[..., :3, 3], quaternions.reshape(*poses.shape[:-2], 4)], axis=-1)


def pose_matrix(position: ArrayLike, quaternion: ArrayLike) -> NDArray[np.float64]:
    """Convert a position (3,) [m] and a quaternion (4,), x y z w, to a (4, 4) matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), position
    return matrix
