# SPDX-License-Identifier: Apache-2.0
"""Checks of every stream of messages: it is published, with the correct type, often enough, with valid stamps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from qwen_vla_control.stamps import NANOSECONDS
from qwen_vla_ros.doctor.checks.ros_setup import AREA as ROS_SETUP
from qwen_vla_ros.doctor.facts import Arrival, Endpoint, Graph, Topic, in_simulated_time, longest_gap, lost, rate
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.ros.distributions import distribution

OTHER_CLOCK = 86400.0  # [s] a larger difference is not an age but a different clock
LEAD_WARN, LEAD_FAIL = 0.02, 0.1  # [s] into the future; the executor refuses chunks beyond the second
LOSS_WARN = 0.02  # share of the messages
FIRST_UNIX_TIME = 1_000_000_000  # [s] 2001; the clock of no robot is earlier, but simulated time is
SYNCHRONIZE = "synchronize the machines' clocks: chrony, with one of them as the server"


@dataclass(frozen=True)
class Need:
    """The suite's requirements of a stream.

    Attributes:
        least_rate: minimum for good operation [Hz].
        longest_gap: the robot stops beyond it [s].
        max_age: a message that is older on arrival is not used [s].
    """

    least_rate: float
    longest_gap: float
    max_age: float


def check_stream(
    area: Area, label: str, graph: Graph, name: str, types: Sequence[str], need: Need, start: str, shared: bool = False
) -> Iterator[Finding]:
    """Run all checks of a stream, except those made pointless by another's result.

    Args:
        area, label: for the table.
        graph: the observed graph.
        name: full name of the topic.
        types: accepted types.
        need: the suite's requirements.
        start: remedy when it is not published.
        shared: several publishers are allowed.
    """
    source = check_source(area, label, graph.topic(name), types, start, shared)
    yield source
    if source.remedy and not graph.heard(name):
        return
    arrivals = graph.heard(name)
    yield check_rate(area, f"{label}: rate", arrivals, need, graph.seconds)
    if arrivals:
        yield check_stamps(area, f"{label}: stamps", arrivals, need.max_age)
        if arrivals[0].publisher or len(graph.topic(name).publishers) == 1:  # else whose numbers are they?
            yield from check_loss(area, f"{label}: loss", arrivals)


def check_source(
    area: Area, label: str, topic: Topic, types: Sequence[str], start: str, shared: bool = False
) -> Finding:
    """Is there one publisher (or, of a shared topic, at least one), with the correct type and a compatible QoS?"""
    if not topic.publishers:
        return area.fail(label, f"{topic.name} has no publisher", start)
    right = [p for p in topic.publishers if p.type in types]
    if not right:
        fact = (
            f"{topic.name} has the type {short(topic.publishers[0].type)}, required is {' or '.join(map(short, types))}"
        )
        return area.fail(label, f"{fact} (from {topic.publishers[0].node})", "correct the driver or the YAML's topic")
    deaf = [p for p in right if p.conflict]
    if len(deaf) == len(right):
        fact = f"QoS of {deaf[0].node} ({deaf[0].qos}) does not match: {deaf[0].conflict}"
        return area.fail(label, fact, f"change the QoS of the publisher of {topic.name}")
    if len(topic.publishers) > 1 and not shared:
        fact = f"{len(topic.publishers)} publishers on {topic.name}: {nodes(topic.publishers)}"
        return area.fail(label, fact, "their messages are mixed: stop all but one, or give each its own topic")
    return area.ok(label, f"{topic.name} from {nodes(right)} ({right[0].qos.split(',')[0]})")


def check_rate(area: Area, label: str, arrivals: Sequence[Arrival], need: Need, seconds: float) -> Finding:
    """Is the rate high enough?"""
    if len(arrivals) < 2:
        fact = f"{len(arrivals) or 'no'} message{'s' * (len(arrivals) != 1)} in {seconds:.1f} s"
        return area.fail(label, fact, "is the driver hanging, or the device unplugged? Check the log of its node")
    lived = in_simulated_time(arrivals)
    hz, gap = rate(lived), longest_gap(lived)
    fact = f"{hz:.1f} Hz, longest gap {1e3 * gap:.0f} ms"
    if gap > need.longest_gap:
        remedy = "the robot would stop during the gap: check for a busy CPU, a bad cable, a slow network"
        return area.fail(label, f"{fact} (limit {1e3 * need.longest_gap:.0f} ms)", remedy)
    if hz < need.least_rate:
        return area.warn(label, f"{fact}; {need.least_rate:g} Hz required", "raise the rate in the driver's settings")
    return area.ok(label, fact)


def check_stamps(area: Area, label: str, arrivals: Sequence[Arrival], max_age: float) -> Finding:
    """Are the stamps the time of measurement, by the same clock as ours?"""
    stamped = [a for a in arrivals if a.stamp is not None]
    if not any(a.stamp for a in stamped):
        return area.fail(label, "all stamps are 0", "have the driver set header.stamp at the time of measurement")
    if len(stamped) > 2 and len({a.stamp for a in stamped}) == 1:
        fact = f"the same stamp in {len(stamped)} messages: the stream is frozen"
        return area.fail(label, fact, "restart the driver; check that the device still delivers data")
    stamped = [a for a in stamped if a.ros_time is not None] or stamped  # of the others, the age is unknown
    clocks = [(a.received if a.ros_time is None else a.ros_time, a.stamp or 0) for a in stamped]
    ages = [(now - stamp) / NANOSECONDS for now, stamp in clocks]
    middle = median(ages)
    if abs(middle) > OTHER_CLOCK:
        return _other_clock(area, label, stamped[-1], middle)
    if min(ages) < -LEAD_FAIL:
        return area.fail(label, f"{-min(ages):.2f} s in the future (limit {LEAD_FAIL} s)", SYNCHRONIZE)
    if middle > max_age:
        remedy = f"{SYNCHRONIZE}; if they are, the driver or the network is slow"
        return area.fail(label, f"{middle:.2f} s old on arrival (limit {max_age} s)", remedy)
    if min(ages) < -LEAD_WARN and stamped[-1].ros_time is None:
        return area.warn(label, f"{-1e3 * min(ages):.0f} ms in the future", SYNCHRONIZE)
    if middle > max_age / 2:
        remedy = "reduce the latency: smaller or compressed images, a wired network"
        return area.warn(label, f"{1e3 * middle:.0f} ms old on arrival, unusable at {1e3 * max_age:.0f} ms", remedy)
    return area.ok(label, f"{1e3 * max(middle, 0):.0f} ms old on arrival")


def _other_clock(area: Area, label: str, last: Arrival, age: float) -> Finding:
    stamp = last.stamp or 0
    if last.ros_time is not None and abs(last.received - stamp) < OTHER_CLOCK * NANOSECONDS:
        fact = "stamps of real time, but /clock is running: simulated and real time are mixed"
        return area.fail(label, fact, "start its node with use_sim_time:=true, or stop the publisher of /clock")
    if last.ros_time is None and stamp < FIRST_UNIX_TIME * NANOSECONDS:
        fact = f"stamps of simulated time ({stamp / NANOSECONDS:.1f} s), but /clock has no publisher"
        return area.fail(label, fact, "start its node with use_sim_time:=false, or start the simulator's /clock")
    return area.fail(label, f"stamps {abs(age) / 86400:.0f} days {'old' if age > 0 else 'ahead'}", SYNCHRONIZE)


def check_loss(area: Area, label: str, arrivals: Sequence[Arrival]) -> Iterator[Finding]:
    """Do all messages arrive? No finding where the middleware does not number them, or none is lost."""
    missing, sent = lost(arrivals)
    if sent and missing > LOSS_WARN * sent and missing > 1:
        fact = f"{missing} of {sent} messages did not arrive ({missing / sent:.0%})"
        remedy = f"set {distribution().profile_variable} to config/dds/fastdds_large_images.xml for every process"
        yield area.warn(label, fact, remedy)


def check_definitions(graph: Graph) -> Iterator[Finding]:
    """Do all nodes have the same definition of a type?"""
    for topic in graph.topics.values():
        hashes: dict[str, dict[str, str]] = {}
        for endpoint in (*topic.publishers, *topic.subscribers):
            if endpoint.type_hash:
                hashes.setdefault(endpoint.type, {}).setdefault(endpoint.type_hash, endpoint.node)
        for kind, parties in hashes.items():
            if len(parties) > 1:
                fact = f"{topic.name}: {' and '.join(parties.values())} have different definitions of {short(kind)}"
                remedy = "build the interfaces from the same sources on every machine and restart the nodes"
                yield ROS_SETUP.fail("definitions", fact, remedy)


def short(kind: str) -> str:
    """Return the last part of a type's name: Image for sensor_msgs/msg/Image."""
    return kind.rsplit("/", 1)[-1]


def nodes(endpoints: Sequence[Endpoint]) -> str:
    """Return the nodes of endpoints, as text."""
    return ", ".join(sorted({endpoint.node for endpoint in endpoints}))


def one_of(endpoints: Sequence[Endpoint]) -> str:
    """Return who of the endpoints it is, as text, where the middleware does not tell; empty if there are none."""
    names = nodes(endpoints)
    return f"one of {names}" if ", " in names else names
