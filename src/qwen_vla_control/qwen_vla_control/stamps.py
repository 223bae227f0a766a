# SPDX-License-Identifier: Apache-2.0
"""Time, everywhere in this suite: integer nanoseconds of the clock that stamps the messages."""

from __future__ import annotations

from typing import Any

NANOSECONDS = 1_000_000_000  # in a second


def nanoseconds(time: Any) -> int:
    """Nanoseconds of a builtin_interfaces Time or Duration, or of its counterpart from a bag."""
    return time.sec * NANOSECONDS + time.nanosec


def stamp_of(message: Any) -> int:
    """Stamp of a message with a header [ns, ROS time]."""
    return nanoseconds(message.header.stamp)
