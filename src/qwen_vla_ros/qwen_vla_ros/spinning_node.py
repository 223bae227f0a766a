"""A node whose callbacks run in a thread of its own, while its owner waits for what they bring."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future

POLL_PERIOD = 0.1  # [s] between two looks at what nobody announces, for example the graph

Value = TypeVar("Value")


class NoAnswer(RuntimeError):
    """What was waited for did not come in time; the message names it and the time."""


class SpinningNode:
    """An rclpy node with its own context, usable as a context manager.

    Attributes:
        node: the rclpy node.
        changed: held by every callback and announced after it; hold it to read what callbacks write.
        check: called at every look while waiting; raises to give up.
    """

    def __init__(self, name: str, domain: int) -> None:
        self._context = Context()
        self._context.init(domain_id=domain)
        self.node = Node(name, context=self._context)
        self.changed = threading.Condition(threading.RLock())
        self.check: Callable[[], None] = lambda: None
        self._failure: BaseException | None = None
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> SpinningNode:
        return self

    def __exit__(self, *_exc) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and leave the graph."""
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self._context.try_shutdown()

    def hear(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile | int) -> None:
        """Subscribe; the callback runs in the node's thread and must be quick."""

        def guarded(message: Any) -> None:
            with self.changed:
                callback(message)
                self.changed.notify_all()

        self.node.create_subscription(kind, topic, guarded, qos)

    def wait(self, condition: Callable[[], Value], what: str, timeout: float) -> Value:
        """Return the first true value of a condition; NoAnswer after `timeout` [s, steady], or what `check` raises."""
        limit = time.monotonic() + timeout
        with self.changed:
            while not (value := condition()):
                if self._failure is not None:
                    raise RuntimeError(f"a callback of {self.node.get_name()} failed") from self._failure
                self.check()
                left = limit - time.monotonic()
                if left <= 0:
                    raise NoAnswer(f"no {what} within {timeout:.0f} s")
                self.changed.wait(min(left, POLL_PERIOD))
        return value

    def result(self, future: Future, what: str, timeout: float) -> Any:
        """Wait for a future of this node and return its result."""
        future.add_done_callback(lambda _future: self._announce())
        self.wait(future.done, what, timeout)
        return future.result()

    def call(self, client: Any, request: Any, timeout: float) -> Any:
        """Call a service and return its response."""
        self.wait(client.service_is_ready, f"service {client.srv_name}", timeout)
        return self.result(client.call_async(request), f"answer of {client.srv_name}", timeout)

    def _announce(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except Exception as error:
            self._failure = error
            self._announce()
