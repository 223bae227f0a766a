# SPDX-License-Identifier: Apache-2.0
"""Every command interface with the real middleware: what arrives, what does not, and how it stops."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from hypothesis import given
from hypothesis import strategies as st
from nav_msgs.msg import Path
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import Embodiment, load_robot
from embodiment_descriptions.commands import (
    BaseVelocityCommand,
    ForwardCommand,
    GripperActionCommand,
    JointTrajectoryCommand,
    Nav2FollowPathCommand,
    Nav2PoseCommand,
    XsSingleCommand,
)
from qwen_vla_control.motion.base_path import BasePath
from qwen_vla_control.motion.joint_path import JointPath
from qwen_vla_control.reasons import Reason, Refused
from qwen_vla_msgs.action import ExecuteInstruction
from qwen_vla_rclpy.optional_interfaces import MissingInterface, interface
from qwen_vla_ros.executor.command_interfaces import CommandedRobot, CommandInterfaces
from qwen_vla_ros.executor.command_interfaces.action_goals import ActionGoals
from qwen_vla_ros.executor.command_interfaces.gripper_action import Goals
from qwen_vla_ros.executor.command_interfaces.setpoints import motor_angle
from qwen_vla_ros.ros.environment import ros_environment

PATIENCE = 30.0  # [s]
S = 10**9


class Graph:
    """A node that commands and a node that acts as the robot, in one thread but as two participants of the middleware.

    Attributes:
        received: messages by topic.
    """

    def __init__(self) -> None:
        os.environ.update(ros_environment())
        self._executors = []
        self.commander, self.robot = self._node("commander"), self._node("robot")
        self.received: dict[str, list] = {}

    def _node(self, name: str) -> Node:
        context = rclpy.Context()
        context.init(domain_id=int(os.environ["ROS_DOMAIN_ID"]))
        node = Node(name, context=context)
        self._executors.append(SingleThreadedExecutor(context=context))
        self._executors[-1].add_node(node)
        return node

    def close(self) -> None:
        for executor, node in zip(self._executors, (self.commander, self.robot), strict=True):
            executor.shutdown()
            node.destroy_node()
            node.context.try_shutdown()

    def until(self, condition, what: str):
        """Spin both nodes until the condition holds; returns its value."""
        limit = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < limit, f"not within {PATIENCE} s: {what}"
            for executor in self._executors:
                executor.spin_once(timeout_sec=0.005)
        return value

    def device(self, kind, topic: str):
        """Subscribe as the robot does."""
        self.received[topic] = []
        return self.robot.create_subscription(kind, topic, self.received[topic].append, 10)

    def stream(self, commands: CommandInterfaces, ticks: range, topic: str) -> list:
        """Feed setpoints at 50 Hz from second 10 on, each of which arrives; returns all messages so far."""
        got = self.received[topic]
        for tick in ticks:
            count = len(got)
            commands.stream(10 * S + tick * S // 50)
            self.until(lambda count=count: len(got) > count, f"the setpoint of tick {tick}")
        return got

    def settle(self) -> None:
        """Wait until everything sent so far has arrived, by sending one more message and waiting for it."""
        echo = []
        subscription = self.robot.create_subscription(Twist, "echo", echo.append, 10)
        publisher = self.commander.create_publisher(Twist, "echo", 10)
        self.until(lambda: publisher.get_subscription_count(), "the echo")
        publisher.publish(Twist())
        self.until(lambda: echo, "the echo")
        self.robot.destroy_subscription(subscription)
        self.commander.destroy_publisher(publisher)


@pytest.fixture(scope="module")
def graph() -> Iterator[Graph]:
    made = Graph()
    yield made
    made.close()


@pytest.fixture
def interfaces(graph):
    """Build command interfaces that are removed after the test."""
    made, pose = [], {"now": np.zeros(3)}

    def build(embodiment: Embodiment, *commands) -> CommandInterfaces:
        if commands:
            embodiment = embodiment.model_copy(update={"commands": commands})
        made.append(CommandInterfaces(graph.commander, CommandedRobot(embodiment, lambda: pose["now"])))
        return made[-1]

    build.pose = pose
    yield build
    for one in made:
        one.destroy()


@pytest.fixture(scope="module")
def aloha() -> Embodiment:
    return load_robot("aloha")


@pytest.fixture(scope="module")
def base() -> Embodiment:
    return load_robot("mobile_base")


def path_of(embodiment: Embodiment, shift: float = 0.1, period: float = 0.2) -> JointPath:
    """Every joint moves by `shift` in five steps."""
    home = np.array([embodiment.home[name] for name in embodiment.joint_names])
    return JointPath.through(embodiment.joint_names, home + np.linspace(0, shift, 6)[:, None], period)


def ready(graph: Graph, commands: CommandInterfaces) -> None:
    graph.until(lambda: not commands.preflight(), "the interfaces to be ready")


# Joint trajectories ---------------------------------------------------------------------------------------------------


def test_both_arms_are_commanded_or_neither(graph, interfaces, aloha):
    left, right = (command.topic for command in aloha.commands)
    commands, path = interfaces(aloha), path_of(aloha)
    graph.device(JointTrajectory, left)
    with pytest.raises(Refused) as refused:
        graph.until(lambda: len(commands.preflight()) == 1, "the left arm")
        commands.send(path, 0)
    assert refused.value.reasons == (Reason.NOT_READY,) and right in str(refused.value)
    graph.device(JointTrajectory, right)
    ready(graph, commands)
    broken = JointPath(path.joints, path.period, path.positions.copy(), path.velocities)
    broken.positions[2, -1] = np.nan  # the finger of the right arm
    with pytest.raises(Refused):
        commands.send(broken, 0)
    graph.settle()
    assert graph.received[left] == graph.received[right] == []
    commands.send(path, 0)
    graph.until(lambda: graph.received[left] and graph.received[right], "both trajectories")
    (got,) = graph.received[right]
    assert got.joint_names == list(aloha.commands[1].joints) and len(got.points) == 5
    assert np.allclose(got.points[-1].positions, [path.positions[-1, path.joints.index(j)] for j in got.joint_names])


def test_a_topic_of_another_type_is_reported(graph, interfaces):
    widowx = load_robot("widowx")
    arm = JointTrajectoryCommand(backend="joint_trajectory", topic="misfit", joints=widowx.joint_names)
    commands = interfaces(widowx, arm)
    graph.device(Float64MultiArray, "misfit")
    told = "has subscribers to std_msgs/msg/Float64MultiArray, but commands are trajectory_msgs/msg/JointTrajectory"
    graph.until(lambda: any(told in problem for problem in commands.preflight()), "the wrong type to be reported")


# Setpoints ------------------------------------------------------------------------------------------------------------


def test_a_forward_controller_gets_the_path_sample_by_sample_in_its_own_order(graph, interfaces):
    widowx = load_robot("widowx")
    order = tuple(reversed(widowx.joint_names))
    commands = interfaces(widowx, ForwardCommand(backend="forward_command", topic="forward/commands", joints=order))
    graph.device(Float64MultiArray, "forward/commands")
    ready(graph, commands)
    path = path_of(widowx)
    commands.stream(S)
    commands.send(path, 10 * S)
    got = graph.stream(commands, range(51), "forward/commands")  # the path takes 1 s
    commands.stream(12 * S)
    graph.settle()
    assert len(got) == 51, "nothing before the path, nothing after its end"
    for tick in (0, 13, 50):
        expected = path.select(order).at(tick / 50)[0]
        assert np.allclose(got[tick].data, expected)


def test_a_stop_ends_the_samples_where_the_robot_is_to_hold(graph, interfaces):
    widowx = load_robot("widowx")
    order = tuple(widowx.joint_names)
    commands = interfaces(widowx, ForwardCommand(backend="forward_command", topic="forward/stop", joints=order))
    graph.device(Float64MultiArray, "forward/stop")
    ready(graph, commands)
    path, got = path_of(widowx), graph.received["forward/stop"]
    commands.send(path, 0)
    commands.stream(S // 2)
    commands.stop(JointPath.standing(order, path.at(0.5)[0], 0.1))
    commands.stream(S // 2 + S // 50)
    graph.until(lambda: len(got) >= 2, "sample and hold")
    graph.settle()
    assert len(got) == 2 and np.allclose(got[0].data, got[1].data)


def test_the_gripper_of_an_xs_robot_is_commanded_a_motor_angle():
    real = load_robot("aloha", hardware="real")
    finger = real.arms[0].gripper
    angle = motor_angle(next(c for c in real.commands if isinstance(c, XsSingleCommand)), real)
    assert angle(finger.closed) == pytest.approx(0.6197) and angle(finger.open) == pytest.approx(1.6214)
    assert angle((finger.closed + finger.open) / 2) == pytest.approx((0.6197 + 1.6214) / 2)


def test_two_xs_arms_are_fed_together(graph, interfaces):
    xs = pytest.importorskip("interbotix_xs_msgs.msg", reason="apt install ros-humble-interbotix-xs-msgs")
    aloha = load_robot("aloha", hardware="real")
    entries = aloha.commands
    for entry in entries:
        graph.device(xs.JointGroupCommand if entry.backend == "xs_group" else xs.JointSingleCommand, entry.topic)
    commands = interfaces(aloha)
    ready(graph, commands)
    path = path_of(aloha, shift=0.02, period=0.02)
    commands.send(path, 10 * S)
    graph.stream(commands, range(6), entries[0].topic)
    streams = [graph.received[entry.topic] for entry in entries]
    graph.until(lambda: all(len(stream) == 6 for stream in streams), "six samples of everything")
    arm, gripper = streams[2][-1], streams[3][-1]
    assert arm.name == "arm" and gripper.name == "gripper"
    assert np.allclose(arm.cmd, path.select(aloha.arms[1].joints).positions[-1], atol=1e-6)
    assert gripper.cmd > 0.6197


# Bases ----------------------------------------------------------------------------------------------------------------


def straight(embodiment: Embodiment, speed: float = 0.2) -> BasePath:
    poses = np.zeros((5, 3))
    poses[:, 0] = speed * embodiment.period * np.arange(5)
    return BasePath.through("odom", poses, embodiment.period)


def velocity_of(message: Twist | TwistStamped) -> tuple[float, float]:
    twist = message.twist if isinstance(message, TwistStamped) else message
    return twist.linear.x, twist.angular.z


@pytest.mark.parametrize("kind", [Twist, TwistStamped])
def test_a_base_gets_the_type_that_it_subscribes_to(graph, interfaces, base, kind):
    topic = f"cmd_vel_{kind.__name__.lower()}"
    graph.device(kind, topic)
    commands = interfaces(base, BaseVelocityCommand(backend="base_velocity", topic=topic))
    ready(graph, commands)
    commands.send(straight(base), 10 * S)
    got = graph.stream(commands, range(25), topic)
    assert 0.1 < velocity_of(got[-1])[0] <= base.safety.base.max_linear
    if kind is TwistStamped:
        assert got[-1].header.frame_id == base.base.link and got[-1].header.stamp.sec > 0
    commands.stop(None)
    graph.until(lambda: len(got) == 26, "the stop")
    assert velocity_of(got[-1]) == (0.0, 0.0)
    graph.stream(commands, range(25, 50), topic)
    commands.stream(12 * S)  # silent after half a second of zeros, so that others may drive
    graph.settle()
    assert len(got) == 51 and not any(any(velocity_of(message)) for message in got[25:])


def test_a_base_without_odometry_is_stopped(graph, interfaces, base):
    graph.device(Twist, "cmd_vel_blind")
    commands = interfaces(base, BaseVelocityCommand(backend="base_velocity", topic="cmd_vel_blind"))
    ready(graph, commands)
    commands.send(straight(base), 0)
    commands.stream(S // 50)
    interfaces.pose["now"] = None
    commands.stream(S // 25)
    got = graph.received["cmd_vel_blind"]
    graph.until(lambda: len(got) == 2, "two velocities")
    assert velocity_of(got[0])[0] > 0 and velocity_of(got[1]) == (0.0, 0.0)


def test_a_mismatch_of_twist_types_is_reported_with_its_remedy(graph, interfaces, base):
    graph.device(TwistStamped, "cmd_vel_mismatch")
    entry = BaseVelocityCommand(backend="base_velocity", topic="cmd_vel_mismatch", message="twist")
    commands = interfaces(base, entry)
    told = graph.until(
        lambda: [p for p in commands.preflight() if "TwistStamped" in p], "the mismatch to be seen in the graph"
    )
    assert "set message: twist_stamped or auto" in told[0] and "commands are geometry_msgs/msg/Twist" in told[0]
    with pytest.raises(Refused) as refused:
        commands.send(straight(base), 0)
    assert refused.value.reasons == (Reason.NOT_READY,)


def test_a_missing_base_is_reported(graph, interfaces, base):
    (problem,) = interfaces(base, BaseVelocityCommand(backend="base_velocity", topic="cmd_vel_nobody")).preflight()
    assert "/cmd_vel_nobody" in problem and "no subscriber" in problem


def test_the_path_of_a_base_is_always_published(graph, interfaces, base):
    graph.device(Twist, "cmd_vel_path")
    graph.device(Path, "commander/base_path")
    commands = interfaces(base, BaseVelocityCommand(backend="base_velocity", topic="cmd_vel_path"))
    ready(graph, commands)
    count = commands._backends[-1]._publisher.get_subscription_count
    graph.until(lambda: count() > 0, "a subscriber of the path")
    commands.send(straight(base), 7 * S)
    commands.stop(None)
    path, empty = graph.until(
        lambda: graph.received["commander/base_path"][:2][1:] and graph.received["commander/base_path"],
        "path and its end",
    )
    assert path.header.frame_id == empty.header.frame_id == "odom" and path.header.stamp.sec == 7
    assert [pose.pose.position.x for pose in path.poses] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert path.poses[2].header.stamp.sec == 8 and not empty.poses


# Actions --------------------------------------------------------------------------------------------------------------


class Server:
    """An action server whose goals last until they are canceled, or are ended by the test."""

    def __init__(self, graph: Graph, kind, name: str) -> None:
        self.goals, self.canceled, self.ending = [], 0, None
        self.accepts = True
        self._kind = kind
        self._server = ActionServer(
            graph.robot,
            kind,
            name,
            execute_callback=self._execute,
            goal_callback=lambda goal: self._on_goal(goal),
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
            handle_accepted_callback=self._on_accepted,
        )
        self.handles = []

    def _on_goal(self, goal) -> GoalResponse:
        self.goals.append(goal)
        return GoalResponse.ACCEPT if self.accepts else GoalResponse.REJECT

    def _on_accepted(self, handle) -> None:
        self.handles.append(handle)  # executed by `finish`

    def finish(self, how: str) -> None:
        self.ending = how
        self.handles[-1].execute()

    def _execute(self, handle):
        getattr(handle, self.ending)()
        return self._kind.Result()

    def destroy(self) -> None:
        self._server.destroy()


@pytest.fixture
def goals(graph):
    """A server and a client of one action."""
    server = Server(graph, ExecuteInstruction, "work")
    client = ActionGoals(graph.commander, ExecuteInstruction, "work")
    graph.until(lambda: not client.preflight(), "the server")
    yield server, client
    client.destroy()
    server.destroy()


def is_cancelling(server: Server) -> bool:
    return bool(server.handles) and server.handles[-1].is_cancel_requested


def test_without_a_server_the_action_is_named(graph):
    client = ActionGoals(graph.commander, ExecuteInstruction, "nowhere")
    assert "/nowhere" in client.preflight()[0]
    client.destroy()


def test_a_stop_cancels_a_goal_that_was_accepted(graph, goals):
    server, client = goals
    client.send_goal(ExecuteInstruction.Goal(instruction="go"))
    graph.until(lambda: client._handle is not None, "acceptance")
    assert client.at_work
    client.cancel()
    graph.until(lambda: is_cancelling(server), "the cancellation")
    server.finish("canceled")
    graph.settle()
    assert not client.at_work and client.fault() == ""


def test_a_stop_also_cancels_a_goal_whose_response_is_pending(graph, goals):
    server, client = goals
    client.send_goal(ExecuteInstruction.Goal(instruction="go"))
    client.cancel()
    graph.until(lambda: is_cancelling(server), "the cancellation")
    server.finish("canceled")


@pytest.mark.parametrize(("accepts", "word"), [(False, "rejected"), (True, "failed")])
def test_a_goal_that_fails_is_a_fault_until_the_next_one(graph, goals, accepts, word):
    server, client = goals
    server.accepts = accepts
    client.send_goal(ExecuteInstruction.Goal(instruction="go"))
    if accepts:
        graph.until(lambda: client._handle is not None, "acceptance")
        server.finish("abort")
    graph.until(client.fault, "the fault")
    assert word in client.fault() and "/work" in client.fault() and not client.at_work
    server.accepts = True
    client.send_goal(ExecuteInstruction.Goal(instruction="again"))
    assert client.fault() == ""


def test_a_goal_that_was_replaced_is_no_fault(graph, goals):
    server, client = goals
    client.send_goal(ExecuteInstruction.Goal(instruction="first"))
    graph.until(lambda: len(server.handles) == 1 and client._handle is not None, "the first goal")
    first = server.handles[0]
    client.send_goal(ExecuteInstruction.Goal(instruction="second"))
    graph.until(lambda: len(server.handles) == 2, "the second goal")
    server.ending = "abort"
    first.execute()
    graph.settle()
    assert client.fault() == "" and client.at_work


RATE, DEAD_BAND = 5.0, 0.001
FINGER = ("finger",)


@given(st.lists(st.floats(0.0, 0.04), min_size=2, max_size=20), st.floats(0.02, 0.3))
def test_a_gripper_is_asked_rarely_for_changes_that_matter_and_always_for_the_end(rows, period):
    path = JointPath.through(FINGER, np.array(rows)[:, None], period)
    goals, sent = Goals(RATE, DEAD_BAND), []
    for now in range(10 * S, 10 * S + round((path.duration + 1.0) * S), S // 50):
        position = goals.due(path, 10 * S, now)
        if position is not None:
            sent.append((now, position))
    times, positions = np.array([t for t, _ in sent]), np.array([p for _, p in sent])
    assert (np.diff(times) >= S / RATE - 1).all()
    assert (np.abs(np.diff(positions)) > DEAD_BAND).all()
    assert abs(positions[-1] - rows[-1]) <= DEAD_BAND and goals.has_asked_for(rows[-1])


@pytest.mark.parametrize("kind", ["parallel", "classic"])
def test_a_gripper_with_an_action(graph, interfaces, kind):
    actions = pytest.importorskip("control_msgs.action", reason="apt install ros-jazzy-control-msgs")
    widowx = load_robot("widowx")
    typename = {"parallel": "ParallelGripperCommand", "classic": "GripperCommand"}[kind]
    name = f"gripper_{kind}/gripper_cmd"
    server = Server(graph, getattr(actions, typename), name)
    arm = widowx.commands[0]
    graph.device(JointTrajectory, arm.topic)
    entry = GripperActionCommand(backend="gripper_action", action=name, joint="left_finger", kind=kind, max_effort=20.0)
    commands = interfaces(widowx, arm, entry)
    ready(graph, commands)
    commands.send(path_of(widowx, shift=-0.02), 10 * S)
    for tick in range(50):
        commands.stream(10 * S + tick * S // 50)

    def last() -> float:
        command = server.goals[-1].command
        return command.position[0] if kind == "parallel" else command.position

    graph.until(lambda: server.goals and last() == pytest.approx(0.017, abs=1e-6), "the end of the path")
    assert 4 <= len(server.goals) <= 6, "one second at 5 Hz"
    command = server.goals[-1].command
    assert (command.effort[0] if kind == "parallel" else command.max_effort) == 20.0
    graph.until(lambda: len(server.handles) == len(server.goals), "acceptance")
    commands.stop(None)
    graph.until(lambda: is_cancelling(server), "the cancellation")
    server.destroy()


@pytest.mark.parametrize(
    ("entry", "typename"),
    [
        (Nav2FollowPathCommand(backend="nav2_follow_path"), "FollowPath"),
        (Nav2PoseCommand(backend="nav2_pose"), "NavigateToPose"),
    ],
)
def test_nav2_gets_a_goal_and_its_cancellation(graph, interfaces, base, entry, typename):
    actions = pytest.importorskip("nav2_msgs.action", reason="apt install ros-jazzy-nav2-msgs")
    server = Server(graph, getattr(actions, typename), entry.action)
    commands = interfaces(base, entry)
    ready(graph, commands)
    commands.send(straight(base), 7 * S)
    (goal,) = graph.until(lambda: server.goals, "the goal")
    last = goal.path.poses[-1] if typename == "FollowPath" else goal.pose
    assert last.header.frame_id == "odom" and last.pose.position.x == pytest.approx(0.4)
    graph.until(lambda: server.handles, "acceptance")
    commands.stop(None)
    graph.until(lambda: is_cancelling(server), "the cancellation")
    server.destroy()


def test_a_message_package_that_is_missing_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    with pytest.raises(MissingInterface, match="apt install ros-jazzy-no-such-msgs"):
        interface("no_such_msgs/msg/Thing")
    with pytest.raises(MissingInterface, match="NoSuchThing is not installed"):
        interface("std_msgs/msg/NoSuchThing")
    assert interface("std_msgs/msg/Float64MultiArray") is Float64MultiArray


def test_a_robot_without_commands_is_refused(graph, aloha):
    bare = aloha.model_copy(update={"commands": ()})
    with pytest.raises(ValueError, match="no `commands`"):
        CommandInterfaces(graph.commander, CommandedRobot(bare, lambda: None))


class Unsent(JointTrajectoryCommand):
    """A kind that can be described but not sent."""

    ros_side: ClassVar = ""


class Mute(JointTrajectoryCommand):
    """A kind whose ROS side is incomplete."""

    ros_side: ClassVar = f"{__name__}:half_a_backend"


def half_a_backend(node, command, robot):
    return ActionGoals(node, ExecuteInstruction, command.topic)


@pytest.mark.parametrize(
    ("kind", "why"), [(Unsent, "has no ROS side"), (Mute, "lacks capabilities, prepare, stop, sample")]
)
def test_a_kind_without_a_ros_side_is_refused_at_start_and_leaves_nothing(graph, interfaces, widowx, kind, why):
    arm, gripper = widowx.commands
    odd = kind(**{**gripper.model_dump(), "topic": f"odd_{kind.__name__.lower()}"})
    first = arm.model_copy(update={"topic": "left_behind"})
    with pytest.raises(ValueError, match=f"command interface 'joint_trajectory'.* {why}"):
        interfaces(widowx, first, odd)
    assert graph.commander.count_publishers("left_behind") == 0
