# SPDX-License-Identifier: Apache-2.0
"""Whether ROS time advances: a simulator that died or a paused bag must not leave a motion unfinished."""

from __future__ import annotations


class ClockWatch:
    """Compares ROS time with the steady clock."""

    def __init__(self) -> None:
        """Start without a reading."""
        self._ros_ns = -1
        self._since_ns = 0

    def standstill(self, ros_ns: int, steady_ns: int) -> float:
        """Read both clocks; returns for how long ROS time has not changed [s, steady]."""
        if ros_ns != self._ros_ns:
            self._ros_ns, self._since_ns = ros_ns, steady_ns
        return (steady_ns - self._since_ns) / 1e9
