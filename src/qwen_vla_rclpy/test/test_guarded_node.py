# SPDX-License-Identifier: Apache-2.0
"""Whatever arrives on the real middleware, a guarded node keeps running and reports what was wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from qwen_vla_rclpy.guarded_executor import GuardedExecutor
from qwen_vla_rclpy.guarded_node import ANY_SIZE, LARGEST, GuardedNode

PATIENCE = 20.0  # [s]
BOOM = "boom \x1b[31m\nin two lines"


class Victim(GuardedNode):
    """Subscribes to four topics and serves one service; the text decides what it does."""

    def __init__(self) -> None:
        self.heard, self.failures, self.lines = [], [], []
        super().__init__("victim", parameter_overrides=[Parameter("use_sim_time", value=True)])
        self.create_subscription(String, "text", self.on_text, 10)
        self.create_subscription(JointState, "joint_states", lambda m: self.heard.append(list(m.name)), 10)
        self.create_subscription(Bool, "button", lambda m: self.heard.append(m.data), 10, largest=ANY_SIZE)
        self.create_subscription(String, "raw", self.on_raw, 10, raw=True, largest=100)
        self.create_service(Trigger, "~/ask", self.on_ask)

    def on_text(self, message: String) -> None:
        if message.data == "raise":
            raise RuntimeError(BOOM)
        if message.data == "raise later":
            future = Future(executor=self.executor)
            future.add_done_callback(self.on_done)
            future.set_result(None)
        self.heard.append(message.data)

    def on_done(self, _future: Future) -> None:
        raise RuntimeError(BOOM)

    def on_raw(self, data: bytes, info: dict) -> None:
        self.heard.append((len(data), "source_timestamp" in info))

    def on_ask(self, _request: Trigger.Request, _response: Trigger.Response) -> Trigger.Response:
        raise RuntimeError(BOOM)

    def on_failure(self, text: str) -> None:
        self.failures.append(text)


class Scene:
    """The victim, and another node in the same process that publishes to it; both are spun here."""

    def __init__(self) -> None:
        self.victim, self.sender = Victim(), rclpy.create_node("sender")
        self.diagnostics: list[DiagnosticStatus] = []
        self.sender.create_subscription(DiagnosticArray, "/diagnostics", self._take, 10)
        self.guarded, self.plain = GuardedExecutor(), SingleThreadedExecutor()
        self.guarded.add_node(self.victim)
        self.plain.add_node(self.sender)

    def _take(self, message: DiagnosticArray) -> None:
        self.diagnostics += [status for status in message.status if status.name == "victim: input"]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        limit = time.monotonic() + PATIENCE
        while not condition():
            self.guarded.spin_once(timeout_sec=0.02)
            self.plain.spin_once(timeout_sec=0.0)
            assert time.monotonic() < limit, f"no {what}"

    def send(self, kind: type, topic: str, *messages: object) -> None:
        """Publish messages, or raw bytes, once the victim is connected."""
        publisher = self.sender.create_publisher(kind, topic, 10)
        self.wait(publisher.get_subscription_count, f"subscription to {topic}")
        for message in messages:
            publisher.publish(message)

    def is_well(self) -> None:
        """Check that a valid message still arrives."""
        self.send(String, "text", String(data="still there?"))
        self.wait(lambda: "still there?" in self.victim.heard, "answer")


@pytest.fixture
def scene() -> Iterator[Scene]:
    rclpy.init()
    scene = Scene()
    yield scene
    for executor in (scene.guarded, scene.plain):
        executor.shutdown()
    for node in (scene.victim, scene.sender):
        node.destroy_node()
    rclpy.shutdown()


@pytest.mark.parametrize("text", ["raise", "raise later"])
def test_a_callback_that_raises_is_reported_and_the_node_keeps_running(scene, text):
    scene.send(String, "text", String(data=text))
    scene.wait(lambda: scene.victim.failures, "failure")
    assert "RuntimeError: boom \\x1b[31m\\nin two lines" in scene.victim.failures[0]
    scene.is_well()
    scene.wait(lambda: scene.diagnostics and scene.diagnostics[-1].level == DiagnosticStatus.ERROR, "diagnostics")
    assert scene.diagnostics[-1].message.isprintable() and "boom" in scene.diagnostics[-1].message
    assert scene.diagnostics[-1].values[0].value == "1"


def test_a_service_that_raises_does_not_end_the_node(scene):
    client = scene.sender.create_client(Trigger, "victim/ask")
    scene.wait(client.service_is_ready, "service")
    answer = client.call_async(Trigger.Request())
    scene.wait(lambda: scene.victim.failures, "failure")
    assert not answer.done()
    scene.is_well()


def test_a_negative_time_does_not_reach_the_clock(scene):
    scene.send(Clock, "/clock", Clock(clock=Time(sec=7)))
    scene.wait(lambda: scene.victim.get_clock().now().nanoseconds == 7 * 10**9, "clock")
    scene.send(Clock, "/clock", Clock(clock=Time(sec=-5)))
    scene.wait(lambda: scene.victim.input_faults.count("/clock"), "fault")
    scene.send(Clock, "/clock", Clock(clock=Time(sec=8)))
    scene.wait(lambda: scene.victim.get_clock().now().nanoseconds == 8 * 10**9, "advancing clock")
    assert scene.victim.failures == []


def test_the_clock_of_a_running_node_cannot_be_changed(scene):
    client = scene.sender.create_client(SetParameters, "victim/set_parameters")
    scene.wait(client.service_is_ready, "service")
    for value, accepted in ((False, False), (True, True)):
        parameter = Parameter("use_sim_time", value=value).to_parameter_msg()
        answer = client.call_async(SetParameters.Request(parameters=[parameter]))
        scene.wait(answer.done, "answer")
        (result,) = answer.result().results
        assert result.successful is accepted
        assert accepted or "cannot be changed while the node runs" in result.reason
    assert scene.victim.get_parameter("use_sim_time").value is True


def test_a_parameter_of_unknown_type_does_not_end_the_node(scene):
    client = scene.sender.create_client(SetParameters, "victim/set_parameters")
    scene.wait(client.service_is_ready, "service")
    bad = ParameterMessage(name="use_sim_time", value=ParameterValue(type=99))
    client.call_async(SetParameters.Request(parameters=[bad]))
    scene.wait(lambda: scene.victim.failures, "failure")
    good = ParameterMessage(name="use_sim_time", value=ParameterValue(type=ParameterType.PARAMETER_BOOL))
    answer = client.call_async(SetParameters.Request(parameters=[good]))
    scene.wait(answer.done, "answer")


@pytest.mark.parametrize(
    "kind, topic, data, why",
    [
        (String, "text", serialize_message(String(data="x" * LARGEST)), "at most 16,384 are accepted"),
        (String, "raw", serialize_message(String(data="x" * 200)), "at most 100 are accepted"),
        (JointState, "joint_states", serialize_message(JointState(name=["a"] * 5000)), "at most 16,384 are accepted"),
        (JointState, "joint_states", b"\0\1\0\0" + b"\xff" * 64, "cannot be read"),
        (String, "text", b"\0\1\0\0\xff\xff\xff\xffabc", "cannot be read"),
        (String, "text", b"", "cannot be read"),
    ],
)
def test_a_message_that_is_too_large_or_corrupt_is_turned_away(scene, kind, topic, data, why):
    scene.send(kind, topic, data)
    scene.wait(lambda: scene.victim.input_faults.total, "fault")
    assert any(why in reason for reason in scene.victim.input_faults.recent(time.monotonic()).values())
    assert scene.victim.heard == [] and scene.victim.failures == []
    scene.is_well()


def test_the_middleware_drops_corrupt_messages_where_any_size_is_allowed(scene):
    scene.send(Bool, "button", b"\0\1\0\0")
    scene.is_well()
    assert scene.victim.heard == ["still there?"] and scene.victim.failures == []


def test_valid_messages_arrive_as_sent(scene):
    scene.send(JointState, "joint_states", JointState(name=["waist"]))
    scene.send(Bool, "button", Bool(data=True))
    scene.send(String, "raw", String(data="four"))
    scene.wait(lambda: len(scene.victim.heard) == 3, "three messages")
    assert sorted(map(str, scene.victim.heard)) == ["(13, True)", "True", "['waist']"]
    scene.wait(lambda: scene.diagnostics, "diagnostics")
    assert scene.diagnostics[-1].level == DiagnosticStatus.OK


def test_the_log_has_no_control_characters(scene, capfd):
    scene.victim.get_logger().error("\x1b[2Jgone\nforged")
    for _ in range(3):
        scene.victim.get_logger().warning("throttled", throttle_duration_sec=60.0)
    scene.victim.get_logger().info("another line may have another severity")
    written = capfd.readouterr().err
    assert "\\x1b[2Jgone\n  | forged" in written and "\x1b[2J" not in written
    assert written.count("throttled") == 1 and "another line" in written
