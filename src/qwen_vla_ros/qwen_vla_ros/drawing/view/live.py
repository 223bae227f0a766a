# SPDX-License-Identifier: Apache-2.0
"""Messages from the running graph."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import String

from qwen_vla_rclpy.optional_interfaces import interface
from qwen_vla_rclpy.qos import LATCHED, reliable
from qwen_vla_ros.drawing.view.scene import Feed
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.ros.names import resolve
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode

LOOK_PERIOD = 0.2  # [s] between two checks whether it is time to end
IMAGES_WAITING = 8  # more are dropped: a viewer that is too slow must not fall behind
MOST_WAITING = 2000  # of all messages


class LiveGraph:
    """Receives in a thread of its own; `feed` passes messages on in the caller's thread."""

    def __init__(self, node: SpinningNode, namespace: str) -> None:
        """Join the namespace of one robot, without subscriptions so far."""
        self._node, self._namespace = node, namespace
        self._heard: queue.SimpleQueue[tuple[Feed, Any]] = queue.SimpleQueue()

    def description(self, timeout: float) -> str:
        """The robot's URDF; TimeoutError when it is not published within `timeout` [s]."""
        texts: list[str] = []
        topic = self.topic("robot_description")
        self._node.hear(String, topic, lambda message: texts.append(message.data), LATCHED)
        try:
            return self._node.wait(lambda: texts[-1] if texts else "", f"robot_description on {topic}", timeout)
        except NoAnswer as error:
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            raise TimeoutError(
                f"{error} (ROS_DOMAIN_ID {domain}); is the robot running? Specify --namespace if it has one"
            ) from None

    def listen(self, feeds: tuple[Feed, ...]) -> None:
        """Subscribe."""
        for feed in feeds:
            quality = reliable(50) if feed.reliable else qos_profile_sensor_data
            self._node.hear(interface(feed.type), self.topic(feed.topic), self._store(feed), quality)

    def feed(self, seconds: float) -> Iterator[None]:
        """Pass on messages; yields regularly so that the caller can check for the end, returns after `seconds`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                feed, message = self._heard.get(timeout=min(left, LOOK_PERIOD))
            except queue.Empty:
                yield
                continue
            self._take(feed, message)

    def _take(self, feed: Feed, message: Any) -> None:
        """Have a message shown; one that cannot be shown does not end the view."""
        try:
            feed.take(message)
        except Exception as error:
            self._node.node.callback_raised(self.topic(feed.topic), error)

    def topic(self, name: str) -> str:
        """A topic of the robot, in its namespace."""
        return resolve(self._namespace, name)

    def _store(self, feed: Feed) -> Callable[[Any], None]:
        is_image = "Image" in feed.type

        def store(message: Any) -> None:
            if self._heard.qsize() < (IMAGES_WAITING if is_image else MOST_WAITING):
                self._heard.put((feed, message))

        return store


@contextmanager
def live_graph(namespace: str) -> Iterator[LiveGraph]:
    """Join the graph in this shell's ROS_DOMAIN_ID."""
    os.environ.update(ros_environment())
    with SpinningNode("qwen_vla_view", int(os.environ.get("ROS_DOMAIN_ID") or 0)) as node:
        yield LiveGraph(node, namespace)
