"""Listens to the running graph for a while and writes down what it saw. Publishes no commands, changes nothing.

It asks, too, but only what a node answers without doing anything: its lifecycle state and use_sim_time.
"""

from __future__ import annotations

import importlib
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lifecycle_msgs.srv import GetState
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

from qwen_vla.image_decoding import DecodingError, to_rgb
from qwen_vla_ros.chunk_messages import nanoseconds
from qwen_vla_ros.doctor.facts import Announced, Arrival, Endpoint, Graph, Joints, Lens, Picture, Status, Topic
from qwen_vla_ros.doctor.interfaces import CLOCK, Role, Watch
from qwen_vla_ros.spinning_node import NoAnswer, SpinningNode

CALM = 0.7  # [s] without a change after which the graph counts as complete
DISCOVERY_TIMEOUT = 5.0  # [s] for the graph to become complete, and for somebody to show up
ANSWER_TIMEOUT = 2.0  # [s] for nodes to tell their state after the listening


def _profile(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    # Infinite is what the middleware makes of an unset duration; to compare, it must be written out.
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
# What the suite itself asks for or offers, by its role at a topic.
SUITE = {
    Role.STREAM: BEST_EFFORT,
    Role.LATCHED: LATCHED,
    Role.RELIABLE: RELIABLE,
    Role.COMMAND: RELIABLE,
}
# The doctor asks for the same, so that it hears what the suite would hear; commands, whoever sends them how.
HEARD_WITH = SUITE | {Role.COMMAND: BEST_EFFORT}


def listen(domain: int, watches: Iterable[Watch], managed: Iterable[str], seconds: float) -> Graph:
    """Look at the graph of a domain.

    Args:
        domain: ROS domain.
        watches: topics to listen to.
        managed: full names of the nodes whose lifecycle state is of interest.
        seconds: how long to listen.
    """
    name = f"_qwen_vla_doctor_{os.getpid()}"  # the underscore hides it from `ros2 node list`
    with SpinningNode(name, domain) as client:
        return _Listener(client, {watch.topic: watch for watch in watches}, tuple(managed)).listen(seconds)


class _Listener:
    """One session."""

    def __init__(self, client: SpinningNode, watches: dict[str, Watch], managed: tuple[str, ...]) -> None:
        self._client, self._watches, self._managed = client, watches, managed
        self._own_name = client.node.get_fully_qualified_name()
        self._arrivals: dict[str, list[Arrival]] = defaultdict(list)
        self._ros_time: int | None = None

    def listen(self, seconds: float) -> Graph:
        self._wait_until_complete()
        self._subscribe()
        questions = self._ask()
        began = time.monotonic()
        self._wait(lambda: time.monotonic() - began >= seconds, seconds + 1)
        self._wait(lambda: all(future.done() for future in questions.values()), ANSWER_TIMEOUT)
        states, sim_time = {}, {}
        for (kind, node), future in questions.items():
            answer = future.result() if future.done() else None
            if kind is GetState:
                states[node] = answer.current_state.label if answer else "no answer"
            elif answer and answer.values and answer.values[0].type:
                sim_time[node] = answer.values[0].bool_value
        with self._client.changed:  # only now: what started meanwhile is seen, too
            return Graph(
                nodes=self._nodes(),
                topics=self._topics(),
                arrivals=dict(self._arrivals),
                actions=self._actions(),
                states=states,
                sim_time=sim_time,
                seconds=time.monotonic() - began,
            )

    # The graph ------------------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        try:
            self._client.wait(condition, "", timeout)
        except NoAnswer:
            pass  # then what is there by now must do

    def _wait_until_complete(self) -> None:
        """Wait until nothing new has shown up for a moment."""
        began = time.monotonic()
        last: list[Any] = [None, began]

        def calm() -> bool:
            seen = self._nodes(), self._topics()
            if seen != last[0]:
                last[:] = [seen, time.monotonic()]
            return bool(seen[0]) and time.monotonic() - last[1] > CALM

        self._wait(calm, DISCOVERY_TIMEOUT)

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

    def _ask(self) -> dict[tuple[type, str], Any]:
        """Send the questions; the answers come while we listen."""
        node, futures = self._client.node, {}
        present = set(self._nodes())
        publishers = {e.node for topic in self._topics().values() for e in topic.publishers}
        questions = [(GetState, name, "get_state") for name in self._managed]
        questions += [(GetParameters, name, "get_parameters") for name in sorted(publishers | set(self._managed))]
        for kind, name, service in questions:
            if name in present:
                client = node.create_client(kind, f"{name}/{service}")
                request = kind.Request() if kind is GetState else kind.Request(names=["use_sim_time"])
                if client.service_is_ready():
                    futures[kind, name] = client.call_async(request)
        return futures

    # Messages -------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        for topic, facts in self._topics().items():
            watch = self._watches[topic]
            if watch.role is Role.COMMAND and {e.node for e in facts.publishers} <= set(self._managed):
                continue  # nothing to learn, and as long as we listen, an executor may take us for its controller
            offered = {endpoint.type for endpoint in facts.publishers}
            kind = next((_message_class(name) for name in watch.types if name in offered), None)
            if kind is not None:
                callback = partial(self._write_down, topic)
                self._client.node.create_subscription(
                    kind, topic, lambda message, info, write=callback: write(message, info), HEARD_WITH[watch.role]
                )

    def _write_down(self, topic: str, message: Any, info: dict[str, Any]) -> None:
        stamp = _stamp(message)
        with self._client.changed:
            earlier = self._arrivals[topic]
            if topic == CLOCK:
                self._ros_time = stamp
            earlier.append(
                Arrival(
                    received=info.get("received_timestamp") or time.time_ns(),
                    stamp=stamp,
                    sent=info.get("source_timestamp") or 0,
                    sequence=info.get("publication_sequence_number") or 0,
                    publisher=bytes((info.get("publisher_gid") or {}).get("data", b"")),
                    ros_time=self._ros_time,
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
    """What the checks need of a message; decoding takes time, therefore only the first image is."""
    kind = type(message).__name__
    match kind:
        case "JointState":
            return Joints(tuple(message.name), tuple(message.position))
        case "Image" | "CompressedImage":
            return _picture(message, first)
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
        case "String":
            return message.data
    return None


def _picture(message: Any, decode: bool) -> Picture:
    digest = zlib.crc32(memoryview(message.data))
    size = getattr(message, "width", 0), getattr(message, "height", 0)
    encoding = getattr(message, "encoding", "") or getattr(message, "format", "")
    if not decode:
        return Picture(*size, encoding, digest)
    try:
        pixels = to_rgb(message)
    except DecodingError as error:
        return Picture(*size, encoding, digest, problem=str(error))
    return Picture(pixels.shape[1], pixels.shape[0], encoding, digest, brightest=int(pixels.max()))
