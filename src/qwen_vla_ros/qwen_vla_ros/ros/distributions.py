"""The ROS distributions that the suite names, and all in which they differ for it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """What a distribution brings.

    Attributes:
        fast_dds: major version; the XML profile is found through another environment variable from 3 on.
        gazebo: the release that its ros_gz packages are built for.
        nav2_sends_stamped: whether Nav2 publishes velocities as TwistStamped unless told otherwise;
            diff_drive_controller takes no other.
    """

    fast_dds: int
    gazebo: str
    nav2_sends_stamped: bool


DISTRIBUTIONS = {
    "jazzy": Distribution(fast_dds=2, gazebo="Harmonic", nav2_sends_stamped=False),
    "kilted": Distribution(fast_dds=3, gazebo="Ionic", nav2_sends_stamped=True),
    "lyrical": Distribution(fast_dds=3, gazebo="Jetty", nav2_sends_stamped=True),
}


def distribution(name: str | None = None) -> Distribution:
    """The distribution of that name, of this shell's (ROS_DISTRO) by default; the newest where it is not known."""
    name = os.environ.get("ROS_DISTRO", "") if name is None else name
    return DISTRIBUTIONS.get(name, DISTRIBUTIONS["lyrical"])
