"""Whether ROS time goes on: a simulator that died or a bag that was paused must not leave a motion half-way."""

from __future__ import annotations


class ClockWatch:
    """Compares ROS time with the steady clock."""

    def __init__(self) -> None:
        """Begin without having looked."""
        self._ros_ns = -1
        self._since_ns = 0

    def standstill(self, ros_ns: int, steady_ns: int) -> float:
        """Look at both clocks; returns for how long ROS time has not changed [s, steady]."""
        if ros_ns != self._ros_ns:
            self._ros_ns, self._since_ns = ros_ns, steady_ns
        return (steady_ns - self._since_ns) / 1e9
