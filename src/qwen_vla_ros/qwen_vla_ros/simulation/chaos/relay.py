# SPDX-License-Identifier: Apache-2.0
r"""Forwards messages, drops some, and delivers some late or out of order: a bad network as a process.

python -m qwen_vla_ros.simulation.chaos.relay --seed 0 \
    --topic ego/image_raw sensor_msgs/msg/Image chaos/ego/image_raw best_effort
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import itertools
import random
import time
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from qwen_vla_ros.ros.plain_node import run

FLUSH_PERIOD = 0.005  # [s]
LOSS = 0.05  # of the messages
LATE = 0.10  # of the messages
LONGEST_DELAY = 0.5  # [s]
OUTAGE_EVERY = 10.0  # [s] on average, per topic
LONGEST_OUTAGE = 1.0  # [s]


class Relay(Node):
    """One subscription and one publisher per topic."""

    def __init__(self, topics: list[list[str]], seed: int) -> None:
        """`topics`: name, type, new name and reliability (reliable, best_effort) of each."""
        super().__init__("chaos_relay")
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Any, Any]] = []  # due, order, publisher, message
        self._silent_until = {name: 0.0 for name, *_ in topics}
        for name, kind, new_name, reliability in topics:
            qos = QoSProfile(depth=10, reliability=ReliabilityPolicy[reliability.upper()])
            package, _, type_name = kind.split("/")
            message_type = getattr(importlib.import_module(f"{package}.msg"), type_name)
            publisher = self.create_publisher(message_type, new_name, qos)
            self.create_subscription(message_type, name, partial(self._take, name, publisher), qos)
        self.create_timer(FLUSH_PERIOD, self._flush, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.create_timer(1.0, self._maybe_outage, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _take(self, name: str, publisher, message) -> None:
        now, draw = time.monotonic(), self._random.random()
        if draw < LOSS or now < self._silent_until[name]:
            return
        if draw < LOSS + LATE:
            due = now + self._random.uniform(0.0, LONGEST_DELAY)
            heapq.heappush(self._waiting, (due, next(self._order), publisher, message))
        else:
            publisher.publish(message)

    def _flush(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, publisher, message = heapq.heappop(self._waiting)
            publisher.publish(message)

    def _maybe_outage(self) -> None:
        for name in self._silent_until:
            if self._random.random() < 1.0 / OUTAGE_EVERY:
                self._silent_until[name] = time.monotonic() + self._random.uniform(0.1, LONGEST_OUTAGE)


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--topic", nargs=4, action="append", required=True)
    options = parser.parse_args()
    run(lambda: Relay(options.topic, options.seed))


if __name__ == "__main__":
    main()
