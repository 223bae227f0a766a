# SPDX-License-Identifier: Apache-2.0
"""A node in a thread of its own ends whenever its owner has had enough."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from qwen_vla_ros.ros.spinning_node import ListeningNode, SpinningNode

SUSPENDED = 0.3  # [s] of a thread, as on a busy machine


class SlowNode(ListeningNode):
    """Suspends its thread whenever that has decided to wait, and has not begun to."""

    deciding: threading.Event | None = None

    @property
    def guards(self) -> Iterator:
        if self.deciding is not None:
            self.deciding.set()
            threading.Event().wait(SUSPENDED)
        return super().guards


@pytest.mark.timeout(60)
def test_it_ends_also_when_its_thread_is_about_to_wait():
    slow = SpinningNode("slow", int(os.environ["ROS_DOMAIN_ID"]), SlowNode)
    slow.node.deciding = deciding = threading.Event()
    with slow:
        assert deciding.wait(30)
    assert not slow._thread.is_alive()


@pytest.mark.timeout(60)
def test_what_was_begun_in_its_thread_is_finished_before_it_ends():
    done = []
    with SpinningNode("busy", int(os.environ["ROS_DOMAIN_ID"])) as busy:
        busy._executor.create_task(lambda: done.append(threading.current_thread().name))
    assert done == ["busy"]


def test_one_that_never_ran_can_be_closed():
    SpinningNode("idle", int(os.environ["ROS_DOMAIN_ID"])).close()
