# SPDX-License-Identifier: Apache-2.0
"""executor_node as a process in front of a mobile base: waypoints in, limited velocities out, and how it stops."""

from __future__ import annotations

import array
import math
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from ros_peer import Processes
from spinning_peer import ExecutorPeer
from std_msgs.msg import Header, String

from embodiment_descriptions import load_robot, robot_description
from qwen_vla_control.motion.base_path import integrated
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.qos import LATCHED

PERIOD = 0.02  # [s] of odometry and heartbeat


class BasePeer(ExecutorPeer):
    """A policy's heartbeat, and a base that executes the commanded velocities.

    Attributes:
        commands: received velocities (vx, w) with their steady times.
        silent: streams that are off: "odom", "heartbeat".
    """

    def __init__(self) -> None:
        super().__init__("base_peer")
        self.robot = load_robot("mobile_base")
        self.commands, self.silent = [], set()
        self._pose, self._velocity, self._chunk_id = np.zeros(3), np.zeros(3), 0
        self._description = self.node.create_publisher(String, "robot_description", LATCHED)
        self._description.publish(String(data=robot_description("mobile_base")))
        self._odometry = self.node.create_publisher(Odometry, "odom", 10)
        self._heartbeat = self.node.create_publisher(Header, "policy_node/heartbeat", 10)
        self._chunks = self.node.create_publisher(ActionChunk, "policy_node/action_chunk", 10)
        self.hear(Twist, "cmd_vel_nav", self._on_velocity, 10)
        self.every(PERIOD, self._tick)

    def _on_velocity(self, message: Twist) -> None:
        self._velocity = np.array([message.linear.x, message.linear.y, message.angular.z])
        self.commands.append((time.monotonic(), message.linear.x, message.angular.z))

    def _tick(self) -> None:
        (self._pose,) = integrated(self._pose, self._velocity[None], PERIOD)
        stamp = self.stamp()
        if "heartbeat" not in self.silent:
            self._heartbeat.publish(Header(stamp=stamp))
        if "odom" not in self.silent:
            message = Odometry(header=Header(stamp=stamp, frame_id="odom"), child_frame_id=self.robot.base_frame)
            message.pose.pose.position.x, message.pose.pose.position.y = float(self._pose[0]), float(self._pose[1])
            message.pose.pose.orientation.z = math.sin(self._pose[2] / 2)
            message.pose.pose.orientation.w = math.cos(self._pose[2] / 2)
            self._odometry.publish(message)

    @property
    def pose(self) -> np.ndarray:
        return self._pose.copy()

    def send(self, speed: float, rate: float = 0.0) -> int:
        """Publish a chunk that drives along an arc for two seconds; returns its number."""
        robot = self.robot
        self._chunk_id += 1
        rows = integrated(np.zeros(3), np.tile([speed, 0.0, rate], (8, 1)), robot.period)
        message = ActionChunk(
            chunk_id=self._chunk_id,
            embodiment=robot.name,
            control_mode=robot.control_mode,
            channel_names=list(robot.channel_names),
            instruction="go to the door",
            horizon=8,
            execution_horizon=4,
            period=robot.period,
            data=array.array("f", rows.astype(np.float32).tobytes()),
        )
        message.header.stamp, message.header.frame_id = self.stamp(), robot.base_frame
        self._chunks.publish(message)
        return self._chunk_id

    def have_accepted(self, speed: float, rate: float = 0.0) -> int:
        """Send chunks until one is accepted: discovery by the executor may not be complete."""

        def accepted():
            number = self.send(speed, rate)
            return number if self.verdict(number).verdict == ChunkReport.ACCEPTED else 0

        return self.wait(accepted, "a chunk to be accepted")


@pytest.fixture(scope="module")
def base() -> Iterator[BasePeer]:
    with BasePeer() as peer:
        yield peer


@pytest.fixture(scope="module")
def executor(base) -> Iterator:
    with Processes() as processes:
        process = processes.start("executor_node")
        base.wait(lambda: base.node.count_publishers("executor_node/chunk_report"), "executor_node")
        base.wait(
            lambda: base.node.get_subscriptions_info_by_topic("policy_node/action_chunk"), "the executor's subscription"
        )
        base.processes = processes
        base.wait(lambda: base.send(0.0) and base.reports, "its first report")
        yield process


@pytest.fixture
def driving(base, executor):
    """A moving base, and the number of the chunk that it follows."""
    base.silent.clear()
    number = base.have_accepted(0.2, 0.2)
    base.wait(lambda: base.commands and base.commands[-1][1] > 0.1, "motion")
    return number


def test_it_drives_to_where_the_chunk_ends_within_its_limits(base, executor):
    base.commands.clear()
    start = base.pose
    number = base.have_accepted(0.2, 0.3)
    base.report(number, ChunkReport.COMPLETED)
    base.wait(lambda: base.commands[-1][1:] == (0.0, 0.0), "rest")
    expected = integrated(start, np.tile([0.2, 0.0, 0.3], (4, 1)), 0.5)[-1]
    print(f"off by {np.abs(base.pose - expected)}")
    assert np.hypot(*(base.pose - expected)[:2]) < 0.08 and abs(base.pose[2] - expected[2]) < 0.15
    limits = base.robot.safety.base
    commands = np.array(base.commands)
    assert commands[:, 1].max() <= limits.max_linear + 1e-9 and np.abs(commands[:, 2]).max() <= limits.max_angular


def test_too_fast_is_refused_and_nothing_moves(base, executor):
    base.commands.clear()
    number = base.send(1.0)
    report = base.report(number, ChunkReport.REFUSED)
    assert Reason.START_JUMP in report.reason_codes.tolist() and "over the limit 0.260 m/s" in report.message
    assert not [command for command in base.commands if any(command[1:])]


@pytest.mark.parametrize(("stream", "reason"), [("odom", Reason.ODOMETRY_LOST), ("heartbeat", Reason.POLICY_SILENT)])
def test_it_stops_when_what_it_relies_on_falls_silent(base, driving, stream, reason):
    base.silent.add(stream)
    since = time.monotonic()
    report = base.report(driving, ChunkReport.HELD)
    assert report.reason_codes.tolist() == [reason] and report.message.endswith("zero velocity")
    stopped = base.wait(lambda: next((t for t, *v in base.commands if t > since and not any(v)), 0.0), "zero velocity")
    print(f"zero velocity {stopped - since:.2f} s after {stream} fell silent")
    assert stopped - since < 1.0


def test_a_signal_stops_the_base_before_the_process_exits(base, driving, executor):
    assert base.processes.end(executor, signal.SIGTERM) == 0
    assert base.report(driving, ChunkReport.HELD).reason_codes.tolist() == [Reason.DEACTIVATED]
    assert base.wait(lambda: base.commands[-1][1:] == (0.0, 0.0), "zero velocity")
