# SPDX-License-Identifier: Apache-2.0
"""robot_description: it is published, describes this robot, and matches the robot's YAML."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from embodiment_descriptions import Embodiment, EmbodimentConfig, EmbodimentError, Kinematics
from embodiment_descriptions.urdf import parse_urdf
from qwen_vla_ros.doctor.checks.streams import nodes
from qwen_vla_ros.doctor.facts import Graph
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import DESCRIPTION
from qwen_vla_ros.ros.names import resolve

AREA = Area("Robot description")
LIMIT_TOLERANCE = 1e-3  # [rad, m, or share of a speed]
TIP_TOLERANCE = 1e-3  # [m] between two descriptions of one robot
START = "start robot_state_publisher with this robot's xacro, or the simulator"


def live_description(graph: Graph, namespace: str) -> str:
    """Return the URDF text on robot_description; empty when there is none."""
    heard = graph.heard(resolve(namespace, DESCRIPTION))
    return heard[-1].content if heard else ""


def check_description(
    config: EmbodimentConfig, own: Embodiment | None, graph: Graph, namespace: str
) -> Iterator[Finding]:
    """All checks of the description; `own` is the robot from the description of its YAML, None where there is none."""
    topic = graph.topic(resolve(namespace, DESCRIPTION))
    if not topic.publishers:
        yield AREA.fail(DESCRIPTION, f"{topic.name} has no publisher", START)
        return
    heard = graph.heard(topic.name)
    if not heard:
        first = topic.publishers[0]
        why = first.conflict or f"no message from {first.node}, type {first.type}"
        yield AREA.fail(DESCRIPTION, why, "publish std_msgs/String, reliable and transient local")
        return
    if len({a.content for a in heard}) > 1 or len(topic.publishers) > 1:
        fact = f"more than one description, from {nodes(topic.publishers)}"
        yield AREA.fail(DESCRIPTION, fact, "stop all publishers but one, or give each robot a namespace")
        return
    try:
        live = Embodiment.from_urdf(heard[-1].content, config.model_dump())
    except EmbodimentError as error:
        fact = f"does not match the YAML: {' '.join(str(error).split())}"
        yield AREA.fail(DESCRIPTION, fact, f"start the correct robot, or correct config/embodiments/{config.name}.yaml")
        return
    yield check_name(live)
    if own is not None:
        yield from compare(live, own)


def check_name(live: Embodiment) -> Finding:
    """Can the nodes find the YAML by the name in the URDF?"""
    name = parse_urdf(live.urdf).name
    if name != live.name:
        fact = f"the robot is '{name}' in the URDF, '{live.name}' in the YAML"
        remedy = "set the parameter embodiment_config of both nodes to the YAML, or use the same name"
        return AREA.warn("name", fact, remedy)
    return AREA.ok(DESCRIPTION, f"'{name}', {len(live.joint_names)} joints as in the YAML")


def compare(live: Embodiment, own: Embodiment) -> Iterator[Finding]:
    """Is the running robot the one described by this suite?"""
    wrong = [
        f"{joint} {what} {a:.4g} instead of {b:.4g}"
        for joint, limit in own.limits.items()
        for what, a, b in (
            (key, getattr(live.limits[joint], key), getattr(limit, key)) for key in ("lower", "upper", "velocity")
        )
        if not math.isclose(a, b, abs_tol=LIMIT_TOLERANCE)
    ]
    if wrong:
        more = f", and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        fact = f"{'; '.join(wrong[:2])}{more}"
        yield AREA.warn(
            "limits", fact, "is this another version of the robot? The limits of the running description apply"
        )
    else:
        yield AREA.ok("limits", "same as in the robot's own description")
    yield from _compare_kinematics(live, own)


def _compare_kinematics(live: Embodiment, own: Embodiment) -> Iterator[Finding]:
    for index, arm in enumerate(own.arms):
        positions = [own.home[name] for name in arm.joints]
        here, there = (Kinematics(robot, index).forward(positions)[:3, 3] for robot in (live, own))
        distance = float(np.linalg.norm(here - there))
        if distance > TIP_TOLERANCE:
            fact = f"at home {arm.tip_link} is {1e3 * distance:.0f} mm from its position in the robot's own description"
            yield AREA.warn("geometry", fact, f"check the xacro, or whether this is another model of {own.name}")
            return
    if own.arms:
        yield AREA.ok("geometry", "same as in the robot's own description")
