# SPDX-License-Identifier: Apache-2.0
"""The motion that a trajectory controller executes from its messages, and its accelerations.

The messages are those of `command_interfaces.joint_trajectory`: stamp 0, equally spaced points with positions and
velocities. The controller starts each from the commanded position and velocity at its arrival
(interpolate_from_desired_state), so that the messages and their times determine the whole motion exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.stamps import nanoseconds

SECOND = 1e9  # [ns]


@dataclass(frozen=True)
class Stretch:
    """One message as it was executed; times in ns of the clock by which the messages were recorded.

    Attributes:
        at: arrival.
        until: arrival of the next one, or its own end.
        path: from the state at its arrival to its last point.
    """

    at: int
    until: int
    path: JointPath

    @property
    def end(self) -> int:
        """When its last point is reached, whether replaced or not."""
        return self.at + round(self.path.duration * SECOND)

    def peak(self, since: float, until: float = np.inf) -> float:
        """Largest acceleration of any joint [rad/s²] while executed, from `since` to `until` [s] after its arrival."""
        first, last = max(0.0, since), min(until, self.path.duration, (self.until - self.at) / SECOND)
        rows = np.arange(self.path.steps + 1) * self.path.period
        times = np.concatenate([[first], rows[(rows > first) & (rows < last)], [last]])
        pairs = zip(times[:-1], times[1:], strict=True)
        return max((self._peak_within_a_row(a, b) for a, b in pairs if b > a), default=0.0)

    def _peak_within_a_row(self, since: float, until: float) -> float:
        """A section of a cubic is a cubic, defined by the states at both ends."""
        (p0, v0), (p1, v1) = self.path.at(since), self.path.at(until)
        if until >= self.path.duration:
            v1 = self.path.velocities[-1]
        part = JointPath(self.path.joints, until - since, np.stack([p0, p1]), np.stack([v0, v1]))
        return float(part.peak_accelerations().max())


def executed(messages: Sequence[tuple[int, JointTrajectory]], start: Sequence[float]) -> list[Stretch]:
    """How messages (arrival [ns], content) were executed, in order of arrival; `start`: initial joint positions."""
    stretches: list[Stretch] = []
    positions, velocities = np.asarray(start, float), np.zeros(len(start))
    for number, (at, message) in enumerate(messages):
        if stretches:
            positions, velocities = stretches[-1].path.at((at - stretches[-1].at) / SECOND)
        path = JointPath(
            tuple(message.joint_names),
            nanoseconds(list(message.points)[0].time_from_start) / SECOND,
            np.vstack([positions, *(point.positions for point in message.points)]),
            np.vstack([velocities, *(point.velocities for point in message.points)]),
        )
        end = at + round(path.duration * SECOND)
        following = messages[number + 1][0] if number + 1 < len(messages) else end
        stretches.append(Stretch(at, min(end, following), path))
    return stretches
