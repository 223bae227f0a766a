# SPDX-License-Identifier: Apache-2.0
"""The joint limiter of ros2_control for position commands (`enforce_command_limits`), without ROS.

The behavior is that of ros2_control 5.x: a command is at most the joint's speed away from the last command, whoever has
moved the joint since, and within the joint's limits; a joint that is measured outside them ends its controller.
"""

from __future__ import annotations

import numpy as np

OUTSIDE = 0.0087  # [rad | m] that a joint may be measured outside its limits


class CommandLimiter:
    """Remembers the last command of each joint; arrays are (joints,), [rad | m]."""

    def __init__(self, lower: np.ndarray, upper: np.ndarray, speed: np.ndarray, timestep: float) -> None:
        """Limits [rad | m], [rad/s | m/s]; `timestep` [s] of `limited`. It begins switched off."""
        self._lower, self._upper, self._step = lower, upper, speed * timestep
        self._last: np.ndarray | None = None

    @property
    def on(self) -> bool:
        """Whether commands are limited."""
        return self._last is not None

    def switch(self, commands: np.ndarray | None) -> None:
        """Switch on, from these last commands, or off."""
        self._last = None if commands is None else commands.copy()

    def limited(self, commands: np.ndarray) -> np.ndarray:
        """What of the commands of one cycle goes on to the servos."""
        if self._last is None:
            return commands
        within = np.clip(commands, self._lower, self._upper)
        self._last = np.clip(within, self._last - self._step, self._last + self._step)
        return self._last

    def outside(self, measured: np.ndarray) -> np.ndarray:
        """Which joints are measured so far outside their limits that their controllers end (bool)."""
        beyond = np.maximum(self._lower - measured, measured - self._upper)
        return (beyond > OUTSIDE) & self.on
