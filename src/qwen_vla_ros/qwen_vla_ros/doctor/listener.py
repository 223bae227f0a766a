# SPDX-License-Identifier: Apache-2.0
"""Observes the running graph for a while and records it. Publishes no commands, changes nothing.

It only sends requests without side effects: for lifecycle states, parameters and controllers.
"""

from __future__ import annotations

import importlib
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters
from rclpy.duration import Infinite
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo

from qwen_vla_control.observation.image_decoding import DecodingError, to_rgb
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_rclpy.optional_interfaces import MissingInterface, interface
from qwen_vla_ros.doctor.facts import (
    Announced,
    Arrival,
    Endpoint,
    Graph,
    ImageFacts,
    Joints,
    Lens,
    Status,
    Topic,
    with_ros_time,
)
from qwen_vla_ros.doctor.interfaces import CLOCK, CONTROLLER_MANAGER, EXECUTOR, POLICY, Role, Watch
from qwen_vla_ros.ros.names import resolve
from qwen_vla_ros.ros.publishers import publisher_of
from qwen_vla_ros.ros.question import Question
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode

DISCOVERY_TIME = 3.5  # [s] Fast DDS announces a participant every 3 s, and messages in between may be missed
CALM = 0.5  # [s] without a change after which the graph is considered complete
PATIENCE = 5.0  # [s] beyond that, for a graph that keeps changing
LOOK_PERIOD = 0.1  # [s] between two queries of the graph
NAMELESS = "_NODE_NAME_UNKNOWN_"  # rmw's name of a node of which so far only the topics are known
MOST_ARRIVALS = 5000  # of a topic; more provide no new information
ANSWER_TIMEOUT = 1.0  # [s] for nodes to respond after the observation


def _profile(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    # The middleware replaces an unset duration by infinite; for the comparison it must be explicit.
    return QoSProfile(
        depth=depth,
        reliability=reliability,
        durability=durability,
        deadline=Infinite,
        liveliness_lease_duration=Infinite,
    )


LATCHED = _profile(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = _profile(100, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
BEST_EFFORT = _profile(100, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
# The suite's own QoS, requested or offered, by its role at a topic.
SUITE = {
    Role.STREAM: BEST_EFFORT,
    Role.LATCHED: LATCHED,
    Role.RELIABLE: RELIABLE,
    Role.ANYHOW: BEST_EFFORT,
    Role.COMMAND: RELIABLE,
}
# The doctor requests the same, so that it receives what the suite would; commands with any QoS.
HEARD_WITH = SUITE | {Role.COMMAND: BEST_EFFORT}


def listen(domain: int, watches: Iterable[Watch], namespace: str, seconds: float) -> Graph:
    """Observe the graph of a domain.

    Args:
        domain: ROS domain.
        watches: topics to observe.
        namespace: of the robot.
        seconds: duration of the observation [s].
    """
    name = f"_qwen_vla_doctor_{os.getpid()}"  # the underscore hides it from `ros2 node list`
    with SpinningNode(name, domain) as client:
        return _Listener(client, {watch.topic: watch for watch in watches}, namespace).listen(seconds)


class _Listener:
    """One session."""

    def __init__(self, client: SpinningNode, watches: dict[str, Watch], namespace: str) -> None:
        self._client, self._watches = client, watches
        self._managed = tuple(resolve(namespace, name) for name in (POLICY, EXECUTOR))
        self._manager = resolve(namespace, CONTROLLER_MANAGER)
        self._own_name = client.node.get_fully_qualified_name()
        self._arrivals: dict[str, list[Arrival]] = defaultdict(list)
        self._subscribed: set[str] = set()
        self._clients: dict[tuple[str, str], Any] = {}
        self._asked: dict[tuple[str, str], Question] = {}
        self._seen: Any = None
        self._began = self._looked = self._changed = self._last_subscription = time.monotonic()

    def listen(self, seconds: float) -> Graph:
        self._wait(lambda: self._is_complete(seconds), DISCOVERY_TIME + seconds + PATIENCE)
        self._wait(lambda: None not in self._responses().values(), ANSWER_TIMEOUT)
        listened = time.monotonic() - self._last_subscription
        with self._client.changed:  # only now, to include what was started meanwhile
            return Graph(
                nodes=self._nodes(),
                topics=self._topics(),
                arrivals=with_ros_time(self._arrivals, CLOCK),
                actions=self._actions(),
                states=self._states(),
                sim_time=self._parameter("use_sim_time", lambda value: value.bool_value),
                policy=self._parameter("policy", lambda value: value.string_value).get(self._managed[0], ""),
                controllers=self._controllers(),
                seconds=listened,
            )

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        try:
            self._client.wait(condition, "", timeout)
        except NoAnswer:
            pass  # continue with what was observed so far

    # The graph ------------------------------------------------------------------------------------------------------

    def _is_complete(self, seconds: float) -> bool:
        """Subscribe to new topics; True when nothing new appears and everything was observed for long enough."""
        now = time.monotonic()
        if now - self._looked < LOOK_PERIOD:
            return False
        self._looked = now
        topics = self._topics()
        seen = self._nodes(), topics
        if seen != self._seen:
            self._seen, self._changed = seen, now
        self._subscribe(topics)
        self._ask(topics)
        enough = now - self._last_subscription >= seconds
        named = all(NAMELESS not in e.node for t in topics.values() for e in (*t.publishers, *t.subscribers))
        return enough and named and now - self._began >= DISCOVERY_TIME and now - self._changed >= CALM

    def _nodes(self) -> tuple[str, ...]:
        found = self._client.node.get_node_names_and_namespaces()
        names = (f"{namespace.rstrip('/')}/{name}" for name, namespace in found)
        return tuple(sorted(name for name in names if name != self._own_name))

    def _topics(self) -> dict[str, Topic]:
        node = self._client.node
        return {
            topic: Topic(
                topic,
                self._endpoints(watch, node.get_publishers_info_by_topic(topic)),
                self._endpoints(watch, node.get_subscriptions_info_by_topic(topic)),
            )
            for topic, watch in self._watches.items()
        }

    def _endpoints(self, watch: Watch, found: list[TopicEndpointInfo]) -> tuple[Endpoint, ...]:
        endpoints = (_endpoint(watch, info) for info in found)
        return tuple(sorted((e for e in endpoints if e.node != self._own_name), key=lambda e: (e.node, e.type)))

    def _actions(self) -> dict[str, tuple[str, ...]]:
        ending, kind = "/_action/send_goal", "_SendGoal"
        return {
            name.removesuffix(ending): tuple(t.removesuffix(kind) for t in types)
            for name, types in self._client.node.get_service_names_and_types()
            if name.endswith(ending)
        }

    def _ask(self, topics: dict[str, Topic]) -> None:
        """Put the questions to every new node; responses arrive during the observation."""
        present = set(self._nodes())
        for (question, name), (kind, service, request) in self._questions(topics).items():
            if name not in present or (question, name) in self._asked:
                continue
            if (question, name) not in self._clients:
                self._clients[question, name] = self._client.node.create_client(kind, f"{name}/{service}")
            client = self._clients[question, name]
            if client.service_is_ready():
                self._asked[question, name] = Question(client, request)
        self._responses()

    def _responses(self) -> dict[tuple[str, str], Any]:
        """By question and node; None where there is none yet."""
        return {asked: question.response() for asked, question in self._asked.items()}

    def _questions(self, topics: dict[str, Topic]) -> dict[tuple[str, str], tuple[type, str, Any]]:
        """Return type, name and request of each service, by question and node."""
        publishers = {e.node for topic in topics.values() for e in topic.publishers}
        questions: dict[tuple[str, str], tuple[type, str, Any]] = {
            ("state", name): (GetState, "get_state", GetState.Request()) for name in self._managed
        }
        for name in publishers | set(self._managed):
            request = GetParameters.Request(names=["use_sim_time"])
            questions["use_sim_time", name] = GetParameters, "get_parameters", request
        request = GetParameters.Request(names=["policy"])
        questions["policy", self._managed[0]] = GetParameters, "get_parameters", request
        try:
            kind = interface("controller_manager_msgs/srv/ListControllers")
        except MissingInterface:
            return questions  # without these messages, no controller manager can be queried
        questions["controllers", self._manager] = kind, "list_controllers", kind.Request()
        return questions

    def _answered(self, question: str) -> dict[str, Any]:
        return {node: r for (asked, node), r in self._responses().items() if asked == question and r is not None}

    def _states(self) -> dict[str, str]:
        silent = {node: "no response" for question, node in self._clients if question == "state"}
        return silent | {node: answer.current_state.label for node, answer in self._answered("state").items()}

    def _parameter(self, name: str, value: Callable[[ParameterValue], Any]) -> dict[str, Any]:
        told = {node: answer.values for node, answer in self._answered(name).items()}
        return {node: value(values[0]) for node, values in told.items() if values and values[0].type}

    def _controllers(self) -> dict[str, str]:
        return {c.name: c.state for answer in self._answered("controllers").values() for c in answer.controller}

    # Messages -------------------------------------------------------------------------------------------------------

    def _subscribe(self, topics: dict[str, Topic]) -> None:
        for name, topic in topics.items():
            watch = self._watches[name]
            if name in self._subscribed:
                continue
            if watch.role is Role.COMMAND and {e.node for e in topic.publishers} <= set(self._managed):
                continue  # no information, and an executor could take this subscription for its controller
            offered = {endpoint.type for endpoint in topic.publishers}
            kind = next((_message_class(t) for t in watch.types if t in offered), None)
            if kind is not None:
                write = partial(self._write_down, name)
                kept = watch.role is Role.ANYHOW and all("transient local" in e.qos for e in topic.publishers)
                qos = LATCHED if kept else HEARD_WITH[watch.role]
                self._client.node.create_subscription(kind, name, write, qos)
                self._subscribed.add(name)
                self._last_subscription = time.monotonic()

    def _write_down(self, topic: str, message: Any, info: Mapping[str, Any]) -> None:
        stamp = _stamp(message)
        with self._client.changed:
            earlier = self._arrivals[topic]
            if len(earlier) >= MOST_ARRIVALS:
                return
            earlier.append(
                Arrival(
                    received=info.get("received_timestamp") or time.time_ns(),
                    stamp=stamp,
                    sent=info.get("source_timestamp") or 0,
                    sequence=info.get("publication_sequence_number") or 0,
                    publisher=publisher_of(info),
                    content=_content(message, first=not earlier),
                )
            )


def _endpoint(watch: Watch, info: TopicEndpointInfo) -> Endpoint:
    suite, theirs = SUITE[watch.role], info.qos_profile
    pair = (suite, theirs) if watch.role is Role.COMMAND else (theirs, suite)
    compatibility, reason = qos_check_compatible(*pair)
    conflict = compatibility == QoSCompatibility.ERROR
    policies = (theirs.reliability, theirs.durability)
    return Endpoint(
        node=f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        type=info.topic_type,
        type_hash=str(info.topic_type_hash),
        qos=", ".join(policy.name.lower().replace("_", " ") for policy in policies),
        conflict=reason.replace("ERROR: ", " ").strip(" ;") if conflict else "",
        gid=bytes(info.endpoint_gid),
    )


def _message_class(name: str) -> type | None:
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError):
        return None


def _stamp(message: Any) -> int | None:
    stamp = getattr(message, "clock", None) or getattr(getattr(message, "header", message), "stamp", None)
    return None if stamp is None else nanoseconds(stamp)


def _content(message: Any, first: bool) -> Any:
    """The part of a message that the checks need; only the first image is decoded, which takes time."""
    kind = type(message).__name__
    match kind:
        case "JointState":
            return Joints(tuple(message.name), tuple(message.position))
        case "Image" | "CompressedImage":
            return _image_facts(message, first)
        case "CameraInfo":
            return Lens(message.width, message.height, any(message.k))
        case "DiagnosticArray":
            levels = ((s.name, int.from_bytes(s.level), s.message) for s in message.status)
            return tuple(Status(*values) for values in levels)
        case "Embodiment":
            return Announced(
                message.name,
                message.control_mode,
                message.rate_hz,
                tuple(message.channel_names),
                tuple(message.joint_names),
            )
        case "String" | "Bool":
            return message.data
    return None


def _image_facts(message: Any, decode: bool) -> ImageFacts:
    digest = zlib.crc32(memoryview(message.data))
    size = getattr(message, "width", 0), getattr(message, "height", 0)
    encoding = getattr(message, "encoding", "") or getattr(message, "format", "")
    if not decode:
        return ImageFacts(*size, encoding, digest)
    try:
        pixels = to_rgb(message)
    except DecodingError as error:
        return ImageFacts(*size, encoding, digest, problem=str(error))
    return ImageFacts(pixels.shape[1], pixels.shape[0], encoding, digest, brightest=int(pixels.max()))
