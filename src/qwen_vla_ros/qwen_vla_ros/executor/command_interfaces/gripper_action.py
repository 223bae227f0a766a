# SPDX-License-Identifier: Apache-2.0
"""A gripper controller with an action: goals are rate-limited, and changes within the dead band are not sent.

One goal per step of a policy would be too many for an action. Each goal is therefore the position on the path when the
next goal may be sent; the end of the path is always sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from embodiment_descriptions.commands import GripperActionCommand
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_rclpy.optional_interfaces import interface
from qwen_vla_ros.executor.command_interfaces.action_goals import ActionGoals
from qwen_vla_ros.executor.command_interfaces.command_interface import Capabilities, CommandedRobot


class Goals:
    """Which position to request, and when. Free of ROS."""

    def __init__(self, max_rate_hz: float, dead_band: float) -> None:
        """Start without a request; `dead_band` [m | rad]."""
        self._interval_ns, self._dead_band = round(1e9 / max_rate_hz), dead_band
        self._asked: float | None = None
        self._asked_ns = 0

    def due(self, path: JointPath, start_ns: int, now_ns: int) -> float | None:
        """Return the position to request now, or None when no goal is due.

        Args:
            path: of one joint.
            start_ns: ROS time of its row 0 [ns].
            now_ns: ROS time [ns].
        """
        waited = now_ns - self._asked_ns
        if self._asked is not None and 0 <= waited < self._interval_ns:
            return None
        position = float(path.at((now_ns + self._interval_ns - start_ns) / 1e9)[0][0])
        if self.has_asked_for(position):
            return None
        self._asked, self._asked_ns = position, now_ns
        return position

    def has_asked_for(self, position: float) -> bool:
        """Whether the last goal was this position, within the dead band."""
        return self._asked is not None and abs(position - self._asked) <= self._dead_band

    def forget(self) -> None:
        """Forget the last goal: the gripper may be anywhere, so the next one is always sent."""
        self._asked = None


class GripperActionBackend(ActionGoals):
    """One gripper.

    A stop cancels the goal being executed. A gripper that has reached its goal, or is holding an object, is left
    alone: it must not let go.
    """

    capabilities = Capabilities(streams=True)

    def __init__(self, node: Node, command: GripperActionCommand, robot: CommandedRobot) -> None:
        """Create the client; MissingInterface without control_msgs, or with one too old for the kind."""
        super().__init__(node, interface(command.types[0]), command.action)
        self._joints = command.commanded
        self._max_effort = command.max_effort
        self._goals = Goals(command.max_rate_hz, command.dead_band)
        self._path: JointPath | None = None
        self._start_ns = 0
        self._next: float | None = None

    def prepare(self, path: JointPath, now_ns: int) -> Callable[[], None]:
        """Follow the path from the next sample on."""
        mine = path.select(self._joints)

        def begin() -> None:
            self._path, self._start_ns = mine, now_ns

        return begin

    def sample(self, now_ns: int) -> None:
        """Determine whether a goal is due."""
        self._next = None
        if self._path is None:
            return
        self._next = self._goals.due(self._path, self._start_ns, now_ns)
        if self._goals.has_asked_for(self._path.positions[-1, 0]):
            self._path = None

    def publish(self) -> None:
        """Send the goal that is due."""
        if self._next is not None:
            self.send_goal(self._goal(self._next))
            self._next = None

    def stop(self, standing: JointPath | None) -> None:
        """Cancel the current goal."""
        self._path = self._next = None
        if self.at_work:
            self.cancel()
            self._goals.forget()

    def fault(self) -> str:
        """Return no fault: a gripper that stalls has grasped something."""
        return ""

    def _goal(self, position: float) -> Any:
        goal = self._kind.Goal()
        if hasattr(goal.command, "max_effort"):
            goal.command.position, goal.command.max_effort = position, self._max_effort or 0.0
        else:
            goal.command.name, goal.command.position = list(self._joints), [position]
            goal.command.effort = [self._max_effort] if self._max_effort else []
        return goal
