# SPDX-License-Identifier: Apache-2.0
"""A path on the time axis: when its first row is due, and which part is still ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.stamps import NANOSECONDS

WHOLE_STEP = 1e-6  # share of a step that counts as none

Path = JointPath | BasePath
Kind = TypeVar("Kind", JointPath, BasePath)


@dataclass(frozen=True)
class TimedPath(Generic[Kind]):
    """A path on the time axis.

    Attributes:
        path: row 0 belongs to `start_ns`.
        start_ns: ROS time [ns].
        execution_horizon: steps after which the next chunk is expected; 0: all.
    """

    path: Kind
    start_ns: int
    execution_horizon: int = 0

    def ahead(self, now_ns: int) -> Kind | None:
        """The part still ahead: row 0 is now, the last row is the end, at rest. None when all of it is past."""
        elapsed, period = (now_ns - self.start_ns) / NANOSECONDS, self.path.period
        steps = math.ceil((self.path.duration - elapsed) / period - WHOLE_STEP)
        if steps < 1:
            return None
        states = [self.path.at(elapsed + step * period) for step in range(steps + 1)]
        positions, velocities = (np.array(values) for values in zip(*states, strict=True))
        velocities[-1] = 0.0
        return replace(self.path, positions=positions, velocities=velocities)
