"""What a bag's JointTrajectory messages told the joints to do: the commanded position at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwen_vla.observation_buffer import NANOSECONDS, stamp_of


@dataclass(frozen=True)
class Trajectory:
    """A trajectory_msgs/JointTrajectory: it takes over at `start_ns`; positions (P, n) are due at `due_ns` (P,)."""

    start_ns: int
    joints: tuple[str, ...]
    due_ns: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, message: Any, arrival_ns: int) -> Trajectory:
        """A stamp of zero means at once, when it arrived."""
        start = stamp_of(message) or arrival_ns
        offsets = [p.time_from_start.sec * NANOSECONDS + p.time_from_start.nanosec for p in message.points]
        rows = np.array([list(p.positions) for p in message.points], float).reshape(len(message.points), -1)
        return cls(start, tuple(message.joint_names), start + np.array(offsets, np.int64), rows)


class CommandedPositions:
    """Positions commanded by trajectories that replace each other, linear between their points and held at the end.

    A trajectory begins where the one before it had led to, or where the joint was when the first one came, as a
    JointTrajectoryController interpolates from the commanded state.
    """

    def __init__(self, joints: Sequence[str], trajectories: Sequence[Trajectory]) -> None:
        self._paths = {name: _path(name, trajectories) for name in joints}

    def at(self, time_ns: int, measured: np.ndarray) -> np.ndarray:
        """Commanded positions in the order of the joints; of a joint that was not yet commanded the measured one."""
        return np.array(
            [_value(path, time_ns, own) for path, own in zip(self._paths.values(), measured, strict=True)], float
        )


@dataclass(frozen=True)
class _Piece:
    """From `start_ns` on: positions over time, the first of them where the joint was told to be then (NaN: unknown)."""

    start_ns: int
    times: np.ndarray
    values: np.ndarray


def _path(name: str, trajectories: Sequence[Trajectory]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for trajectory in sorted(trajectories, key=lambda t: t.start_ns):
        if name not in trajectory.joints or not len(trajectory.due_ns):
            continue
        values = trajectory.positions[:, trajectory.joints.index(name)]
        begin = _value(pieces, trajectory.start_ns, math.nan)
        times = np.concatenate([[trajectory.start_ns], trajectory.due_ns])
        pieces.append(_Piece(trajectory.start_ns, times, np.concatenate([[begin], values])))
    return pieces


def _value(pieces: list[_Piece], time_ns: int, unknown: float) -> float:
    for piece in reversed(pieces):
        if piece.start_ns <= time_ns:
            values = piece.values.copy()
            if math.isnan(values[0]):
                values[0] = unknown if not math.isnan(unknown) else values[1]
            return float(np.interp(time_ns - piece.start_ns, piece.times - piece.start_ns, values))
    return unknown


def yaw(q: Any) -> float:
    """Heading [rad] of a quaternion message."""
    return math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y**2 + q.z**2))
