"""ROS parameters, declared once from a table: description, type, range and whether they may change while running."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node

LONGEST_TEXT = 4096  # characters of a text


@dataclass(frozen=True)
class Parameter:
    """One row of the table; the type is that of the default.

    Attributes:
        minimum, maximum: range of a number; ROS refuses values outside.
        read_only: only settable at start.
        choices: the values of a text; empty: any.
    """

    name: str
    default: bool | int | float | str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    read_only: bool = False
    choices: tuple[str, ...] = ()

    def descriptor(self) -> ParameterDescriptor:
        """Return what `ros2 param describe` shows."""
        descriptor = ParameterDescriptor(description=self.description, read_only=self.read_only)
        descriptor.additional_constraints = f"one of: {', '.join(self.choices)}" if self.choices else ""
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))]
            else:
                limits = FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum))
                descriptor.floating_point_range = [limits]
        return descriptor


class Parameters:
    """The declared parameters as attributes. Each access reads the node, so that a change at run time takes effect."""

    def __init__(self, node: Node, table: Iterable[Parameter]) -> None:
        """Declare every row of the table on the node."""
        self._node = node
        table = tuple(table)
        self._choices = {row.name: row.choices for row in table if row.choices}
        node.add_on_set_parameters_callback(self._check)
        for row in table:
            node.declare_parameter(row.name, row.default, row.descriptor())

    def __getattr__(self, name: str) -> Any:
        """Return the current value of a parameter."""
        return self._node.get_parameter(name).value

    def _check(self, parameters: list) -> SetParametersResult:
        for parameter in parameters:
            if isinstance(parameter.value, str) and len(parameter.value) > LONGEST_TEXT:
                reason = f"{parameter.name} has {len(parameter.value)} characters (limit {LONGEST_TEXT})"
                return SetParametersResult(successful=False, reason=reason)
            choices = self._choices.get(parameter.name)
            if choices and parameter.value not in choices:
                reason = f"{parameter.name} '{parameter.value}' is not one of: {', '.join(choices)}"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)
