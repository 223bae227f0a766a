# SPDX-License-Identifier: Apache-2.0
"""Runs a node that moves no robot as a process: no lifecycle, ends on SIGINT or SIGTERM."""

from __future__ import annotations

from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from qwen_vla_rclpy import process_start
from qwen_vla_rclpy.guarded_executor import GuardedExecutor


def run(make: Callable[[], Node], args: list[str] | None = None) -> None:
    """Spin the node that `make` returns until a signal arrives; `args` replaces the process's arguments."""
    process_start.init(args)
    executor, node = GuardedExecutor(), process_start.made(make)
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
