# SPDX-License-Identifier: Apache-2.0
"""ROS parameters, declared from a table: description, type, range, and when they may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rcl_interfaces import msg as messages
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node

from qwen_vla_control.node_interface import Parameter


class Parameters:
    """The declared parameters as attributes. Each access reads the node, so that changes take effect at run time."""

    def __init__(self, node: Node, table: Iterable[Parameter]) -> None:
        """Declare every row of the table on a node."""
        self._node = node
        self._rows = {row.name: row for row in table}
        self._locked = False
        node.add_on_set_parameters_callback(self._check)
        for row in self._rows.values():
            node.declare_parameter(row.name, row.default, row.descriptor(messages))

    def __getattr__(self, name: str) -> Any:
        """Return the current value of a parameter."""
        return self._node.get_parameter(name).value

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Meanwhile, what the robot's safety depends on keeps its value."""
        self._locked = True
        try:
            yield
        finally:
            self._locked = False

    def _check(self, parameters: list) -> SetParametersResult:
        for parameter in parameters:
            row = self._rows.get(parameter.name)
            if row is not None and (reason := row.refusal(parameter.value) or self._lock(row, parameter.value)):
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _lock(self, row: Parameter, value: Any) -> str:
        """Say that a value must not change now; empty when it may."""
        if not (self._locked and row.safety) or value == getattr(self, row.name):
            return ""
        name = self._node.get_fully_qualified_name()
        return (
            f"the robot's safety depends on {row.name}: it cannot change while the node is configured; first: "
            f"ros2 lifecycle set {name} deactivate, then cleanup"
        )
