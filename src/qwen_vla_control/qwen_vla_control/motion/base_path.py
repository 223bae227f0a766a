# SPDX-License-Identifier: Apache-2.0
"""The path of a mobile base in time, in the frame of its odometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodiment_descriptions.angles import wrapped
from qwen_vla_control.motion.spline import Spline, monotone_velocities


@dataclass(frozen=True)
class BasePath(Spline):
    """Cubic Hermite spline through equally spaced poses; row 0 is where the base is.

    Attributes:
        frame: frame of the poses, that of the odometry.
        period: time between two rows [s].
        positions: (steps + 1, 3) x [m], y [m], theta [rad]; theta is unwrapped: it continues beyond pi.
        velocities: (steps + 1, 3) in the same frame [m/s, m/s, rad/s].
    """

    frame: str
    period: float
    positions: np.ndarray
    velocities: np.ndarray

    @classmethod
    def through(
        cls, frame: str, poses: np.ndarray, period: float, start_velocity: np.ndarray | None = None
    ) -> BasePath:
        """Connect poses (steps + 1, 3) by a smooth motion that ends at rest; headings take the shorter rotation."""
        poses = np.array(poses, dtype=float)
        poses[:, 2] = np.unwrap(poses[:, 2])
        return cls(frame, float(period), poses, monotone_velocities(poses, period, start_velocity))

    def mean_speeds(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean linear speed [m/s] and mean angular speed [rad/s] of every step, (steps,) each."""
        velocities = np.diff(self.positions, axis=0) / self.period
        return np.hypot(velocities[:, 0], velocities[:, 1]), np.abs(velocities[:, 2])


def moved(pose: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Poses at `offset` (..., 3) relative to `pose` (3,): x, y [m] and theta [rad]."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    dx, dy, dtheta = np.moveaxis(np.asarray(offset, float), -1, 0)
    return np.stack([pose[0] + c * dx - s * dy, pose[1] + s * dx + c * dy, pose[2] + dtheta], axis=-1)


def seen_from(pose: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the inverse of `moved`: `other` (..., 3) relative to `pose` (..., 3), theta within -pi .. pi."""
    pose, other = np.asarray(pose, float), np.asarray(other, float)
    c, s = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    dx, dy, dtheta = np.moveaxis(other - pose, -1, 0)
    return np.stack([c * dx + s * dy, -s * dx + c * dy, wrapped(dtheta)], axis=-1)


def increments(poses: np.ndarray) -> np.ndarray:
    """Steps (..., steps, 3) between poses (..., steps + 1, 3), each relative to the pose before it."""
    return seen_from(poses[..., :-1, :], poses[..., 1:, :])


def accumulated(start: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Poses (..., steps, 3) that increments (..., steps, 3) reach from `start` (3,); theta is unwrapped."""
    dx, dy, dtheta = np.moveaxis(np.asarray(steps, float), -1, 0)
    after = start[2] + np.cumsum(dtheta, axis=-1)
    before = np.concatenate([np.broadcast_to(start[2], after[..., :1].shape), after[..., :-1]], axis=-1)
    c, s = np.cos(before), np.sin(before)
    x, y = np.cumsum(c * dx - s * dy, axis=-1), np.cumsum(s * dx + c * dy, axis=-1)
    return np.stack([start[0] + x, start[1] + y, after], axis=-1)


def integrated(pose: np.ndarray, velocities: np.ndarray, period: float) -> np.ndarray:
    """Poses (steps, 3) that a base reaches with body velocities (steps, 3), each held for `period` [s].

    Each step is the exact arc: with phi = w T, the chord is [[sin phi, cos phi - 1], [1 - cos phi, sin phi]] / w times
    (vx, vy).
    """
    poses = np.empty((len(velocities), 3))
    for row, (vx, vy, w) in enumerate(np.asarray(velocities, float)):
        phi = w * period
        # Written with sinc to stay finite at phi = 0.
        along, across = np.sinc(phi / np.pi), 0.5 * phi * np.sinc(phi / (2.0 * np.pi)) ** 2
        chord = period * np.array([along * vx - across * vy, across * vx + along * vy])
        pose = poses[row] = moved(pose, np.array([*chord, phi]))
    return poses
