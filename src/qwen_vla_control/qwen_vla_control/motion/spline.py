# SPDX-License-Identifier: Apache-2.0
"""Motion in time as a cubic Hermite spline through equally spaced rows: what joint paths and base paths share."""

from __future__ import annotations

from dataclasses import Field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

Path = TypeVar("Path", bound="Spline")


def monotone_velocities(positions: np.ndarray, period: float, start_velocity: np.ndarray | None = None) -> np.ndarray:
    """Velocities with which the spline stays within the range of each two neighboring rows and ends at rest.

    The velocity at an inner row is the harmonic mean of the two adjacent slopes, zero where they differ in sign
    (Fritsch and Butland 1984, equal spacing). Plain central differences would overshoot a limit that the rows
    themselves respect.

    Args:
        positions: (steps + 1, columns), row 0 is the start.
        period: time between two rows [s].
        start_velocity: (columns,) velocity in row 0; zero by default.
    """
    velocities = np.zeros_like(positions)
    slopes = np.diff(positions, axis=0) / period
    before, after = slopes[:-1], slopes[1:]
    same_sign = before * after > 0
    total = np.where(same_sign, before + after, 1.0)
    velocities[1:-1] = np.where(same_sign, 2.0 * before * after / total, 0.0)
    if start_velocity is not None:
        velocities[0] = start_velocity
    return velocities


class Spline:
    """Base of the dataclasses that hold a path; row 0 is where the motion starts.

    Attributes:
        period: time between two rows [s].
        positions, velocities: (steps + 1, columns).
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    period: float
    positions: np.ndarray
    velocities: np.ndarray

    @property
    def steps(self) -> int:
        """Number of rows after the start."""
        return len(self.positions) - 1

    @property
    def duration(self) -> float:
        """Time from the start to the last row [s]."""
        return self.steps * self.period

    def first(self: Path, steps: int) -> Path:
        """Return the first `steps` steps, ending at rest in the last of them."""
        velocities = self.velocities[: steps + 1].copy()
        velocities[-1] = 0.0
        return replace(self, positions=self.positions[: steps + 1], velocities=velocities)

    def decelerated(self: Path, steps: int, deceleration: np.ndarray) -> Path:
        """Return the first `steps` steps, then slow down along the path to rest.

        The geometry of the path is kept; only its timing is stretched. Deceleration begins earlier where the path would
        otherwise end before the motion does.

        Args:
            steps: steps at full speed.
            deceleration: (columns,) acceleration limit meanwhile, inf for none. Where no deceleration keeps it, the
                result is the longest one, for the gate to refuse.
        """
        shortest = float(np.max(np.abs(self.velocities[steps]) / deceleration)) / self.period
        rows = max(2, int(np.ceil(shortest)))
        while True:
            rows = min(rows, 2 * self.steps)
            path = self._slowed(steps, rows)
            if rows == 2 * self.steps or (path.peak_accelerations()[-rows:] <= deceleration).all():
                return path
            rows += 1 + rows // 2

    def _slowed(self: Path, steps: int, rows: int) -> Path:
        """Slow down from full speed to rest over the last `rows` rows, which cover the distance of half as many."""
        braking = rows * self.period
        full = min(steps, self.steps - (rows + 1) // 2)
        times = np.arange(1, rows + 1) * self.period
        slowed, _ = self.sampled(full * self.period + times - times * times / (2.0 * braking))
        positions = np.vstack([self.positions[: full + 1], slowed])
        tail = monotone_velocities(positions[full:], self.period, self.velocities[full])
        return replace(self, positions=positions, velocities=np.vstack([self.velocities[:full], tail]))

    def at(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities at `time` [s] after the start; beyond the path, its end at rest."""
        positions, velocities = self.sampled(np.array([time]))
        return positions[0], velocities[0]

    def sampled(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same at several times: (times, columns) each."""
        h, inside = self.period, np.clip(times, 0.0, self.duration) / self.period
        step = np.minimum(inside.astype(int), self.steps - 1)
        s = (inside - step)[:, None]
        p0, p1 = self.positions[step], self.positions[step + 1]
        v0, v1 = self.velocities[step], self.velocities[step + 1]
        positions = (
            (1 + 2 * s) * (1 - s) ** 2 * p0
            + s * (1 - s) ** 2 * h * v0
            + s**2 * (3 - 2 * s) * p1
            + s**2 * (s - 1) * h * v1
        )
        linear, square = _velocity_coefficients(p1 - p0, v0, v1, h)
        velocities = v0 + s * linear + s**2 * square
        velocities[times >= self.duration] = 0.0
        return positions, velocities

    def peak_speeds(self) -> np.ndarray:
        """Exact largest speed within each step: (steps, columns) [unit/s]."""
        v0, v1 = self.velocities[:-1], self.velocities[1:]
        linear, square = self._coefficients()
        curved = np.abs(square) > 1e-12
        vertex = np.where(curved, -linear / np.where(curved, 2.0 * square, 1.0), 0.0)
        vertex = np.clip(vertex, 0.0, 1.0)
        inner = v0 + vertex * linear + vertex**2 * square
        return np.maximum(np.maximum(np.abs(v0), np.abs(v1)), np.abs(inner))

    def peak_accelerations(self) -> np.ndarray:
        """Exact largest acceleration within each step, where it is linear in time: (steps, columns) [unit/s²]."""
        linear, square = self._coefficients()
        return np.maximum(np.abs(linear), np.abs(linear + 2.0 * square)) / self.period

    def extents(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of the positions within each step, (steps, columns) each.

        From the convex hull of the Bezier control points: never too narrow, and exact with `monotone_velocities`.
        """
        third = self.period / 3.0
        p0, p1 = self.positions[:-1], self.positions[1:]
        hull = np.stack([p0, p0 + third * self.velocities[:-1], p1 - third * self.velocities[1:], p1])
        return hull.min(axis=0), hull.max(axis=0)

    def _coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        displacements = np.diff(self.positions, axis=0)
        return _velocity_coefficients(displacements, self.velocities[:-1], self.velocities[1:], self.period)


def _velocity_coefficients(displacement: np.ndarray, v0: np.ndarray, v1: np.ndarray, period: float):
    """Coefficients of s and s^2 in the velocity within a step, s in 0..1."""
    mean = displacement / period
    return 6.0 * mean - 4.0 * v0 - 2.0 * v1, 3.0 * (v0 + v1) - 6.0 * mean
