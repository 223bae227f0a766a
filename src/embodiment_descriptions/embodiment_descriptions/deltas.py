# SPDX-License-Identifier: Apache-2.0
"""Pose differences as the policy uses them: end-effector deltas in the frame of a first pose.

A delta is (x, y, z, rx, ry, rz): the translation [m] and rotation vector [rad] of T0^-1 T, expressed in the frame T0.
In a chunk, T0 is the tip pose at its first frame for every step (Qwen-VLA, section 5.2.1).
"""

import numpy as np
import pinocchio as pin
from numpy.typing import ArrayLike, NDArray


def delta_from_poses(first: ArrayLike, pose: ArrayLike) -> NDArray[np.float64]:
    """Express a pose relative to a first one.

    Args:
        first: (4, 4) pose T0 of the tip in any fixed frame.
        pose: (..., 4, 4) pose T of the tip in the same frame.

    Returns:
        (..., 6) translation [m] and rotation vector [rad] of T0^-1 T; the angle lies in [0, pi].
    """
    from scipy.spatial.transform import Rotation  # 40 MB that executing deltas does not need

    first, pose = _poses(first), _poses(pose)
    inverse = first[:3, :3].T
    translation = (pose[..., :3, 3] - first[:3, 3]) @ inverse.T
    rotation = Rotation.from_matrix((inverse @ pose[..., :3, :3]).reshape(-1, 3, 3)).as_rotvec()
    return np.concatenate([translation, rotation.reshape(translation.shape)], axis=-1)


def pose_from_delta(first: ArrayLike, delta: ArrayLike) -> NDArray[np.float64]:
    """Apply a delta to a pose; the inverse of delta_from_poses.

    Args:
        first: (4, 4) pose T0 of the tip.
        delta: (..., 6) translation [m] and rotation vector [rad] in the frame T0.

    Returns:
        (..., 4, 4) pose T of the tip in the frame in which T0 is given.
    """
    first, delta = _poses(first), np.asarray(delta, dtype=np.float64)
    if delta.shape[-1:] != (6,) or not np.isfinite(delta).all():
        raise ValueError(f"a delta is 6 finite numbers (x, y, z, rx, ry, rz); got shape {delta.shape}: {delta}")
    pose = np.zeros((*delta.shape[:-1], 4, 4))
    rotation = np.array([pin.exp3(vector) for vector in delta[..., 3:].reshape(-1, 3)])
    pose[..., :3, :3] = first[:3, :3] @ rotation.reshape(*delta.shape[:-1], 3, 3)
    pose[..., :3, 3] = delta[..., :3] @ first[:3, :3].T + first[:3, 3]
    pose[..., 3, 3] = 1.0
    return pose


def _poses(value: ArrayLike) -> NDArray[np.float64]:
    pose = np.asarray(value, dtype=np.float64)
    if pose.shape[-2:] != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"a pose is a finite 4x4 matrix; got shape {pose.shape}")
    return pose
