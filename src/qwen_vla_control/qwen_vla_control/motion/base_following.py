"""Whether a base moves when it is commanded to: motors are off, controllers inactive, something is in its way.

Where it goes the follower corrects; this tells only that it stands. Wheels that spin in place are measured as moving.
"""

from __future__ import annotations

import numpy as np

from embodiment_descriptions.angles import wrapped
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.path_history import PathHistory
from qwen_vla_control.reasons import Reason, Violation

WINDOW = 1.0  # [s] over which it is looked at
LEVER = 0.2  # [m] a rotation counts as the way of a point so far from the center
TRAVEL = 0.05  # [m] a base that was to go at least so far ...
PROGRESS = 0.2  # ... must have gone at least this share of it


class BaseFollowingWatch:
    """Compares the way of the path with that of the base; poses are (3,) [m, m, rad]."""

    def __init__(self) -> None:
        """Begin at rest."""
        self._paths: PathHistory[BasePath] = PathHistory(WINDOW)
        self._began_at = np.zeros(3)

    def begin(self, path: BasePath, start_ns: int, pose: np.ndarray) -> None:
        """Watch a path from ROS time `start_ns` [ns] on, also one that replaces another; `pose` of the base then."""
        self._paths.begin(path, start_ns)
        self._began_at = pose

    def end(self) -> None:
        """Watch nothing any more."""
        self._paths.end()

    def fault(self, before: np.ndarray, pose: np.ndarray, stamp_ns: int) -> Violation | None:
        """Say that the base, at `pose` at ROS time `stamp_ns` [ns] and at `before` WINDOW earlier, stands still."""
        if self._paths.latest is None or stamp_ns - self._paths.since_ns < WINDOW * 1e9:
            return None
        way = sum(_way(*piece) for piece in self._paths.pieces(stamp_ns - WINDOW * 1e9, stamp_ns))
        return _standing(way, _way(before, pose), f"in the last {WINDOW:.1f} s")

    def undone(self, pose: np.ndarray) -> Violation | None:
        """Say that the base at `pose` has not gone its way although the motion is over."""
        if (path := self._paths.latest) is None:
            return None
        return _standing(_way(path.positions[0], path.positions[-1]), _way(self._began_at, pose), "until now")


def _way(start: np.ndarray, end: np.ndarray) -> float:
    return float(np.hypot(*(end - start)[:2]) + LEVER * abs(wrapped(end[2] - start[2])))


def _standing(way: float, gone: float, when: str) -> Violation | None:
    if way < TRAVEL or gone >= PROGRESS * way:
        return None
    text = (
        f"the base was to go {way:.3f} m {when} and has gone {gone:.3f} m (rotations count as {LEVER} m/rad); is its "
        "controller active, are its motors on, and is nothing in its way?"
    )
    return Violation(Reason.NOT_FOLLOWING, text)
