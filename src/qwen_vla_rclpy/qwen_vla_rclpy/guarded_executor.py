"""An executor that goes on when a callback raises, or when a message cannot even be taken."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

FAILURES, WITHIN = 100, 1.0  # so many within so many seconds [steady]: then it is the executor itself that fails

Execute = Callable[[], Coroutine[Any, Any, None]]


class GuardedExecutor(SingleThreadedExecutor):
    """Tells the node whose callback raised, through its `callback_raised` and `take_failed`, and goes on.

    Without the guard, an exception from a callback ends `spin`, and with it the node; one from taking a message (it
    cannot be read) leaves the callback group locked for ever as well. rclpy's own callbacks, the one of /clock for
    example, are guarded like all others.
    """

    def __init__(self, *, context: Context | None = None) -> None:
        """As SingleThreadedExecutor."""
        super().__init__(context=context)
        self._failed: deque[float] = deque(maxlen=FAILURES)  # [s, steady] when

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Execute one callback; raises only what rclpy itself fails with again and again."""
        try:
            super().spin_once(timeout_sec)
        except ExternalShutdownException:
            raise
        except Exception as error:  # of a task: what was to be done when a future is done
            self._failed.append(time.monotonic())
            if len(self._failed) == FAILURES and self._failed[-1] - self._failed[0] < WITHIN:
                raise
            for node in self.get_nodes():
                _tell(node, "callback_raised", "what follows a future", error)

    def _make_handler(self, entity: Any, node: Node, take_from_wait_list: Callable[[Any], Execute | None]) -> Any:
        def take(entity: Any) -> Execute | None:
            try:
                execute = take_from_wait_list(entity)
            except Exception as error:
                _tell(node, "take_failed", _name_of(entity), error)
                return None
            return None if execute is None else guarded(execute)

        def guarded(execute: Execute) -> Execute:
            async def run() -> None:
                try:
                    await execute()
                except Exception as error:
                    _tell(node, "callback_raised", _name_of(entity), error)

            return run

        return super()._make_handler(entity, node, take)


def _tell(node: Node, method: str, where: str, error: Exception) -> None:
    """Call a method of a guarded node; of any other kind of node, its log must do."""
    told = getattr(node, method, None)
    if told is not None:
        told(where, error)
    else:
        node.get_logger().error(f"{where}: {error!r}")


def _name_of(entity: Any) -> str:
    """What an entity is called in messages to the user."""
    for attribute in ("topic", "srv_name"):
        if name := getattr(entity, attribute, ""):
            return name
    callback = getattr(entity, "callback", None)
    return getattr(callback, "__qualname__", None) or type(entity).__name__
