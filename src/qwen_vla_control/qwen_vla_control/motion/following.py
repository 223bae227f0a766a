# SPDX-License-Identifier: Apache-2.0
"""Whether joints follow their commands: a controller may drop them, hardware ignore them, an obstacle stand there."""

from __future__ import annotations

import numpy as np

from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.motion.path_history import PathHistory
from qwen_vla_control.reasons import Reason, Violation

PATIENCE = 0.3  # [s] that a joint may lag behind
SAMPLES = 7  # points within that time at which the path is sampled
TRAVEL = 0.03  # [rad] a joint that should have moved at least this far ...
PROGRESS = 0.25  # ... must have moved at least this share of it


class FollowingWatch:
    """Compares what was commanded with what is measured.

    A joint follows while it is near a position that was commanded within the last PATIENCE, and has moved at least part
    of its travel when the motion is over. It is watched until it is commanded again: right after the motion it still
    lags behind.
    """

    def __init__(self, tolerance: np.ndarray) -> None:
        """Begin at rest; `tolerance` (joints,) [rad], inf for joints that are not watched."""
        self._tolerance = tolerance
        self._paths: PathHistory[JointPath] = PathHistory(PATIENCE)
        self._began_at = np.zeros(len(tolerance))

    def begin(self, path: JointPath, start_ns: int, measured: np.ndarray) -> None:
        """Watch a path from ROS time `start_ns` [ns] on, also one that replaces another; `measured` (joints,) then."""
        self._paths.begin(path, start_ns)
        self._began_at = measured

    def end(self) -> None:
        """Stop watching."""
        self._paths.end()

    def fault(self, measured: np.ndarray, stamp_ns: int) -> Violation | None:
        """Report a joint that does not follow; `measured` (joints,) at ROS time `stamp_ns`, in the turn of the path."""
        path = self._paths.latest
        if path is None or not self.strayed(measured, stamp_ns).any():
            return None
        commanded = self._commanded(stamp_ns)
        away = np.abs(measured - _nearest(commanded, measured))
        joint = int(np.argmax(away - self._tolerance))
        text = (
            f"joint '{path.joints[joint]}' is {away[joint]:.4f} away from where it was commanded to be in the last "
            f"{PATIENCE:.1f} s (limit {self._tolerance[joint]:.4f}): measured at {measured[joint]:.4f}, commanded to "
            f"{commanded[0, joint]:.4f}; is its controller active, its torque on, and nothing in its way?"
        )
        return Violation(Reason.NOT_FOLLOWING, text)

    def strayed(self, measured: np.ndarray, stamp_ns: int) -> np.ndarray:
        """Tell of each joint (joints,) whether it does not follow; arguments as in `fault`."""
        if self._paths.latest is None or stamp_ns - self._paths.since_ns < PATIENCE * 1e9:
            return np.zeros(len(measured), bool)
        return np.abs(measured - _nearest(self._commanded(stamp_ns), measured)) > self._tolerance

    def unfinished(self, measured: np.ndarray, stamp_ns: int) -> Violation | None:
        """Report a joint that has hardly moved though the motion is over; arguments as in `fault`.

        Its travel goes to the nearest position that was commanded within the last PATIENCE.
        """
        path = self._paths.latest
        if path is None:
            return None
        travel = _nearest(self._commanded(stamp_ns), measured) - self._began_at
        moved = measured - self._began_at
        idle = np.isfinite(self._tolerance) & (np.abs(travel) >= TRAVEL)
        idle &= moved * np.sign(travel) < PROGRESS * np.abs(travel)
        if not idle.any():
            return None
        joint = int(np.argmax(np.where(idle, np.abs(travel), 0.0)))
        text = (
            f"joint '{path.joints[joint]}' should have moved {travel[joint]:+.4f} but moved {moved[joint]:+.4f}; is "
            "its controller active, and its torque on?"
        )
        return Violation(Reason.NOT_FOLLOWING, text)

    def _commanded(self, stamp_ns: int) -> np.ndarray:
        """Positions of the last PATIENCE, the latest first, (SAMPLES, joints)."""
        times = stamp_ns - np.linspace(0.0, PATIENCE * 1e9, SAMPLES)
        return np.array([self._paths.at(time) for time in times])


def _nearest(commanded: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Between the smallest and the largest commanded position of each joint, the one nearest to where it is."""
    return np.clip(measured, commanded.min(axis=0), commanded.max(axis=0))
