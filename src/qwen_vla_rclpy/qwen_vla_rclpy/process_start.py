# SPDX-License-Identifier: Apache-2.0
"""The start of a node's process: what ROS refuses of its command line ends it in one line, with exit code 2.

ROS itself ignores a parameter that the node does not have, such as a misspelled one: that is told in the log.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.node import Node

AnyNode = TypeVar("AnyNode", bound=Node)

_PLACES = re.compile(r",? at /\S+:\d+")  # in the sources of rcl


def init(args: list[str] | None, **options: Any) -> None:
    """`rclpy.init`; SystemExit for arguments that ROS cannot read, such as -p without a value."""
    try:
        rclpy.init(args=args, **options)
    except RuntimeError as error:  # what rcl and rmw raise has no public type of its own
        if "parse" not in str(error) and "unknown" not in str(error).lower():
            raise
        _end(str(error).removeprefix("failed to initialize rcl: "))


def made(make_node: Callable[[], AnyNode]) -> AnyNode:
    """Make the node; SystemExit for a parameter of the wrong type, or outside its range."""
    try:
        node = make_node()
    except ParameterException as error:
        _end(str(error))
    _tell_unknown_parameters(node)
    return node


def _tell_unknown_parameters(node: Node) -> None:
    declared = list(node.get_parameters_by_prefix(""))
    # rclpy has no public name for what the command line and parameter files have given.
    unknown = sorted(name for name in node._parameter_overrides if not node.has_parameter(name))
    for name in unknown:
        close = get_close_matches(name, declared, 1)
        meant = f"; did you mean {close[0]}?" if close else f"; --help of {Path(sys.argv[0]).name} lists those it has"
        node.get_logger().warning(f"the parameter {name} has no effect, because this node has none of that name{meant}")


def _end(reason: str) -> NoReturn:
    name = Path(sys.argv[0]).name
    print(f"{name}: {' '.join(_PLACES.sub('', reason).split())}; see {name} --help", file=sys.stderr)
    raise SystemExit(2)
