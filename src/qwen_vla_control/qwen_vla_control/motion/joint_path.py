# SPDX-License-Identifier: Apache-2.0
"""A joint path in time: the cubic spline that a JointTrajectoryController makes from positions and velocities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwen_vla_control.motion.spline import Spline, monotone_velocities

FADES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0)  # shares of a chunk, tried in this order


@dataclass(frozen=True)
class JointPath(Spline):
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
        """Connect points by a spline that stays within the range of each two neighboring points and ends at rest.

        Args:
            joints: names, one per column.
            positions: (steps + 1, joints), row 0 is the start.
            period: time between two rows [s].
            start_velocity: velocity in row 0; zero by default.
        """
        positions = np.array(positions, dtype=float)
        return cls(tuple(joints), float(period), positions, monotone_velocities(positions, period, start_velocity))

    @classmethod
    def blended_in(
        cls,
        joints: Sequence[str],
        rows: np.ndarray,
        period: float,
        start: np.ndarray,
        velocity: np.ndarray,
        acceleration: np.ndarray,
    ) -> JointPath:
        """Connect rows to where the robot is: the offset is canceled at first and faded out as quickly as allowed.

        At high rates, moving from the start to the first row would need far more acceleration than the rows do.

        Args:
            joints: names, one per column.
            rows: (steps, joints) of the chunk.
            period: time between two rows [s].
            start, velocity: (joints,) where the robot is and how it moves.
            acceleration: (joints,) the limit, inf for columns that need no fading. Where no fade keeps it, the result
                is the longest one, for the gate to refuse.
        """
        drift = (rows[1] - rows[0]) / period if len(rows) > 1 else np.zeros(len(start))
        target = np.vstack([rows[0] - drift * period, rows])
        fades = np.isfinite(acceleration)
        offset, slip = np.where(fades, start - target[0], 0.0), np.where(fades, velocity - drift, 0.0)
        target[0, ~fades] = start[~fades]
        fade_steps = [max(1, round(share * len(rows))) for share in FADES]

        def faded(steps: int) -> JointPath:
            s = np.minimum(np.arange(len(target)) / steps, 1.0)[:, None]
            rest = (1 + 2 * s) * (1 - s) ** 2 * offset + s * (1 - s) ** 2 * steps * period * slip
            return cls.through(joints, target + rest, period, velocity)

        for steps in fade_steps[:-1]:
            path = faded(steps)
            if (path.peak_accelerations()[: steps + 1] <= acceleration).all():
                return path
        return faded(fade_steps[-1])

    @classmethod
    def standing(cls, joints: Sequence[str], positions: np.ndarray, time: float) -> JointPath:
        """Return a path of one step of `time` [s] that stays in place."""
        row = np.asarray(positions, float)
        return cls(tuple(joints), time, np.stack([row, row]), np.zeros((2, len(row))))

    def select(self, joints: Sequence[str]) -> JointPath:
        """Return the motion of some of the joints, in the order given."""
        columns = [self.joints.index(name) for name in joints]
        return JointPath(tuple(joints), self.period, self.positions[:, columns], self.velocities[:, columns])


def rest_to_rest(
    joints: Sequence[str],
    start: np.ndarray,
    goal: np.ndarray,
    speed: np.ndarray,
    period: float,
    acceleration: np.ndarray | None = None,
) -> JointPath:
    """Plan a straight motion in joint space with zero velocity and acceleration at both ends (quintic in time).

    Args:
        joints: names.
        start, goal: (joints,) [rad | m].
        speed: (joints,) largest speed allowed [rad/s | m/s]; the slowest joint sets the duration.
        period: time between two rows [s].
        acceleration: (joints,) largest acceleration [rad/s² | m/s²]; no limit by default.

    Returns:
        A path of at least two rows after the start.
    """
    start, goal = np.asarray(start, float), np.asarray(goal, float)
    peak_of_unit_motion = 15.0 / 8.0  # of s^3 (10 - 15 s + 6 s^2), at its middle
    duration = float(np.max(peak_of_unit_motion * np.abs(goal - start) / speed))
    if acceleration is not None:
        peak_of_unit_acceleration = 10.0 / np.sqrt(3.0)
        duration = max(
            duration, float(np.sqrt(np.max(peak_of_unit_acceleration * np.abs(goal - start) / acceleration)))
        )
    steps = max(2, int(np.ceil(duration / period)))
    s = np.linspace(0.0, 1.0, steps + 1)[:, None]
    positions = start + (goal - start) * s**3 * (10.0 - 15.0 * s + 6.0 * s**2)
    velocities = (goal - start) * 30.0 * s**2 * (1.0 - s) ** 2 / (steps * period)
    return JointPath(tuple(joints), float(period), positions, velocities)
