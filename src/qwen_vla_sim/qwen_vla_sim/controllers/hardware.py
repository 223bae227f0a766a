# SPDX-License-Identifier: Apache-2.0
"""What stands between the set points of the controllers and the servos, and how it fails on purpose. Free of ROS.

Without a fault, set points reach the servos as they are. Servo drivers pass on what has changed: a joint whose torque
comes back, or that stood still for another reason, stands where it is until its set point changes, and then goes to
where that is, at once. Where its set point is moving at that moment, it catches up: no new command makes it.
"""

from __future__ import annotations

import numpy as np

HAND_SPEED = 0.5  # [rad/s | m/s] of whoever pushes a limp joint
CHANGE = 1e-9  # [rad | m] a set point that differs by less is the same


class Hardware:
    """The servos of all commanded joints; arrays are (joints,), [rad | m]."""

    def __init__(self, joints: tuple[str, ...], positions: np.ndarray, timestep: float) -> None:
        """Everything works, and the joints stand at `positions`. `timestep` [s] is that of `goals`."""
        self._joints, self._push = joints, HAND_SPEED * timestep
        count = len(joints)
        self._limp, self._deaf, self._waits = (np.zeros(count, bool) for _ in range(3))
        self._moving, self._ended, self._catching_up = (np.zeros(count, bool) for _ in range(3))
        self._goals, self._told, self._pushed, self._offsets = (np.zeros(count) for _ in range(4))
        self.reset(positions)

    def columns(self, name: str) -> np.ndarray:
        """The columns of a joint, or of all where the name is empty; ValueError lists the joints."""
        if name and name not in self._joints:
            raise ValueError(f"there is no joint '{name}'; there are: {', '.join(self._joints)}")
        return np.array([not name or joint == name for joint in self._joints])

    def repair(self) -> None:
        """Everything works again; joints stand where they are until their set points change."""
        self._await_change(self._limp | self._deaf)
        self._limp[:] = self._deaf[:] = False
        self._pushed[:] = self._offsets[:] = 0.0

    def reset(self, positions: np.ndarray) -> None:
        """Everything works, and the robot was put at `positions`, where its controllers hold it."""
        self.repair()
        self._waits[:] = self._moving[:] = self._ended[:] = self._catching_up[:] = False
        self._goals[:] = self._told[:] = positions

    def set_torque(self, name: str, on: bool) -> None:
        """Make joints limp, or have them stand where they are."""
        chosen = self.columns(name)
        self._await_change(chosen & self._limp)
        self._limp[chosen] = not on
        self._pushed[chosen] = 0.0

    def set_following(self, name: str, on: bool) -> None:
        """Have joints ignore their set points and stand where they are, or take the next one that changes."""
        chosen = self.columns(name)
        self._await_change(chosen & self._deaf)
        self._deaf[chosen] = not on

    def push(self, name: str, amount: float) -> None:
        """Push limp joints by `amount`, at HAND_SPEED; ValueError while one of them has torque."""
        chosen = self.columns(name)
        stiff = [joint for joint, hit in zip(self._joints, chosen & ~self._limp, strict=True) if hit]
        if stiff:
            raise ValueError(f"{', '.join(stiff)} cannot be pushed: torque is on; switch it off first (no_torque)")
        self._pushed[chosen] += amount

    @property
    def pushing(self) -> bool:
        """Whether a joint is still being pushed."""
        return bool(self._pushed.any())

    def set_offset(self, name: str, amount: float) -> None:
        """Have joints measured `amount` beside where they are."""
        self._offsets[self.columns(name)] = amount

    @property
    def offsets(self) -> np.ndarray:
        """What is added to each measured position."""
        return self._offsets

    @property
    def limp(self) -> np.ndarray:
        """Which joints have no torque (bool): where they go nobody has commanded."""
        return self._limp

    @property
    def catching_up(self) -> np.ndarray:
        """Which joints have just begun to follow set points again that went on meanwhile (bool)."""
        return self._catching_up

    def _await_change(self, joints: np.ndarray) -> None:
        self._waits |= joints
        self._ended |= joints & self._moving

    def goals(self, set_points: np.ndarray) -> np.ndarray:
        """What the servos are told at one physics step; a buffer."""
        np.greater(np.abs(set_points - self._told), CHANGE, out=self._moving)
        self._waits &= ~self._moving
        np.logical_and(self._ended, self._moving, out=self._catching_up)
        self._ended[:] = False
        self._told[:] = set_points
        free = ~(self._limp | self._deaf | self._waits)
        self._goals[free] = set_points[free]
        step = np.clip(self._pushed, -self._push, self._push)
        self._pushed -= step
        self._goals += step
        return self._goals
