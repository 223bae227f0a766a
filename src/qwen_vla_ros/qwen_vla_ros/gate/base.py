"""What a mobile base would do: speeds along its path, and where the path begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_vla_ros.base_path import BasePath
from qwen_vla_ros.gate.verdict import Reason, Violation

TOLERANCE = 1e-6  # [m/s | rad/s] rounding


@dataclass(frozen=True)
class BaseRules:
    """How a base may move.

    Attributes:
        max_linear: largest speed in any direction [m/s].
        max_angular: largest turning speed [rad/s].
        start_jump: largest distance from where the base is to the first waypoint [m].
        start_turn: largest angle between them [rad].
    """

    max_linear: float
    max_angular: float
    start_jump: float
    start_turn: float


def check_base(path: BasePath, rules: BaseRules) -> list[Violation]:
    """Check the mean speed of every step, and the way to the first pose.

    Accelerations are not checked but kept by whoever follows the path: a base need not be where its path is at any
    moment, only to come after it.
    """
    if path.steps < 1:
        return [Violation(Reason.WRONG_SHAPE, "the path has no waypoint")]
    if not (np.isfinite(path.positions).all() and np.isfinite(path.velocities).all()):
        return [Violation(Reason.NON_FINITE, "the path has values that are NaN or infinite")]
    ways = np.diff(path.positions, axis=0)
    distances, turns = np.hypot(ways[:, 0], ways[:, 1]), np.abs(ways[:, 2])
    found = _excess(Reason.START_JUMP, "the way to it", distances[:1], rules.start_jump, "m")
    found += _excess(Reason.START_JUMP, "the turn to it", turns[:1], rules.start_turn, "rad")
    found += _excess(Reason.VELOCITY_LIMIT, "the speed", distances / path.period, rules.max_linear, "m/s")
    return found + _excess(Reason.VELOCITY_LIMIT, "the turning speed", turns / path.period, rules.max_angular, "rad/s")


def _excess(reason: Reason, what: str, values: np.ndarray, limit: float, unit: str) -> list[Violation]:
    over = np.flatnonzero(values > limit + TOLERANCE)
    if not over.size:
        return []
    worst = values[over[0]]
    return [Violation(reason, f"waypoint {over[0]}: {what} is {worst:.3f} {unit}, over the limit {limit:.3f} {unit}")]
