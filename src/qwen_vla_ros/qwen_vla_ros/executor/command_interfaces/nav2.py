# SPDX-License-Identifier: Apache-2.0
"""Base paths as goals for Nav2: the whole path for its controller server, or the last pose for its navigator.

Only the fields common to all distributions are set, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from embodiment_descriptions.commands import Nav2FollowPathCommand, Nav2PoseCommand
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_rclpy.optional_interfaces import interface
from qwen_vla_ros.executor.command_interfaces.action_goals import ActionGoals
from qwen_vla_ros.executor.command_interfaces.command_interface import Capabilities, CommandedRobot
from qwen_vla_ros.executor.command_interfaces.path_topic import path_message, pose_message


class _Nav2(ActionGoals):
    """One goal per path; a stop cancels it, and Nav2 brings the base to rest."""

    capabilities = Capabilities()

    def __init__(self, node: Node, command: Nav2FollowPathCommand | Nav2PoseCommand, robot: CommandedRobot) -> None:
        """Create the client; MissingInterface without nav2_msgs."""
        super().__init__(node, interface(command.types[0]), command.action)

    def goal(self, path: BasePath, now_ns: int) -> Any:
        """Build the goal of a path."""
        raise NotImplementedError

    def prepare(self, path: BasePath, now_ns: int) -> Callable[[], None]:
        """Build the goal."""
        goal = self.goal(path, now_ns)
        return lambda: self.send_goal(goal)

    def stop(self, standing: JointPath | None) -> None:
        """Cancel."""
        self.cancel()

    def sample(self, now_ns: int) -> None:
        """Do nothing: Nav2 computes the velocities."""

    def publish(self) -> None:
        """Do nothing: Nav2 computes the velocities."""


class Nav2FollowPathBackend(_Nav2):
    """nav2_msgs/FollowPath: the path unchanged, followed by Nav2's controller with its costmap."""

    def goal(self, path: BasePath, now_ns: int) -> Any:
        """Stamp all poses with the start time: a controller would look up transforms for future stamps."""
        goal = self._kind.Goal()
        goal.path = path_message(path, now_ns)
        for pose in goal.path.poses:
            pose.header.stamp = goal.path.header.stamp
        return goal


class Nav2PoseBackend(_Nav2):
    """nav2_msgs/NavigateToPose: Nav2 plans its own path to the last pose."""

    def goal(self, path: BasePath, now_ns: int) -> Any:
        """Build the goal from the last row."""
        goal = self._kind.Goal()
        goal.pose = pose_message(path.frame, path.positions[-1], now_ns)
        return goal
