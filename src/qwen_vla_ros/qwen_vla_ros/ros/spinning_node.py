# SPDX-License-Identifier: Apache-2.0
"""A node whose callbacks run in a thread of its own, while its owner waits for their results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.task import Future

from qwen_vla_rclpy.guarded_executor import GuardedExecutor
from qwen_vla_rclpy.guarded_node import ANY_SIZE, GuardedNode
from qwen_vla_ros.ros.question import Question

IN_TURN_TIMEOUT = 30.0  # [s] far more than any callback should take
LARGEST = 1_000_000  # [bytes] of a message of a type not listed below
LARGEST_BY_TYPE = {"Image": ANY_SIZE, "CompressedImage": ANY_SIZE, "String": 8_000_000}  # a description is a String

Value = TypeVar("Value")


class NoAnswer(RuntimeError):
    """Something awaited did not arrive in time; the message names it and the time."""


class ListeningNode(GuardedNode):
    """A node that only subscribes and calls services; `mishap` is the text of the last callback that raised."""

    publishes_faults = False
    mishap = ""

    def create_subscription(self, msg_type: type, *arguments: Any, **options: Any) -> Subscription:
        """As GuardedNode's, with a size limit for every type."""
        options.setdefault("largest", LARGEST_BY_TYPE.get(msg_type.__name__, LARGEST))
        return super().create_subscription(msg_type, *arguments, **options)

    def on_failure(self, text: str) -> None:
        """Store it for the caller that waits for the result of that callback."""
        self.mishap = text


class SpinningNode:
    """An rclpy node with its own context; its thread runs while it is a context manager.

    Attributes:
        node: the rclpy node.
        poll_period: time between two checks of what is not notified, such as the graph [s].
        changed: held by every callback and notified after it; hold it to read what callbacks write.
        check: called at every check while waiting; raises to give up.
    """

    poll_period = 0.1

    def __init__(self, name: str, domain: int, kind: type[GuardedNode] = ListeningNode, **parameters: Any) -> None:
        """Join the graph; `kind` is the class of the node, `parameters` are its initial ones."""
        self._context = Context()
        self._context.init(domain_id=domain)
        overrides = [Parameter(key, value=value) for key, value in parameters.items()]
        self.node = kind(name, context=self._context, parameter_overrides=overrides)
        self.changed = threading.Condition(threading.RLock())
        self.check: Callable[[], None] = lambda: None
        self._failure: BaseException | None = None
        self._ended = False
        self._executor = GuardedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and leave the graph."""
        # Executor.shutdown destroys the guard that wakes the thread: one that is about to wait would wait for ever.
        if self._thread.is_alive():
            self._executor.create_task(self._end)
            self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def hear(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile | int) -> None:
        """Subscribe; the callback runs in the node's thread and must return quickly."""

        def guarded(message: Any) -> None:
            with self.changed:
                callback(message)
                self.changed.notify_all()

        self.node.create_subscription(kind, topic, guarded, qos)

    def wait(self, condition: Callable[[], Value | None], what: str, timeout: float) -> Value:
        """Return the first true value of a condition; NoAnswer after `timeout` [s, steady], or what `check` raises."""
        limit = time.monotonic() + timeout
        with self.changed:
            while not (value := condition()):
                if self._failure is not None:
                    raise RuntimeError(f"{self.node.get_name()} cannot continue") from self._failure
                self.check()
                left = limit - time.monotonic()
                if left <= 0:
                    raise NoAnswer(f"no {what} within {timeout:.0f} s{self._mishap()}")
                self.changed.wait(min(left, self.poll_period))
        return value

    def result(self, future: Future, what: str, timeout: float) -> Any:
        """Wait for a future of this node and return its result."""
        future.add_done_callback(lambda _future: self._announce())
        self.wait(future.done, what, timeout)
        return future.result()

    def call(self, client: Client, request: Any, timeout: float) -> Any:
        """Call a service, once, and return its response."""
        self.wait(client.service_is_ready, f"service {client.srv_name}", timeout)
        self.be_found_by(client.srv_name.rpartition("/")[0], timeout)
        return self.result(client.call_async(request), f"response of {client.srv_name}", timeout)

    def query(self, client: Client, request: Any, timeout: float) -> Any:
        """Call a service that may be called repeatedly, until there is a response, and return it."""
        self.wait(client.service_is_ready, f"service {client.srv_name}", timeout)
        question = Question(client, request, lambda _future: self._announce())
        try:
            return self.wait(question.response, f"response of {client.srv_name}", timeout)
        finally:
            question.close()

    def be_found_by(self, node: str, timeout: float) -> None:
        """Have a node, given by its full name, answer this one: responses to any earlier client then arrive, too.

        DDS announces endpoints in the order of their creation, and the client that asks is the youngest. Nodes without
        parameter services are not asked.
        """
        service = f"{node}/get_parameters"
        if all(name != service for name, _types in self.node.get_service_names_and_types()):
            return
        client = self.node.create_client(GetParameters, service)
        try:
            self.query(client, GetParameters.Request(), timeout)
        finally:
            self.in_turn(lambda: self.node.destroy_client(client))

    def in_turn(self, work: Callable[[], Value]) -> Value:
        """Have a function called between two callbacks and return its result.

        For changes that the thread must not see half done: an action client registers with the node before it is
        complete, and an entity destroyed elsewhere disappears while the thread waits for it.
        """
        if not self._thread.is_alive():
            return work()
        return self.result(self._executor.create_task(work), f"turn of {self.node.get_name()}", IN_TURN_TIMEOUT)

    def _mishap(self) -> str:
        mishap = getattr(self.node, "mishap", "")
        return f"; a callback has failed: {mishap}" if mishap else ""

    def _announce(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _spin(self) -> None:
        try:
            while not self._ended:
                self._executor.spin_once()
        except Exception as error:
            self._failure = error
            self._announce()

    def _end(self) -> None:
        """End after what was begun before, of which Jazzy's rclpy takes the latest first."""
        self._executor.create_task(self._finish)

    def _finish(self) -> None:
        self._ended = True
