"""Running a node that moves no robot as a process: no lifecycle, an end by SIGINT or SIGTERM."""

from __future__ import annotations

from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node


def run(make: Callable[[], Node], args: list[str] | None = None) -> None:
    """Spin what `make` returns until a signal comes; `args` instead of those of the process."""
    rclpy.init(args=args)
    node = make()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
