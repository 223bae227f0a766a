# SPDX-License-Identifier: Apache-2.0
"""The node of a simulated robot as its parts see it: what they share is guarded by one lock."""

from __future__ import annotations

import threading
from typing import Any

from qwen_vla_rclpy.guarded_node import GuardedNode


class LockedNode(GuardedNode):
    """A node with a lock.

    Attributes:
        frame: of joint states.
        lock: guards the robot, the mode, and the order of what is published about them.
    """

    frame = "base_link"

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.lock = threading.RLock()
