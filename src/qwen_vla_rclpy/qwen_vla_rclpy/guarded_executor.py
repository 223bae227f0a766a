# SPDX-License-Identifier: Apache-2.0
"""An executor that keeps running when a callback raises, or when a message cannot even be taken."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

FAILURES, WITHIN = 100, 1.0  # this many within this many seconds [steady]: the executor itself is failing

Execute = Callable[[], Coroutine[Any, Any, None]]


class GuardedExecutor(SingleThreadedExecutor):
    """Notifies the node whose callback raised, through its `callback_raised` and `take_failed`, and keeps running.

    Without the guard, an exception from a callback ends `spin`, and with it the node; one from taking an unreadable
    message also leaves the callback group locked forever. rclpy's own callbacks, such as that of /clock, are guarded
    like all others.
    """

    def __init__(self, *, context: Context | None = None) -> None:
        """Create it like a SingleThreadedExecutor."""
        super().__init__(context=context)
        self._failed: deque[float] = deque(maxlen=FAILURES)  # [s, steady] when

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Execute one callback; raises only if rclpy itself fails repeatedly."""
        try:
            super().spin_once(timeout_sec)
        except ExternalShutdownException:
            raise
        except Exception as error:  # from a task: a callback of a future
            self._failed.append(time.monotonic())
            if len(self._failed) == FAILURES and self._failed[-1] - self._failed[0] < WITHIN:
                raise
            for node in self.get_nodes():
                _notify(node, "callback_raised", "callback of a future", error)

    def _make_handler(self, entity: Any, node: Node, take_from_wait_list: Callable[[Any], Execute | None]) -> Any:
        def take(entity: Any) -> Execute | None:
            try:
                execute = take_from_wait_list(entity)
            except Exception as error:
                _notify(node, "take_failed", _name_of(entity), error)
                return None
            return None if execute is None else guarded(execute)

        def guarded(execute: Execute) -> Execute:
            async def run() -> None:
                try:
                    await execute()
                except Exception as error:
                    _notify(node, "callback_raised", _name_of(entity), error)

            return run

        return super()._make_handler(entity, node, take)


def _notify(node: Node, method: str, where: str, error: Exception) -> None:
    """Call a method of a guarded node; for any other node, log the error."""
    handler = getattr(node, method, None)
    if handler is not None:
        handler(where, error)
    else:
        node.get_logger().error(f"{where}: {error!r}")


def _name_of(entity: Any) -> str:
    """The name of an entity in messages to the user."""
    for attribute in ("topic", "srv_name"):
        if name := getattr(entity, attribute, ""):
            return name
    callback = getattr(entity, "callback", None)
    return getattr(callback, "__qualname__", None) or type(entity).__name__
