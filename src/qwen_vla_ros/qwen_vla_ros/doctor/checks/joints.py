# SPDX-License-Identifier: Apache-2.0
"""Joint states: every joint is published, in radians and meters, within its limits."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

from embodiment_descriptions import Embodiment
from embodiment_descriptions.urdf import hint, parse_urdf
from qwen_vla_control.observation.joint_reader import JointReader
from qwen_vla_ros.doctor.checks.streams import Need, check_stream
from qwen_vla_ros.doctor.facts import Graph, Joints, duplicates
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import JOINT_STATE
from qwen_vla_ros.ros.names import resolve

AREA = Area("Joint states")
LEAST_RATE = 20.0  # [Hz] so that a measurement is within 50 ms of every image
NEAR = 0.05  # [rad or m] a joint less than this beyond a limit may still be moved back
NOTICEABLE = 1e-3  # [rad or m]
GRIPPER_MARGIN = 0.25  # share of its range
START = "start the controllers (joint_state_broadcaster), the robot's driver, or the simulator"


def check_joint_states(robot: Embodiment, graph: Graph, namespace: str) -> Iterator[Finding]:
    """All checks of all sources of joint states."""
    if not robot.joint_names:
        yield AREA.ok("joints", "the robot has no commanded joints")
        return
    measured: dict[str, float] = {}
    reader, silent = JointReader(robot), False
    for index, source in enumerate(robot.joint_states):
        topic = resolve(namespace, source.topic)
        rate = max(LEAST_RATE, robot.rate_hz)
        need = Need(rate, source.max_age_s, source.max_age_s)
        for a in graph.heard(topic):
            reader.push(index, a.stamp or 0, a.content.names, a.content.positions, (), a.received, a.publisher)
        shared = is_shared(reader.sources[index].publishers.values(), len(graph.topic(topic).publishers))
        yield from check_stream(AREA, source.topic, graph, topic, (JOINT_STATE,), need, START, shared)
        messages = [a.content for a in graph.heard(topic)]
        silent |= not messages
        yield from check_messages(source.topic, messages)
        for message in messages:
            measured |= {source.prefix + n: p for n, p in zip(message.names, message.positions, strict=False)}
    if measured or not silent:
        yield check_names(robot, measured)
    if not measured.keys().isdisjoint(robot.joint_names):
        yield from check_values(robot, measured)


def is_shared(told: Collection[set[str]], publishers: int) -> bool:
    """Whether each publisher of a topic has different joints of the robot, as arm and gripper may."""
    return all(told) and len(told) == publishers and sum(map(len, told)) == len(set().union(*told))


def check_messages(label: str, messages: list[Joints]) -> Iterator[Finding]:
    """Is each message complete?"""
    for message in messages[:1]:
        if len(message.names) != len(message.positions):
            fact = f"{len(message.names)} names, but {len(message.positions)} positions"
            yield AREA.fail(f"{label}: content", fact, "correct the publisher: one position for each name")
        if repeated := duplicates(message.names):
            yield AREA.fail(
                f"{label}: content", f"{', '.join(repeated)} named more than once", "give every joint its own name"
            )


def check_names(robot: Embodiment, measured: Mapping[str, float]) -> Finding:
    """Is every commanded joint also measured?"""
    missing = [name for name in robot.joint_names if name not in measured]
    if missing:
        fact = (
            f"{len(missing)} of {len(robot.joint_names)} are missing: {_few(missing)}{hint(missing[0], list(measured))}"
        )
        return AREA.fail("joint names", fact, "correct joint_states (topic, prefix) in the YAML, or the driver's names")
    return AREA.ok("joint names", f"all {len(robot.joint_names)} joints are measured")


def check_values(robot: Embodiment, measured: Mapping[str, float]) -> Iterator[Finding]:
    """Are the values plausible for these joints? A wrong unit explains all others, which are then not reported."""
    values = {name: measured[name] for name in robot.joint_names if name in measured}
    not_finite = [name for name, value in values.items() if not math.isfinite(value)]
    if not_finite:
        yield AREA.fail("positions", f"{_few(not_finite)} not finite", "repair the encoder or its driver")
        return
    units = list(check_units(robot, values))
    yield from units or (AREA.ok("units", "radians and meters, judging by the positions"),)
    if not units:
        yield check_limits(robot, values)
        yield from check_grippers(robot, values)
    if values and not any(values.values()):
        remedy = "is the driver connected? A robot at rest has small, different values"
        yield AREA.warn("positions", "every joint is exactly 0", remedy)


def check_units(robot: Embodiment, values: Mapping[str, float]) -> Iterator[Finding]:
    """Are angles in radians and distances in meters?"""
    types = {name: joint.type for name, joint in parse_urdf(robot.urdf).joints.items()}
    angles = {name: value for name, value in values.items() if types.get(name) != "prismatic"}
    sliding = {name: value for name, value in values.items() if types.get(name) == "prismatic"}
    far = [name for name, value in angles.items() if abs(value) > 2 * _size(robot, name)]
    if far and all(_excess(robot, name, math.radians(value)) < NEAR for name, value in angles.items()):
        fact = f"degrees? {far[0]} = {angles[far[0]]:.1f}, limits {_limits(robot, far[0])} rad"
        yield AREA.fail("units", fact, "have the driver publish radians, as specified by sensor_msgs/JointState")
    long = [name for name, value in sliding.items() if abs(value) > 10 * _size(robot, name)]
    if long and all(_excess(robot, name, value / 1000) < NOTICEABLE for name, value in sliding.items()):
        fact = f"millimeters? {long[0]} = {sliding[long[0]]:.4g}, limits {_limits(robot, long[0])} m"
        yield AREA.fail("units", fact, "have the driver publish meters")


def check_limits(robot: Embodiment, values: Mapping[str, float]) -> Finding:
    """Is every joint within the limits of the URDF?"""
    excess = {name: _excess(robot, name, value) for name, value in values.items()}
    outside = sorted(
        (name for name in excess if excess[name] > NOTICEABLE), key=lambda name: excess[name], reverse=True
    )
    if not outside:
        return AREA.ok("limits", "all joints are within the limits of the URDF")
    name = outside[0]
    more = f", and {len(outside) - 1} more" if len(outside) > 1 else ""
    fact = f"{name} = {values[name]:.4g}, limits {_limits(robot, name)}{more}"
    if excess[name] > NEAR:
        return AREA.fail(
            "limits", fact, "move the arm back by hand or with its own tools; check zero and sign of the joint"
        )
    return AREA.warn("limits", fact, "only chunks that move it back are accepted; check the zero of the joint")


def check_grippers(robot: Embodiment, values: Mapping[str, float]) -> Iterator[Finding]:
    """Do `closed` and `open` match this gripper?"""
    for arm in robot.arms:
        gripper = arm.gripper
        if gripper is None or gripper.joint not in values:
            continue
        share = (values[gripper.joint] - gripper.closed) / (gripper.open - gripper.closed)
        if not -GRIPPER_MARGIN <= share <= 1 + GRIPPER_MARGIN:
            fact = f"{values[gripper.joint]:.4g}, but closed is {gripper.closed:g} and open {gripper.open:g}"
            yield AREA.warn(gripper.joint, fact, "measure closed and open of this gripper and correct the YAML")


def _excess(robot: Embodiment, name: str, value: float) -> float:
    limit = robot.limits[name]
    return max(limit.lower - value, value - limit.upper, 0.0)


def _size(robot: Embodiment, name: str) -> float:
    """Return the plausible distance of a joint from zero [rad or m]; a continuous one may have rotated a few times."""
    limit = robot.limits[name]
    return max(abs(limit.lower), abs(limit.upper)) if math.isfinite(limit.upper) else 4 * math.pi


def _limits(robot: Embodiment, name: str) -> str:
    limit = robot.limits[name]
    return f"{limit.lower:.3g}..{limit.upper:.3g}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
