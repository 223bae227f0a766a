# SPDX-License-Identifier: Apache-2.0
"""Observations of the running graph, as plain records without ROS types, so that checks can be tested without ROS.

Times are integers in nanoseconds. `received` and `sent` are Unix time by the clocks of the receiver and the sender;
stamps are in the publisher's clock, which is itself to be determined.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

from qwen_vla_control.stamps import NANOSECONDS


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscriber.

    Attributes:
        node: full name of its node.
        type: such as "sensor_msgs/msg/Image".
        type_hash: of the definition of the type; empty where the middleware does not provide it.
        qos: as text, such as "best effort, volatile".
        conflict: why this endpoint is incompatible with the suite's at the other end; empty when compatible.
        gid: identity of the endpoint.
    """

    node: str
    type: str
    type_hash: str = ""
    qos: str = ""
    conflict: str = ""
    gid: bytes = b""


@dataclass(frozen=True)
class Topic:
    """Publishers and subscribers, except the doctor itself."""

    name: str
    publishers: tuple[Endpoint, ...] = ()
    subscribers: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Arrival:
    """One received message.

    Attributes:
        received: arrival time.
        stamp: of its header; None for types without.
        sent: when the publisher passed it to the middleware; 0 where the middleware does not provide it.
        sequence: the publisher's count; 0 where the middleware does not provide it.
        publisher: gid of the publisher.
        ros_time: /clock at arrival; None before its first or after its last message.
        content: the part that the checks need.
    """

    received: int
    stamp: int | None = None
    sent: int = 0
    sequence: int = 0
    publisher: bytes = b""
    ros_time: int | None = None
    content: Any = None


@dataclass(frozen=True)
class Joints:
    """A sensor_msgs/JointState; positions in the received unit, whatever it is."""

    names: tuple[str, ...]
    positions: tuple[float, ...]


@dataclass(frozen=True)
class ImageFacts:
    """Properties of one image.

    Attributes:
        digest: of its bytes.
        problem: why it cannot be decoded; empty when it can.
        brightest: the largest value of a decoded image, 0..255; None when it was not decoded.
    """

    width: int
    height: int
    encoding: str
    digest: int
    problem: str = ""
    brightest: int | None = None


@dataclass(frozen=True)
class Lens:
    """A sensor_msgs/CameraInfo: size, and whether it is calibrated."""

    width: int
    height: int
    calibrated: bool


@dataclass(frozen=True)
class Status:
    """A diagnostic_msgs/DiagnosticStatus; level 0 ok, 1 warn, 2 error, 3 stale."""

    name: str
    level: int
    message: str


@dataclass(frozen=True)
class Announced:
    """The robot published by a running policy_node (qwen_vla_msgs/Embodiment)."""

    name: str
    control_mode: str
    rate_hz: float
    channel_names: tuple[str, ...]
    joint_names: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The running graph.

    Attributes:
        nodes: full names, including duplicates.
        topics: the observed ones, by full name.
        arrivals: messages by topic, in order of arrival.
        actions: types of action servers by name.
        states: lifecycle state by node; "no response" for one that did not respond.
        sim_time: use_sim_time by node, of those that responded.
        policy: checkpoint with which policy_node was started; empty when unknown.
        controllers: state by controller name, from the controller manager; empty without one.
        seconds: duration of the observation [s].
    """

    nodes: tuple[str, ...] = ()
    topics: dict[str, Topic] = field(default_factory=dict)
    arrivals: dict[str, list[Arrival]] = field(default_factory=dict)
    actions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    sim_time: dict[str, bool] = field(default_factory=dict)
    policy: str = ""
    controllers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def topic(self, name: str) -> Topic:
        """Return the endpoints of a topic; none for one that does not exist."""
        return self.topics.get(name, Topic(name))

    def heard(self, name: str) -> list[Arrival]:
        """Return the messages received on a topic."""
        return self.arrivals.get(name, [])

    def clock(self) -> list[Arrival]:
        """Return the messages received on /clock; the stamp is its time."""
        return self.heard("/clock")


def with_ros_time(arrivals: Mapping[str, Sequence[Arrival]], clock: str) -> dict[str, list[Arrival]]:
    """Add to every message the time of /clock at its arrival.

    Interpolated afterwards, between two ticks, because a busy receiver handles messages long after their arrival
    and out of order.
    """
    ticks = sorted((tick.received, tick.stamp) for tick in arrivals.get(clock, []))
    if not ticks:
        return {topic: list(found) for topic, found in arrivals.items()}
    real, shown = zip(*ticks, strict=True)

    def timed(arrival: Arrival) -> Arrival:
        after = bisect_left(real, arrival.received)
        if after == len(real) or arrival.received < real[0]:
            return arrival
        before = max(after - 1, 0)
        share = (arrival.received - real[before]) / max(real[after] - real[before], 1)
        return replace(arrival, ros_time=shown[before] + round(share * (shown[after] - shown[before])))

    return {topic: [timed(arrival) for arrival in found] for topic, found in arrivals.items()}


def times(arrivals: Sequence[Arrival]) -> list[int]:
    """Send times of messages, where known, otherwise arrival times: so a busy receiver does not matter."""
    known = all(a.sent for a in arrivals)
    return sorted(a.sent if known else a.received for a in arrivals)


def in_simulated_time(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return messages as if real time ran at the rate of /clock; unchanged without one.

    A simulator may be slower than real time, and its cameras with it; ages are in its time.
    """
    timed = [a for a in arrivals if a.ros_time is not None]
    return [replace(a, sent=0, received=a.ros_time) for a in timed] if timed else list(arrivals)


def rate(arrivals: Sequence[Arrival]) -> float:
    """Messages per second; 0 for less than two."""
    gaps = [b - a for a, b in pairwise(times(arrivals))]
    return NANOSECONDS / middle if gaps and (middle := median(gaps)) > 0 else 0.0


def longest_gap(arrivals: Sequence[Arrival]) -> float:
    """Longest time between two messages [s]; 0 for less than two."""
    return max((b - a for a, b in pairwise(times(arrivals))), default=0) / NANOSECONDS


def lost(arrivals: Sequence[Arrival]) -> tuple[int, int]:
    """Number of messages that were sent but never arrived, and that were sent, between the first and last arrival."""
    missing = sent = 0
    for publisher in {a.publisher for a in arrivals}:
        numbers = [a.sequence for a in arrivals if a.publisher == publisher]
        if all(numbers):
            span = max(numbers) - min(numbers) + 1
            missing, sent = missing + span - len(set(numbers)), sent + span
    return missing, sent


def duplicates(names: Sequence[str]) -> dict[str, int]:
    """Return the names that occur more than once, with their count."""
    return {name: count for name, count in Counter(names).items() if count > 1}
