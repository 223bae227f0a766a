# SPDX-License-Identifier: Apache-2.0
"""Odometry of a mobile base."""

from __future__ import annotations

from collections.abc import Iterator

from embodiment_descriptions import Embodiment
from qwen_vla_ros.doctor.checks.streams import Need, check_stream
from qwen_vla_ros.doctor.facts import Graph
from qwen_vla_ros.doctor.findings import Area, Finding
from qwen_vla_ros.doctor.interfaces import ODOMETRY
from qwen_vla_ros.ros.names import resolve

AREA = Area("Odometry")
LEAST_RATE = 10.0  # [Hz]


def check_odometry(robot: Embodiment, graph: Graph, namespace: str) -> Iterator[Finding]:
    """Is the base's pose published, often enough and in time?"""
    if robot.odometry is None:
        return
    need = Need(max(LEAST_RATE, robot.rate_hz), robot.odometry.max_age_s, robot.odometry.max_age_s)
    start = "start the driver of the base, or the simulator, or correct odometry.topic in the YAML"
    topic = resolve(namespace, robot.odometry.topic)
    yield from check_stream(AREA, robot.odometry.topic, graph, topic, (ODOMETRY,), need, start)
