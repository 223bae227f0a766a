# SPDX-License-Identifier: Apache-2.0
"""trajectory_visualizer as a process in a namespace: two arms with joint positions, and a base with waypoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from recorded_runs import events
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from visualization_msgs.msg import Marker, MarkerArray

from embodiment_descriptions import load_robot
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_msgs.msg import ActionChunk
from qwen_vla_rclpy.messages import time_message
from qwen_vla_rclpy.qos import LATCHED
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.ros.spinning_node import SpinningNode

NODE = "trajectory_visualizer"
PATIENCE = 60.0  # [s]


class Robot:
    """A robot at rest beside a policy that repeats one chunk, in a namespace of their own."""

    def __init__(self, name: str, node: SpinningNode) -> None:
        self.embodiment, self.node, self.name = load_robot(name), node, name
        said = events(self.embodiment)
        self.chunk = next(m for _, _, m in said if isinstance(m, ActionChunk))
        due = nanoseconds(self.chunk.header.stamp)
        kinds = (JointState, Odometry)
        self.state = [(topic, m) for time, topic, m in said if time == due and isinstance(m, kinds)]
        self.seen: dict[str, list] = {}
        for kind, topic in ((MarkerArray, f"{NODE}/predicted_trajectory"), (JointState, "ghost/joint_states")):
            self.hear(kind, topic)
        self.hear(PathMessage, f"{NODE}/predicted_path")
        self.hear(PathMessage, f"{NODE}/predicted_path_right")
        self.description = self.publisher(String, "robot_description", LATCHED)
        self.description.publish(String(data=self.embodiment.urdf))
        self.publishers = {topic: self.publisher(type(message), topic) for topic, message in self.state}
        self.chunks = self.publisher(ActionChunk, "policy_node/action_chunk")
        self.repeats = 0

    def publisher(self, kind, topic, quality=10):
        return self.node.node.create_publisher(kind, f"/{self.name}/{topic}", quality)

    def hear(self, kind, topic) -> None:
        self.node.hear(kind, f"/{self.name}/{topic}", self.seen.setdefault(topic, []).append, 50)

    def say(self) -> None:
        """Publish the robot's state, a nanosecond later each time, and the chunk."""
        self.repeats += 1
        for topic, message in self.state:
            message.header.stamp = time_message(nanoseconds(self.chunk.header.stamp) + self.repeats)
            self.publishers[topic].publish(message)
        self.chunks.publish(self.chunk)

    def until(self, condition, what: str):
        """Publish until a condition holds; returns the first true value."""
        return self.node.wait(lambda: self.say() or condition(), what, PATIENCE)

    def lines(self) -> dict[str, Marker]:
        """The last line of every namespace."""
        arrays = self.seen[f"{NODE}/predicted_trajectory"]
        return {m.ns: m for array in arrays for m in array.markers if m.type == Marker.LINE_STRIP and m.points}


@pytest.fixture
def robot(request):
    """The robot, its visualizer as a process, and a node that observes."""
    os.environ.update(ros_environment())
    command = [Path(sys.executable).parent / NODE, "--ros-args", "-r", f"__ns:=/{request.param}"]
    with SpinningNode("robot", int(os.environ["ROS_DOMAIN_ID"])) as node:
        process = subprocess.Popen(command, env=ros_environment())
        try:
            yield Robot(request.param, node)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("robot", ["aloha"], indirect=True)
def test_joint_positions_of_two_arms(robot):
    lines = robot.until(lambda: len(robot.lines()) == 2 and robot.lines(), "lines of both arms")
    assert {ns: m.header.frame_id for ns, m in lines.items()} == {
        "left/predicted": "follower_left/base_link",
        "right/predicted": "follower_right/base_link",
    }
    assert all(len(m.points) == 51 for m in lines.values())
    left, right = f"{NODE}/predicted_path", f"{NODE}/predicted_path_right"
    robot.until(lambda: robot.seen[left] and robot.seen[right], "a path for each arm")
    assert robot.seen[left][-1].header.frame_id == "follower_left/base_link"
    assert robot.seen[right][-1].header.frame_id == "follower_right/base_link"
    goal = dict(zip(robot.chunk.channel_names, np.reshape(robot.chunk.data, (50, 14))[-1], strict=True))

    def arrived():
        ghost = robot.seen["ghost/joint_states"][-1:]
        there = dict(zip(ghost[0].name, ghost[0].position, strict=True)) if ghost else {}
        return there and all(np.isclose(there[name], goal[name]) for name in goal if name in there)

    robot.until(arrived, "the ghost at the last row of the chunk")


@pytest.mark.parametrize("robot", ["mobile_base"], indirect=True)
def test_waypoints_of_a_base(robot):
    lines = robot.until(robot.lines, "a line")
    assert {ns: m.header.frame_id for ns, m in lines.items()} == {"base/predicted": "odom"}
    path = robot.until(lambda: robot.seen[f"{NODE}/predicted_path"], "a path")[-1]
    assert path.header.frame_id == "odom" and len(path.poses) == 9
    x = dict(robot.state)["odom"].pose.pose.position.x
    first, last = (path.poses[k].pose.position for k in (0, -1))
    assert np.allclose([first.x, first.y, last.x, last.y], [x, 0.0, x + 1.0, 0.3], atol=1e-6)
