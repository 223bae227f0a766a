# SPDX-License-Identifier: Apache-2.0
"""Rotations as data sets record them, converted once, at the edge: inside, a rotation is a unit quaternion x y z w.

Chunks hold rotation vectors relative to their first frame, whatever was recorded: parameters of rotations are never
subtracted.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

RotationKind = Literal["quaternion", "rotation_vector", "euler", "matrix_6d"]
# The elements of each kind. euler: about the fixed axes x, then y, then z, as in URDF and REP-103. matrix_6d: the first
# two columns of the rotation matrix (Zhou et al. 2019), which a network may have made: they need not be orthonormal.
ELEMENTS: dict[RotationKind, tuple[str, ...]] = {
    "quaternion": ("qx", "qy", "qz", "qw"),
    "rotation_vector": ("rx", "ry", "rz"),
    "euler": ("roll", "pitch", "yaw"),
    "matrix_6d": ("r11", "r21", "r31", "r12", "r22", "r32"),
}
ANGLES = (*ELEMENTS["rotation_vector"], *ELEMENTS["euler"])
SHORTEST = 1e-3  # sine of the angle between two columns that still define a rotation


def quaternions(values: np.ndarray, kind: RotationKind) -> np.ndarray:
    """(..., elements) of a kind, angles in rad, to (..., 4) unit quaternions x y z w; NaN where invalid."""
    values = np.asarray(values, np.float64)
    valid = np.isfinite(values).all(axis=-1)
    if kind == "quaternion":
        valid &= np.linalg.norm(values, axis=-1) > 0.5
    elif kind == "matrix_6d":
        first, second = values[..., :3], values[..., 3:]
        lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        valid &= np.linalg.norm(np.cross(first, second), axis=-1) > SHORTEST * np.maximum(lengths, SHORTEST)
    found = np.full((*values.shape[:-1], 4), np.nan)
    if valid.any():
        found[valid] = _rotation(values[valid], kind).as_quat()
    return found


def _rotation(values: np.ndarray, kind: RotationKind) -> Rotation:
    """(N, elements), all valid."""
    if kind == "quaternion":
        return Rotation.from_quat(values)
    if kind == "rotation_vector":
        return Rotation.from_rotvec(values)
    if kind == "euler":
        return Rotation.from_euler("xyz", values)
    first = values[:, :3] / np.linalg.norm(values[:, :3], axis=1, keepdims=True)
    second = values[:, 3:] - (first * values[:, 3:]).sum(axis=1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return Rotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=2))
