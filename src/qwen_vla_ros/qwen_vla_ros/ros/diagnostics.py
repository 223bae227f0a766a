# SPDX-License-Identifier: Apache-2.0
"""Diagnostic messages: statuses with readable values, in printable characters only."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from qwen_vla_rclpy.printable import printable


def diagnostic_status(
    name: str, hardware_id: str, problems: Mapping[str, bytes], values: Mapping[str, object]
) -> DiagnosticStatus:
    """Build one status.

    Args:
        name: "node: task".
        hardware_id: the robot.
        problems: texts with their levels (DiagnosticStatus.WARN, .ERROR); the worst level is the status's.
        values: published as key and text; floats with three digits.
    """
    status = DiagnosticStatus(name=printable(name), hardware_id=printable(hardware_id))
    status.level = max(problems.values(), default=DiagnosticStatus.OK)
    status.message = printable("; ".join(problems)) or "ok"
    status.values = [
        KeyValue(key=printable(key), value=f"{value:.3f}" if isinstance(value, float) else printable(value))
        for key, value in values.items()
    ]
    return status


def diagnostic_array(
    stamp: Time, name: str, hardware_id: str, problems: Mapping[str, bytes], values: Mapping[str, object]
) -> DiagnosticArray:
    """Build an array of one status; see `diagnostic_status`; `stamp` is ROS time."""
    message = DiagnosticArray(status=[diagnostic_status(name, hardware_id, problems, values)])
    message.header.stamp = stamp
    return message
