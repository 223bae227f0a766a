# SPDX-License-Identifier: Apache-2.0
"""The path of a base as nav_msgs/Path, for RViz, recordings and planners. It moves nothing."""

from __future__ import annotations

from collections.abc import Callable

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.node import Node

from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_rclpy.messages import planar_pose_message, time_message
from qwen_vla_ros.executor.command_interfaces.command_interface import Publishing


class PathTopicBackend(Publishing):
    """Publishes every accepted path of the base, and an empty one when it is stopped."""

    def __init__(self, node: Node, topic: str) -> None:
        """Create the publisher."""
        super().__init__(node, Path, topic)
        self._frame = ""

    def preflight(self) -> list[str]:
        """Return no problem: no subscriber is required."""
        return []

    def prepare(self, path: BasePath, now_ns: int) -> Callable[[], None]:
        """Build the message."""
        message = path_message(path, now_ns)
        self._frame = path.frame
        return lambda: self._publisher.publish(message)

    def stop(self, standing: JointPath | None) -> None:
        """Publish an empty path."""
        if self._frame:
            message = Path()
            message.header.frame_id = self._frame
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(message)
            self._frame = ""


def path_message(path: BasePath, start_ns: int) -> Path:
    """Build the message of a path: every row with the ROS time at which it is due."""
    message = Path()
    message.header.frame_id, message.header.stamp = path.frame, time_message(start_ns)
    message.poses = [
        pose_message(path.frame, row, start_ns + round(index * path.period * 1e9))
        for index, row in enumerate(path.positions)
    ]
    return message


def pose_message(frame: str, pose, stamp_ns: int) -> PoseStamped:
    """Build the message of one pose (x, y, theta)."""
    message = PoseStamped(pose=planar_pose_message(pose))
    message.header.frame_id, message.header.stamp = frame, time_message(stamp_ns)
    return message
