# SPDX-License-Identifier: Apache-2.0
"""Joints that are where their commands say, at any time: an arm without lag behind its controllers."""

from __future__ import annotations

import time

import numpy as np
from trajectory_msgs.msg import JointTrajectory

from qwen_vla_control.motion.joint_path import JointPath


class CommandedJoints:
    """Positions by name [rad | m], that trajectories and set-points move."""

    def __init__(self, home: dict[str, float]) -> None:
        self._played: dict[tuple[str, ...], tuple[float, JointPath]] = {}  # by joints: since when [s], and what
        self._positions = dict(home)

    @property
    def positions(self) -> dict[str, float]:
        """Where the joints are now."""
        for since, path in self._played.values():
            self._positions.update(zip(path.joints, path.at(time.monotonic() - since)[0].tolist(), strict=True))
        return self._positions

    def put(self, positions: dict[str, float]) -> None:
        """Put joints somewhere, whatever they are commanded to do."""
        self._positions = {**self.positions, **positions}
        self._played.clear()

    def play(self, message: JointTrajectory) -> None:
        """Begin a trajectory with equally spaced points where the joints are, as fast as they are.

        One point without a time is where they are at once.
        """
        names, positions = tuple(message.joint_names), self.positions
        if not any(p.time_from_start.sec or p.time_from_start.nanosec for p in message.points):
            self.put(dict(zip(names, message.points[-1].positions, strict=True)))
            return
        since, path = self._played.get(names, (0.0, None))
        speed = np.zeros(len(names)) if path is None else path.at(time.monotonic() - since)[1]
        first = message.points[0].time_from_start
        rows = np.array([[positions[name] for name in names], *(p.positions for p in message.points)])
        speeds = np.array([speed, *(p.velocities for p in message.points)])
        self._played[names] = time.monotonic(), JointPath(names, first.sec + first.nanosec / 1e9, rows, speeds)
