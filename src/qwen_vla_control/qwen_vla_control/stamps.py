"""Time as it is counted everywhere in this suite: nanoseconds, as integers, of the clock that stamps the messages."""

from __future__ import annotations

from typing import Any

NANOSECONDS = 1_000_000_000  # in a second


def nanoseconds(time: Any) -> int:
    """Nanoseconds of a builtin_interfaces Time or Duration, or of what a bag holds in its place."""
    return time.sec * NANOSECONDS + time.nanosec


def stamp_of(message: Any) -> int:
    """When a message with a header was made [ns, ROS time]."""
    return nanoseconds(message.header.stamp)
