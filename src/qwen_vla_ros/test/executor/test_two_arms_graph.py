# SPDX-License-Identifier: Apache-2.0
"""executor_node as a process in front of two arms: 14 channels of absolute joint positions at 50 Hz."""

from __future__ import annotations

import array
import signal
import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import yaml
from commanded_joints import CommandedJoints
from joint_chunks import turning_waists
from ros_peer import Processes
from sensor_msgs.msg import JointState
from spinning_peer import ExecutorPeer
from std_msgs.msg import Float64MultiArray, Header, String
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import Embodiment, load_robot, resource_path, robot_description
from embodiment_descriptions.commands import Command
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_rclpy.qos import LATCHED

PERIOD = 0.02  # [s] of joint states and heartbeat


class TwoArms(ExecutorPeer):
    """A policy's heartbeat, and two arms that follow their commands, from home on.

    Attributes:
        robot: the embodiment.
        received: commands by topic.
        joints: where they are.
        deaf: topics whose commands they do not follow.
    """

    def __init__(self, hardware: str) -> None:
        super().__init__("two_arms")
        self.robot = load_robot("aloha", hardware=hardware)
        self.received, self._chunk_id = {}, 0
        self.joints, self.deaf = CommandedJoints(self.robot.home), set()
        self._description = self.node.create_publisher(String, "robot_description", LATCHED)
        self._description.publish(String(data=robot_description("aloha", hardware=hardware)))
        self._states = [self.node.create_publisher(JointState, s.topic, 10) for s in self.robot.joint_states]
        self._heartbeat = self.node.create_publisher(Header, "policy_node/heartbeat", 10)
        self._chunks = self.node.create_publisher(ActionChunk, "policy_node/action_chunk", 10)
        self.every(PERIOD, self._tick)

    def listen(self, kind, command: Command) -> None:
        """Be the device of a command interface."""
        self.received[command.topic] = []
        self.hear(kind, command.topic, partial(self._take, command), 200)

    def _take(self, command: Command, message) -> None:
        self.received[command.topic].append((time.monotonic(), message))
        if command.topic in self.deaf:
            return
        if command.backend == "joint_trajectory":
            self.joints.play(message)
        elif command.backend == "forward_command":
            self.joints.put(dict(zip(command.joints, message.data, strict=True)))
        elif command.backend == "xs_group":
            self.joints.put(dict(zip(command.joints, message.cmd, strict=True)))

    def _tick(self) -> None:
        stamp = self.stamp()
        self._heartbeat.publish(Header(stamp=stamp))
        where = self.joints.positions
        for source, publisher in zip(self.robot.joint_states, self._states, strict=True):
            own = {n.removeprefix(source.prefix): q for n, q in where.items() if n.startswith(source.prefix)}
            publisher.publish(JointState(header=Header(stamp=stamp), name=list(own), position=list(own.values())))

    def chunk(self, displacement: float = 0.1) -> ActionChunk:
        """Both waists rotate by `displacement` [rad], the left gripper opens."""
        robot = self.robot
        self._chunk_id += 1
        rows = turning_waists(robot, displacement)
        rows[:, 6] = np.linspace(0.0, 1.0, 50)
        message = ActionChunk(
            chunk_id=self._chunk_id,
            embodiment=robot.name,
            control_mode=robot.control_mode,
            channel_names=list(robot.channel_names),
            instruction="pour the beads",
            horizon=50,
            execution_horizon=25,
            period=robot.period,
            data=array.array("f", rows.tobytes()),
        )
        message.header.stamp, message.header.frame_id = self.stamp(), robot.base_frame
        return message

    def send(self, message: ActionChunk) -> ChunkReport:
        """Publish a chunk and return the verdict."""
        self._chunks.publish(message)
        return self.verdict(message.chunk_id)


@pytest.fixture(params=["mock", "real"])
def arms(request) -> Iterator[TwoArms]:
    """Two arms behind ros2_control, and with the real robot's interfaces; executor_node knows which."""
    if request.param == "real":
        pytest.importorskip("interbotix_xs_msgs", reason="apt install ros-humble-interbotix-xs-msgs")
    with TwoArms(request.param) as peer, Processes() as processes:
        real = {"embodiment_config": "config/embodiments/aloha_real.yaml"} if request.param == "real" else {}
        processes.start("executor_node", **real)
        peer.wait(lambda: peer.node.get_subscriptions_info_by_topic("policy_node/action_chunk"), "executor_node")
        peer.wait(lambda: peer.node.count_publishers("executor_node/chunk_report"), "its reports")
        yield peer


def kind_of(backend: str):
    if backend == "joint_trajectory":
        return JointTrajectory
    xs = pytest.importorskip("interbotix_xs_msgs.msg")
    return xs.JointGroupCommand if backend == "xs_group" else xs.JointSingleCommand


def test_neither_arm_is_commanded_while_one_is_missing_then_both_are(arms):
    *most, last = arms.robot.commands
    for command in most:
        arms.listen(kind_of(command.backend), command)
    told = arms.wait(lambda: Reason.NOT_READY in (r := arms.send(arms.chunk())).reason_codes and r, "the missing part")
    assert last.topic in told.message and told.verdict == ChunkReport.REFUSED
    arms.listen(kind_of(last.backend), last)
    arms.wait(lambda: arms.send(arms.chunk()).verdict == ChunkReport.ACCEPTED, "a chunk to be accepted")
    arms.wait(lambda: all(arms.received.values()), "commands to all devices")
    arms.wait(lambda: any(r.verdict == ChunkReport.COMPLETED for r in arms.reports), "the end of the chunk")
    for command in arms.robot.commands:
        messages = arms.received[command.topic]
        if command.backend == "joint_trajectory":
            ((_, trajectory),) = messages
            assert list(trajectory.joint_names) == list(command.joints) and len(trajectory.points) >= 25
            assert not any(trajectory.points[-1].velocities)
            continue
        assert len(messages) > 20, "setpoints at 50 Hz for half a second"
        if command.backend == "xs_group":
            turned = messages[-1][1].cmd[0] - arms.robot.home[command.joints[0]]
            assert 0.03 < turned < 0.08


def test_a_device_that_stopped_with_a_frozen_executor_stays_there(tmp_path):
    """Setpoints come one by one: when the executor continues, the path is elsewhere; the arms must not jump there."""
    settings = yaml.safe_load(resource_path("config/embodiments/aloha.yaml").read_text())
    for side, command in zip(("left", "right"), settings["commands"], strict=True):
        command |= {"backend": "forward_command", "topic": f"{side}/commands"}
    (tmp_path / "streaming.yaml").write_text(yaml.safe_dump(settings))
    with TwoArms("mock") as arms, Processes() as processes:
        executor = processes.start("executor_node", embodiment_config=str(tmp_path / "streaming.yaml"))
        for command in Embodiment.from_urdf(arms.robot.urdf, tmp_path / "streaming.yaml").commands:
            arms.listen(Float64MultiArray, command)
        arms.wait(lambda: arms.node.get_subscriptions_info_by_topic("policy_node/action_chunk"), "executor_node")
        arms.wait(lambda: arms.node.count_publishers("executor_node/chunk_report"), "its reports")
        arms.wait(
            lambda: arms.send(arms.chunk(displacement=0.2)).verdict == ChunkReport.ACCEPTED, "a chunk to be accepted"
        )
        begun = len(arms.received["left/commands"])
        arms.wait(lambda: len(arms.received["left/commands"]) > begun + 8, "setpoints")
        executor.send_signal(signal.SIGSTOP)
        frozen = time.monotonic()
        arms.wait(lambda: time.monotonic() - frozen > 0.5, "half a second")
        executor.send_signal(signal.SIGCONT)
        held = arms.wait(lambda: next((r for r in arms.reports if r.verdict == ChunkReport.HELD), None), "a hold")
        assert held.reason_codes.tolist() == [Reason.STALLED] and "was frozen" in held.message
        told = np.array([message.data for _, message in arms.received["left/commands"]])
        assert np.abs(np.diff(told[:, 0])).max() < 0.02  # [rad] the path's own steps are 6 mrad, a jump would be 90


def test_when_one_arm_does_not_follow_both_are_held():
    """As with an inactive controller, which keeps its subscription and drops what it receives."""
    with TwoArms("mock") as arms, Processes() as processes:
        processes.start("executor_node")
        for command in arms.robot.commands:
            arms.listen(JointTrajectory, command)
        left, right = (command.topic for command in arms.robot.commands)
        arms.deaf.add(right)
        arms.wait(lambda: arms.node.get_subscriptions_info_by_topic("policy_node/action_chunk"), "executor_node")
        arms.wait(lambda: arms.node.count_publishers("executor_node/chunk_report"), "its reports")
        arms.wait(
            lambda: arms.send(arms.chunk(displacement=0.3)).verdict == ChunkReport.ACCEPTED, "a chunk to be accepted"
        )
        held = arms.wait(lambda: next((r for r in arms.reports if r.verdict == ChunkReport.HELD), None), "a hold")
        assert held.reason_codes.tolist() == [Reason.NOT_FOLLOWING] and "follower_right/waist" in held.message
        for topic in (left, right):
            arms.wait(lambda topic=topic: len(arms.received[topic]) > 1, f"the hold on {topic}")
            (_, motion), (_, hold) = arms.received[topic][-2:]
            assert len(motion.points) >= 25 and len(hold.points) == 1
        assert not any(r.verdict == ChunkReport.COMPLETED for r in arms.reports)
