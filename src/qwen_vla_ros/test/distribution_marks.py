# SPDX-License-Identifier: Apache-2.0
"""Marks of tests that need what not every distribution of ROS 2 has."""

from __future__ import annotations

import pytest

from qwen_vla_ros.ros.distributions import distribution

TELLS_PUBLISHERS = pytest.mark.skipif(
    not distribution().tells_publishers,
    reason="the rclpy of Jazzy (7) does not tell who published a message: no publisher_gid in its message info",
)
