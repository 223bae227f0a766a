# SPDX-License-Identifier: Apache-2.0
"""Whether a base moves when it is commanded to: motors may be off, a controller inactive, something in its way.

The follower corrects where it goes; this watch notices only that it stands. Wheels that spin count as motion.
"""

from __future__ import annotations

import numpy as np

from embodiment_descriptions.angles import wrapped
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.path_history import PathHistory
from qwen_vla_control.reasons import Reason, Violation

WINDOW = 1.0  # [s] of motion that is compared
LEVER = 0.2  # [m] a rotation counts as the distance that a point this far from the center travels
TRAVEL = 0.05  # [m] a base that should have moved at least this far ...
PROGRESS = 0.2  # ... must have moved at least this share of it


class BaseFollowingWatch:
    """Compares the distance along the path with that of the base; poses are (3,) [m, m, rad]."""

    def __init__(self) -> None:
        """Begin at rest."""
        self._paths: PathHistory[BasePath] = PathHistory(WINDOW)
        self._began_at = np.zeros(3)

    def begin(self, path: BasePath, start_ns: int, pose: np.ndarray) -> None:
        """Watch a path from ROS time `start_ns` [ns] on, also one that replaces another; `pose` of the base then."""
        self._paths.begin(path, start_ns)
        self._began_at = pose

    def end(self) -> None:
        """Stop watching."""
        self._paths.end()

    def fault(self, before: np.ndarray, pose: np.ndarray, stamp_ns: int) -> Violation | None:
        """Report a base that stands still: at `pose` at ROS time `stamp_ns` [ns], at `before` WINDOW earlier."""
        if self._paths.latest is None or stamp_ns - self._paths.since_ns < WINDOW * 1e9:
            return None
        planned = sum(_distance(*piece) for piece in self._paths.pieces(stamp_ns - WINDOW * 1e9, stamp_ns))
        return _standing(planned, _distance(before, pose), f"in the last {WINDOW:.1f} s")

    def unfinished(self, pose: np.ndarray) -> Violation | None:
        """Report a base that is at `pose` when the motion is over and has hardly moved."""
        if (path := self._paths.latest) is None:
            return None
        return _standing(_distance(path.positions[0], path.positions[-1]), _distance(self._began_at, pose), "so far")


def _distance(start: np.ndarray, end: np.ndarray) -> float:
    return float(np.hypot(*(end - start)[:2]) + LEVER * abs(wrapped(end[2] - start[2])))


def _standing(planned: float, moved: float, when: str) -> Violation | None:
    if planned < TRAVEL or moved >= PROGRESS * planned:
        return None
    text = (
        f"the base should have moved {planned:.3f} m {when} but moved {moved:.3f} m (rotations: {LEVER} m/rad); "
        "is its controller active, are its motors on, and is nothing in its way?"
    )
    return Violation(Reason.NOT_FOLLOWING, text)
