"""From a chunk of joint positions to commands, or the reason why it must not move the robot.

The rules are those of the gate before a real robot: position limits, start jump, step, speed, acceleration of the cubic
spline that a controller makes of the rows (Fritsch and Butland 1984), and parts that would touch.
"""

from __future__ import annotations

import numpy as np

from embodiment_descriptions import Embodiment

GRIPPER_OVERSHOOT = 0.1  # how far beyond 0 .. 1 a gripper channel may lie; the finger stops at its end
GRIPPER_SHARE_OF_SPEED = 0.5  # within a step of the spline the speed is up to twice the mean
FADES = (2, 5, 10, 15, 25)  # rows over which the offset between the command and the first row may fade out
TOLERANCE = 1e-6


class ChunkRules:
    """What joint_position chunks of one robot must keep."""

    def __init__(self, embodiment: Embodiment) -> None:
        self.embodiment = embodiment
        self.names = tuple(embodiment.joint_names)
        self._arm, self._grippers = embodiment.layout.joints, embodiment.layout.grippers
        limits = [embodiment.limits[name] for name in self.names]
        self._low = np.array([limit.lower for limit in limits])
        self._high = np.array([limit.upper for limit in limits])
        safety = embodiment.safety
        self._speed = np.array([limit.velocity * safety.max_joint_speed_fraction for limit in limits])
        self._finger_step = GRIPPER_SHARE_OF_SPEED * self._speed[len(self._arm) :] * embodiment.period
        self._executed = embodiment.chunk_size // 2

    def joints(self, chunk: np.ndarray, command: np.ndarray) -> np.ndarray:
        """(H, 14) channels as (H, 14) joint targets [rad, m] that go on from `command` (14,).

        Fingers follow as fast as they can; the offset between command and first row fades out.
        """
        chunk = np.asarray(chunk, float)
        openings = chunk[:, self._grippers]
        if not np.isfinite(chunk).all():
            raise ValueError("the chunk has values that are not finite")
        if (outside := np.maximum(-openings, openings - 1).max()) > GRIPPER_OVERSHOOT:
            raise ValueError(f"a gripper channel is {outside:.2f} outside of 0 closed .. 1 open")
        arms = chunk[:, self._arm]
        fingers = np.empty((len(chunk), len(self._grippers)))
        last = command[len(self._arm) :].copy()
        for row, opening in enumerate(openings):
            wanted = [self.embodiment.gripper_to_joint(float(value), k) for k, value in enumerate(opening)]
            last = fingers[row] = np.clip(wanted, last - self._finger_step, last + self._finger_step)
        return np.column_stack([self._faded(arms, command[: len(self._arm)]), fingers])

    def check(self, rows: np.ndarray, chunk: np.ndarray, measured: np.ndarray, command: np.ndarray) -> None:
        """ValueError, with the reason, when joint targets (H, 14) made of a chunk must not be executed."""
        safety, arms = self.embodiment.safety, len(self._arm)
        self._refuse(np.abs(chunk[:1][:, self._arm] - measured[:arms]), safety.max_start_jump_rad, "start jump")
        path = np.vstack([command, rows])
        steps = np.abs(np.diff(path, axis=0))
        self._refuse(steps[1:, :arms], safety.max_step_rad, "step")
        self._refuse(np.maximum(self._low - rows, rows - self._high), 0.0, "way beyond a position limit")
        self._refuse(steps / self.embodiment.period, self._speed, "speed")
        if safety.max_joint_acceleration:
            executed = path[: self._executed + 1, :arms]
            found = peak_accelerations(executed, self.embodiment.period)
            self._refuse(found[1:], safety.max_joint_acceleration, "acceleration")

    def _refuse(self, values: np.ndarray, limits: np.ndarray | float, what: str) -> None:
        over = np.argwhere(values > np.asarray(limits) + TOLERANCE)
        if len(over):
            step, joint = over[0]
            limit = np.broadcast_to(limits, values.shape)[step, joint]
            raise ValueError(
                f"step {step}: {what} {values[step, joint]:.3f} of {self.names[joint]} is over {limit:.3f}"
            )

    def _faded(self, rows: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Rows that begin near `start`; the quickest fade that keeps the acceleration limit, else the longest."""
        drift = rows[1] - rows[0] if len(rows) > 1 else 0.0
        offset = start - (rows[0] - drift)
        limit = self.embodiment.safety.max_joint_acceleration or np.inf
        for fade in FADES:
            s = np.minimum(np.arange(1, len(rows) + 1) / fade, 1.0)[:, None]
            faded = rows + (1 + 2 * s) * (1 - s) ** 2 * offset
            found = peak_accelerations(np.vstack([start, faded]), self.embodiment.period)
            if (found[1 : fade + 2] <= limit).all():
                break
        return faded


def peak_accelerations(positions: np.ndarray, period: float) -> np.ndarray:
    """(steps, joints) largest acceleration within each step of the spline through positions (steps + 1, joints)."""
    slopes = np.diff(positions, axis=0) / period
    before, after = slopes[:-1], slopes[1:]
    same = before * after > 0
    inner = np.where(same, 2 * before * after / np.where(same, before + after, 1.0), 0.0)
    velocities = np.vstack([slopes[:1], inner, slopes[-1:]])
    start, end = velocities[:-1], velocities[1:]
    at_start = (6 * slopes - 4 * start - 2 * end) / period
    at_end = (-6 * slopes + 2 * start + 4 * end) / period
    return np.maximum(np.abs(at_start), np.abs(at_end))
