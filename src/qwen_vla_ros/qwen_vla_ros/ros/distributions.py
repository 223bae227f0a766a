# SPDX-License-Identifier: Apache-2.0
"""The ROS distributions that the suite supports, and their differences."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Distribution:
    """Properties of a distribution.

    Attributes:
        fast_dds: major version; from 3 on, the XML profile is found through another environment variable.
        gazebo: the release for which its ros_gz packages are built.
        nav2_sends_stamped: whether Nav2 publishes velocities as TwistStamped unless told otherwise;
            its diff_drive_controller accepts only that type.
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
    """The distribution of a name, by default this shell's (ROS_DISTRO); the newest if unknown."""
    name = os.environ.get("ROS_DISTRO", "") if name is None else name
    return DISTRIBUTIONS.get(name, DISTRIBUTIONS["lyrical"])
