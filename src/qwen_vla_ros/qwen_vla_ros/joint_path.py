"""A joint path in time: the cubic spline that a JointTrajectoryController makes of positions and velocities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class JointPath:
    """Cubic Hermite spline through equally spaced points; row 0 is where the motion starts.

    Attributes:
        joints: names, one per column.
        period: time between two rows [s].
        positions: (steps + 1, joints) [rad | m].
        velocities: (steps + 1, joints) [rad/s | m/s].
    """

    joints: tuple[str, ...]
    period: float
    positions: np.ndarray
    velocities: np.ndarray

    @classmethod
    def through(
        cls,
        joints: Sequence[str],
        positions: np.ndarray,
        period: float,
        start_velocity: np.ndarray | None = None,
    ) -> JointPath:
        """Join points by a spline that never leaves the range of two neighbouring points and ends at rest.

        The velocity at an inner point is the harmonic mean of the two slopes beside it, zero where they differ in sign
        (Fritsch and Butland 1984, equal spacing). Plain central differences would overshoot a limit that the points
        themselves respect.

        Args:
            joints: names, one per column.
            positions: (steps + 1, joints), row 0 is the start.
            period: time between two rows [s].
            start_velocity: velocity in row 0; zero by default.
        """
        positions = np.array(positions, dtype=float)
        velocities = np.zeros_like(positions)
        slopes = np.diff(positions, axis=0) / period
        before, after = slopes[:-1], slopes[1:]
        same_sign = before * after > 0
        total = np.where(same_sign, before + after, 1.0)
        velocities[1:-1] = np.where(same_sign, 2.0 * before * after / total, 0.0)
        if start_velocity is not None:
            velocities[0] = start_velocity
        return cls(tuple(joints), float(period), positions, velocities)

    @property
    def steps(self) -> int:
        """Number of rows after the start."""
        return len(self.positions) - 1

    @property
    def duration(self) -> float:
        """Time from the start to the last row [s]."""
        return self.steps * self.period

    def first(self, steps: int) -> JointPath:
        """Return the first `steps` steps, ending at rest."""
        velocities = self.velocities[: steps + 1].copy()
        velocities[-1] = 0.0
        return JointPath(self.joints, self.period, self.positions[: steps + 1], velocities)

    def select(self, joints: Sequence[str]) -> JointPath:
        """Return the same motion of some of the joints, in the order given."""
        columns = [self.joints.index(name) for name in joints]
        return JointPath(tuple(joints), self.period, self.positions[:, columns], self.velocities[:, columns])

    def at(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities at `time` [s] after the start; later than the path, its end at rest."""
        if time <= 0.0:
            return self.positions[0].copy(), self.velocities[0].copy()
        if time >= self.duration:
            return self.positions[-1].copy(), np.zeros(len(self.joints))
        step = min(int(time / self.period), self.steps - 1)
        s, h = time / self.period - step, self.period
        p0, p1 = self.positions[step], self.positions[step + 1]
        v0, v1 = self.velocities[step], self.velocities[step + 1]
        position = (
            (1 + 2 * s) * (1 - s) ** 2 * p0
            + s * (1 - s) ** 2 * h * v0
            + s**2 * (3 - 2 * s) * p1
            + s**2 * (s - 1) * h * v1
        )
        linear, square = self._velocity_coefficients()
        return position, v0 + s * linear[step] + s**2 * square[step]

    def peak_speeds(self) -> np.ndarray:
        """Largest speed within each step, exactly: (steps, joints) [rad/s | m/s]."""
        v0, v1 = self.velocities[:-1], self.velocities[1:]
        linear, square = self._velocity_coefficients()
        curved = np.abs(square) > 1e-12
        vertex = np.where(curved, -linear / np.where(curved, 2.0 * square, 1.0), 0.0)
        vertex = np.clip(vertex, 0.0, 1.0)
        inner = v0 + vertex * linear + vertex**2 * square
        return np.maximum(np.maximum(np.abs(v0), np.abs(v1)), np.abs(inner))

    def extents(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of the positions within each step, (steps, joints) each [rad | m].

        From the convex hull of the Bezier control points: never too narrow, and exact for paths made by `through`.
        """
        third = self.period / 3.0
        p0, p1 = self.positions[:-1], self.positions[1:]
        hull = np.stack([p0, p0 + third * self.velocities[:-1], p1 - third * self.velocities[1:], p1])
        return hull.min(axis=0), hull.max(axis=0)

    def _velocity_coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of s and s^2 in the velocity of each step, s in 0..1."""
        v0, v1 = self.velocities[:-1], self.velocities[1:]
        mean = np.diff(self.positions, axis=0) / self.period
        return 6.0 * mean - 4.0 * v0 - 2.0 * v1, 3.0 * (v0 + v1) - 6.0 * mean


def rest_to_rest(
    joints: Sequence[str], start: np.ndarray, goal: np.ndarray, speed: np.ndarray, period: float
) -> JointPath:
    """Plan a straight motion in joint space with zero velocity and acceleration at both ends (quintic in time).

    Args:
        joints: names.
        start, goal: (joints,) [rad | m].
        speed: (joints,) largest speed allowed [rad/s | m/s]; the slowest joint sets the duration.
        period: time between two rows [s].

    Returns:
        A path of at least one row after the start.
    """
    start, goal = np.asarray(start, float), np.asarray(goal, float)
    peak_of_unit_motion = 15.0 / 8.0  # of s^3 (10 - 15 s + 6 s^2), at its middle
    duration = float(np.max(peak_of_unit_motion * np.abs(goal - start) / speed))
    steps = max(2, int(np.ceil(duration / period)))
    s = np.linspace(0.0, 1.0, steps + 1)[:, None]
    positions = start + (goal - start) * s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    velocities = (goal - start) * 30.0 * s**2 * (1.0 - s) ** 2 / (steps * period)
    return JointPath(tuple(joints), float(period), positions, velocities)
