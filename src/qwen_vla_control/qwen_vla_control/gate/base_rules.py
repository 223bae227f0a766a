# SPDX-License-Identifier: Apache-2.0
"""Checks of a base path: the speed along it, and the jump to its start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.reasons import Reason, Violation

TOLERANCE = 1e-6  # [m/s | rad/s] rounding


@dataclass(frozen=True)
class BaseRules:
    """How a base may move.

    Attributes:
        max_linear: largest speed in any direction [m/s].
        max_angular: largest angular speed [rad/s].
    """

    max_linear: float
    max_angular: float


def check_base(path: BasePath, rules: BaseRules) -> list[Violation]:
    """Check the mean speed of every step; the first one is the jump from where the base is.

    Accelerations are not checked: the path follower limits them, and a base may lag behind its path.
    """
    if path.steps < 1:
        return [Violation(Reason.WRONG_SHAPE, "the path has no waypoint")]
    if not (np.isfinite(path.positions).all() and np.isfinite(path.velocities).all()):
        return [Violation(Reason.NON_FINITE, "the path has values that are NaN or infinite")]
    linear, angular = path.mean_speeds()
    found = []
    for reason, part in ((Reason.START_JUMP, slice(0, 1)), (Reason.VELOCITY_LIMIT, slice(1, None))):
        found += _excess(reason, "the speed", linear[part], rules.max_linear, "m/s", part.start)
        found += _excess(reason, "the angular speed", angular[part], rules.max_angular, "rad/s", part.start)
    return found


def _excess(reason: Reason, what: str, values: np.ndarray, limit: float, unit: str, first: int) -> list[Violation]:
    over = np.flatnonzero(values > limit + TOLERANCE)
    if not over.size:
        return []
    worst = values[over[0]]
    return [
        Violation(
            reason, f"waypoint {over[0] + first}: {what} is {worst:.3f} {unit}, over the limit {limit:.3f} {unit}"
        )
    ]
