# SPDX-License-Identifier: Apache-2.0
"""Nodes that tests add to the graph: they spin in a thread of their own, and what they wait for must arrive."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Self

from rclpy.clock import Clock, ClockType

from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.ros.spinning_node import NoAnswer, SpinningNode, Value

PATIENCE = 60.0  # [s] generous: the machine may be busy


class SpinningPeer(SpinningNode):
    """A node in the domain of the tests."""

    poll_period = 0.02

    def __init__(self, name: str, **parameters: object) -> None:
        os.environ.update(ros_environment())
        super().__init__(name, int(os.environ["ROS_DOMAIN_ID"]), **parameters)

    def __enter__(self) -> Self:
        # Otherwise the garbage collector scans everything that other tests have imported, for 0.4 s and more: the
        # heartbeat stops meanwhile, and executor_node rightly holds the robot.
        gc.collect()
        gc.freeze()
        return super().__enter__()

    def close(self) -> None:
        super().close()
        gc.unfreeze()

    def every(self, period: float, callback: Callable[[], None]) -> None:
        """Call back every `period` [s] of steady time."""
        self.node.create_timer(period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def stamp(self):
        """Time of the node, as a message."""
        return self.node.get_clock().now().to_msg()

    def wait(self, condition: Callable[[], Value], what: str, timeout: float = PATIENCE) -> Value:
        """Return the first true value of a condition; fail after `timeout` [s]."""
        try:
            return super().wait(condition, what, timeout)
        except NoAnswer as error:
            raise AssertionError(f"{error}{self.hint()}") from None

    def hint(self) -> str:
        """Additional text when something is missing."""
        return ""


class ExecutorPeer(SpinningPeer):
    """Receives executor_node's reports on chunks.

    Attributes:
        reports: in order of arrival.
    """

    def __init__(self, name: str, **parameters: object) -> None:
        super().__init__(name, **parameters)
        self.reports: list[ChunkReport] = []
        self.hear(ChunkReport, "executor_node/chunk_report", self.reports.append, 50)

    def hint(self) -> str:
        return f"; reports: {self.reports[-5:]}"

    def report(self, number: int, verdict: int) -> ChunkReport:
        """Wait for a verdict on a chunk; fail at once when the chunk has ended otherwise."""

        def find() -> ChunkReport | None:
            verdicts = {r.verdict for r in self.reports if r.chunk_id == number} if number else set()  # 0: no chunk
            broken = verdict == ChunkReport.COMPLETED and verdicts & {ChunkReport.REFUSED, ChunkReport.HELD}
            assert not broken, f"chunk {number} was not completed: {self.reports}"
            return next((r for r in self.reports if (r.chunk_id, r.verdict) == (number, verdict)), None)

        return self.wait(find, f"report {verdict} of chunk {number}")

    def verdict(self, number: int) -> ChunkReport:
        """Wait for the first report on a chunk."""
        return self.wait(lambda: next((r for r in self.reports if r.chunk_id == number), None), f"verdict on {number}")
