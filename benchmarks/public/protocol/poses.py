# SPDX-License-Identifier: Apache-2.0
"""Poses (4, 4) as rows of chunks and of demonstrations; with SciPy, for the environments of simulators that have it."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation


def matrix(position: np.ndarray, rotation: Rotation) -> np.ndarray:
    """The pose (4, 4) with a position [m] and an orientation."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.as_matrix(), position
    return pose


def orientation(pose: np.ndarray) -> Rotation:
    """Of a pose (4, 4)."""
    return Rotation.from_matrix(pose[:3, :3])


def moved(pose: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """A pose (4, 4) moved by a delta (6,) in its own frame: translation [m] and rotation vector [rad]."""
    return pose @ matrix(delta[:3], Rotation.from_rotvec(delta[3:]))


def shifted(pose: np.ndarray, translation: np.ndarray, rotation: Rotation) -> np.ndarray:
    """A pose (4, 4) translated [m] and rotated in place, both along the axes of the frame in which it is given."""
    return matrix(pose[:3, 3] + translation, rotation * orientation(pose))


def pose_vector(pose: np.ndarray) -> np.ndarray:
    """(7,) position [m] and quaternion x y z w, w ≥ 0, of a pose (4, 4)."""
    return np.concatenate([pose[:3, 3], orientation(pose).as_quat(canonical=True)])
