"""Where the robot is by its own streams, joint states or odometry, now and at recent times. Free of ROS and torch.

What is asked for is one vector: positions of all joints for an arm, the pose (x, y, theta) for a base.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from embodiment_descriptions import Embodiment
from qwen_vla.observation_buffer import Stream
from qwen_vla_ros.gate import Reason, Refused

LAYOUTS = 4  # a publisher has one; whoever changes it at every message must not fill the memory
FARTHEST = 1e4  # [rad | m] a position beyond is no position but a fault, as one that is not finite is
KEPT = 1024  # messages per stream; several seconds at the rate of any controller manager


class JointStates:
    """Joint positions from one or several topics, each of which may know some of the joints.

    Attributes:
        missing, lost: reasons for a state that is unknown, and for one that stopped during a motion.
    """

    missing, lost = Reason.NO_JOINT_STATE, Reason.JOINT_STATE_LOST

    def __init__(self, embodiment: Embodiment, joints: Sequence[str], topics: Sequence[str], timeout: float) -> None:
        """Make room.

        Args:
            embodiment: names the sources.
            joints: order of the vectors.
            topics: full names of the topics of the sources, for messages to the user.
            timeout: age and silence after which positions are unknown [s].
        """
        self._joints = tuple(joints)
        self._prefixes = [source.prefix for source in embodiment.joint_states]
        self._streams = [Stream("joint states", topic, timeout, KEPT) for topic in topics]
        self._columns: list[dict[tuple[str, ...], list[tuple[int, int]]]] = [{} for _ in topics]
        self._most = [0] * len(topics)
        self._faults = [""] * len(topics)

    def push(
        self, source: int, stamp_ns: int, names: Sequence[str], positions: Sequence[float], steady_ns: int
    ) -> None:
        """Store a message of one source; values that can be no positions make it unusable."""
        places = self._places(source, tuple(names))
        if len(places) < self._most[source]:
            return  # another publisher of the same topic, which knows less
        self._most[source] = len(places)
        row = np.full(len(self._joints), np.nan)
        for column, index in places:
            if index >= len(positions) or not abs(positions[index]) <= FARTHEST:  # NaN is not
                value = positions[index] if index < len(positions) else "missing"
                self._faults[source] = f"joint state of '{self._joints[column]}' is {value}"
                return
            row[column] = positions[index]
        self._faults[source] = ""
        self._streams[source].push(stamp_ns, row, steady_ns)

    def fault(self, now_ns: int, steady_ns: int) -> str:
        """Say why the positions are unknown; empty when they are known."""
        for stream, fault in zip(self._streams, self._faults, strict=True):
            silent = stream.fault(now_ns, steady_ns, stream.max_age, stream.max_age)
            if silent:
                return fault or silent
        lacking = np.flatnonzero(np.isnan(self._merged([stream.latest for stream in self._streams])))
        names = ", ".join(self._joints[column] for column in lacking)
        return f"joint states lack {names}; they come from {', '.join(s.topic for s in self._streams)}" if names else ""

    def measured(self) -> np.ndarray:
        """Return the newest positions (joints,) [rad | m]; only without a fault."""
        return self._merged([stream.latest for stream in self._streams])

    def at(self, stamp_ns: int, max_gap: float) -> np.ndarray:
        """Return the positions nearest to a ROS time.

        Raises:
            Refused: NO_JOINT_STATE, a source has none within `max_gap` [s].
        """
        return self._merged([_near(stream, stamp_ns, max_gap, self.missing, "joint state") for stream in self._streams])

    def age(self, now_ns: int) -> float:
        """Age of the oldest of the newest messages [s]."""
        return max(stream.age(now_ns) for stream in self._streams)

    def _places(self, source: int, names: tuple[str, ...]) -> list[tuple[int, int]]:
        """Return (column, index in the message) of the joints that a message of a source has; remembered per layout."""
        known = self._columns[source]
        if names not in known:
            if len(known) == LAYOUTS:
                known.clear()
            full = {self._prefixes[source] + name: index for index, name in enumerate(names)}
            known[names] = [(column, full[name]) for column, name in enumerate(self._joints) if name in full]
        return known[names]

    def _merged(self, rows: Sequence[Any]) -> np.ndarray:
        merged = rows[0].message.copy()
        for row in rows[1:]:
            np.copyto(merged, row.message, where=np.isnan(merged))
        return merged


class Odometry:
    """Pose and frame of a base.

    Attributes:
        missing, lost: reasons for a pose that is unknown, and for one that stopped during a motion.
        frame: frame of the poses, "" before the first.
    """

    missing, lost = Reason.NO_ODOMETRY, Reason.ODOMETRY_LOST

    def __init__(self, topic: str, timeout: float) -> None:
        """Make room; `topic` is the full name, `timeout` the age and silence after which the pose is unknown [s]."""
        self._stream = Stream("odometry", topic, timeout, KEPT)
        self._fault = ""
        self.frame = ""

    def push(self, stamp_ns: int, frame: str, pose: Any, steady_ns: int) -> None:
        """Store the pose (geometry_msgs/Pose) of a message."""
        p, q = pose.position, pose.orientation
        heading = math.atan2(2.0 * (q.w * q.z + q.x * q.y), 1.0 - 2.0 * (q.y * q.y + q.z * q.z))
        row = np.array([p.x, p.y, heading])
        norm = q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w
        if not (np.abs(row) <= FARTHEST).all() or not 0.9 < norm < 1.1:  # NaN is not
            self._fault = f"odometry on {self._stream.topic}: pose {row.tolist()} with |q|² = {norm:.2f} is none"
            return
        self._fault, self.frame = "", frame
        self._stream.push(stamp_ns, row, steady_ns)

    def fault(self, now_ns: int, steady_ns: int) -> str:
        """Say why the pose is unknown; empty when it is known."""
        limit = self._stream.max_age
        silent = self._stream.fault(now_ns, steady_ns, limit, limit)
        return (self._fault or silent) if silent else ""

    def measured(self) -> np.ndarray:
        """Return the newest pose (3,); only without a fault."""
        return self._stream.latest.message

    def at(self, stamp_ns: int, max_gap: float) -> np.ndarray:
        """Return the pose nearest to a ROS time; Refused (NO_ODOMETRY) without one within `max_gap` [s]."""
        return _near(self._stream, stamp_ns, max_gap, self.missing, "odometry").message

    def age(self, now_ns: int) -> float:
        """Age of the newest message [s]."""
        return self._stream.age(now_ns)


def _near(stream: Stream, stamp_ns: int, max_gap: float, reason: Reason, noun: str) -> Any:
    nearest = stream.nearest(stamp_ns)
    gap = math.inf if nearest is None else abs(nearest.stamp_ns - stamp_ns) / 1e9
    if gap > max_gap:
        raise Refused.because(
            reason,
            f"the {noun} nearest to the observation is {gap:.2f} s away from it (limit {max_gap:.2f} s)",
        )
    return nearest
