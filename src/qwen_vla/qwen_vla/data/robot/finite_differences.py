# SPDX-License-Identifier: Apache-2.0
"""Actions for recordings without actions: finite differences of proprioception (paper §3.2.1).

Row t's action leads from row t to row t+1; the last row of an episode holds. Poses are x y z [m]
and a quaternion x y z w; rotations are compared on SO(3), never by subtracting their parameters.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from embodiment_descriptions.angles import wrapped


def next_rows(values: np.ndarray) -> np.ndarray:
    """(T, ...) absolute targets: the next measured row; for the last row, itself."""
    return np.concatenate([values[1:], values[-1:]])


def pose_deltas(poses: np.ndarray) -> np.ndarray:
    """(T, 7) poses to (T, 6) x y z [m] and rotation vector [rad] of T_t⁻¹·T_{t+1}, in the frame of row t; last zero."""
    poses = np.asarray(poses, np.float64)
    return relative_poses(poses, next_rows(poses))


def relative_poses(origins: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(N, 7) origins T₀ and (N, 7) poses T to (N, 6) x y z [m] and rotation vector [rad] of T₀⁻¹·T; angle in [0, π]."""
    inverse = Rotation.from_quat(origins[:, 3:7]).inv()
    turn = inverse * Rotation.from_quat(poses[:, 3:7])
    return np.concatenate([inverse.apply(poses[:, :3] - origins[:, :3]), turn.as_rotvec()], axis=1)


def moved_poses(origins: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Undo `relative_poses`: (N, 7) origins and (N, 6) deltas in their frames to (N, 7) poses."""
    turn = Rotation.from_quat(origins[:, 3:7])
    place = origins[:, :3] + turn.apply(deltas[:, :3])
    return np.concatenate([place, (turn * Rotation.from_rotvec(deltas[:, 3:])).as_quat()], axis=1)


def base_velocities(poses: np.ndarray, rate_hz: float) -> np.ndarray:
    """(T, 3) x y [m] θ [rad] to (T, 3) vx vy [m/s] ωz [rad/s] in the base's frame; the last is zero.

    The twist that, if constant for one period, leads exactly to the next pose: the logarithm of the step on SE(2).
    """
    poses = np.asarray(poses, np.float64)
    step = next_rows(poses) - poses
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    dx, dy = cos * step[:, 0] + sin * step[:, 1], cos * step[:, 1] - sin * step[:, 0]
    half = wrapped(step[:, 2]) / 2
    straight = np.abs(half) < 1e-6
    scale = np.where(straight, 1 - half**2 / 3, half / np.tan(np.where(straight, 1.0, half)))
    return rate_hz * np.stack([scale * dx + half * dy, scale * dy - half * dx, 2 * half], axis=1)
