# SPDX-License-Identifier: Apache-2.0
"""The ROS distributions that the suite supports, and their differences."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")  # of Fast DDS 3, and of 2


@dataclass(frozen=True)
class Distribution:
    """Properties of a distribution.

    Attributes:
        fast_dds: major version.
        gazebo: the release for which its ros_gz packages are built.
        nav2_sends_stamped: whether Nav2 publishes velocities as TwistStamped unless told otherwise;
            its diff_drive_controller accepts only that type.
        tells_publishers: whether rclpy tells who published a message. Where it does not, publishers of a topic cannot
            be distinguished, only counted and named (docs/how-to/bring_up.md, Distributions).
    """

    fast_dds: int
    gazebo: str
    nav2_sends_stamped: bool
    tells_publishers: bool

    @property
    def profile_variable(self) -> str:
        """The environment variable by which Fast DDS finds its XML profile: 3 warns about that of 2."""
        return PROFILE_VARIABLES[self.fast_dds < 3]


DISTRIBUTIONS = {
    "jazzy": Distribution(fast_dds=2, gazebo="Harmonic", nav2_sends_stamped=False, tells_publishers=False),
    "kilted": Distribution(fast_dds=3, gazebo="Ionic", nav2_sends_stamped=True, tells_publishers=True),
    "lyrical": Distribution(fast_dds=3, gazebo="Jetty", nav2_sends_stamped=True, tells_publishers=True),
}


def distribution(name: str | None = None) -> Distribution:
    """The distribution of a name, by default this shell's (ROS_DISTRO); the newest if unknown."""
    name = os.environ.get("ROS_DISTRO", "") if name is None else name
    return DISTRIBUTIONS.get(name, DISTRIBUTIONS["lyrical"])


def of_wheels() -> str | None:
    """Name of the distribution that is installed from wheels in this Python environment; None if there is none."""
    for name in DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            version(f"ros-{name}-rclpy")
            return name
    return None
