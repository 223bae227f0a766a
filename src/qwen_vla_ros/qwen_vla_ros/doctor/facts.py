"""What was seen of the running graph, as plain records without ROS types, so that checks can be fed by hand.

Times are integers in nanoseconds. `received` and `sent` are Unix time by the clock of the receiver and of the sender;
stamps are in whatever clock the publisher uses, which is one of the things to find out.
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
        type_hash: of the definition of the type; empty where the middleware does not tell.
        qos: in words, such as "best effort, volatile".
        conflict: why this endpoint and what this suite puts at the other end do not get together; empty when they do.
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
    """Who publishes and who subscribes; the doctor itself is left out."""

    name: str
    publishers: tuple[Endpoint, ...] = ()
    subscribers: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Arrival:
    """One message as it came.

    Attributes:
        received: when.
        stamp: of its header; None for types without.
        sent: when the publisher handed it to the middleware; 0 where the middleware does not tell.
        sequence: the publisher's own count; 0 where the middleware does not tell.
        publisher: gid of the publisher.
        ros_time: what /clock showed then; None when it had not begun or was over.
        content: what the checks need of it.
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
    """A sensor_msgs/JointState; positions in whatever unit they came."""

    names: tuple[str, ...]
    positions: tuple[float, ...]


@dataclass(frozen=True)
class Picture:
    """What was seen of one image.

    Attributes:
        digest: of its bytes.
        problem: why it cannot be decoded; empty when it can.
        brightest: the brightest value of a decoded image, 0..255; None when it was not decoded.
    """

    width: int
    height: int
    encoding: str
    digest: int
    problem: str = ""
    brightest: int | None = None


@dataclass(frozen=True)
class Lens:
    """A sensor_msgs/CameraInfo: size, and whether there is a calibration."""

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
    """What a running policy_node says about its robot (qwen_vla_msgs/Embodiment)."""

    name: str
    control_mode: str
    rate_hz: float
    channel_names: tuple[str, ...]
    joint_names: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The running graph.

    Attributes:
        nodes: full names, each as often as it appears.
        topics: by full name, those that were looked at.
        arrivals: messages by topic, in the order of their coming.
        actions: types of action servers by name.
        states: lifecycle state by node; "no answer" from one that did not tell.
        sim_time: use_sim_time by node, of those that told.
        policy: checkpoint that policy_node was started with; empty when it did not tell.
        controllers: state by name of the controller, as the controller manager tells; empty without one.
        seconds: how long was listened.
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
        """Return who is at a topic; nobody at one that does not exist."""
        return self.topics.get(name, Topic(name))

    def heard(self, name: str) -> list[Arrival]:
        """Return what came on a topic."""
        return self.arrivals.get(name, [])

    def clock(self) -> list[Arrival]:
        """Return what came on /clock; the stamp is the time it told."""
        return self.heard("/clock")


def with_ros_time(arrivals: Mapping[str, Sequence[Arrival]], clock: str) -> dict[str, list[Arrival]]:
    """Write down for every message what the clock showed when it came.

    Read off afterwards, between two ticks, because a busy receiver handles messages long after they came and not in
    their order.
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
    """When messages were sent, as far as it is known, else received: the receiver being busy does not show."""
    known = all(a.sent for a in arrivals)
    return sorted(a.sent if known else a.received for a in arrivals)


def in_simulated_time(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return messages as if real time had run as /clock does; as they are where there is none.

    A simulator may be slower than reality, and a camera in it with it; ages are counted in its time.
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
    """How many messages were sent but never came, and how many were sent, between the first and the last that came."""
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
