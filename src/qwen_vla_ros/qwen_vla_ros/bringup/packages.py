# SPDX-License-Identifier: Apache-2.0
"""The ROS packages that a start needs, checked before the first process, so that a missing one leaves nothing behind.

Free of `launch`. test_launch_files.py compares the tables with what is actually started.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix

CONTROL = ("controller_manager", "joint_state_broadcaster", "robot_state_publisher")
# Packages for a kind of hardware, whatever the robot; those of `real` are defined by each robot.
HARDWARE = {
    "mujoco": ("qwen_vla_sim",),
    "mock": CONTROL,
    "gazebo": (*CONTROL, "gz_ros2_control", "ros_gz_bridge", "ros_gz_sim"),
    "isaac": (*CONTROL, "joint_state_topic_hardware_interface"),
    "real": ("robot_state_publisher",),
}
FROM_SOURCE = ("interbotix_", "aloha")  # prefixes of packages that are not available through apt


class MissingPackages(RuntimeError):
    """ROS packages are not installed; the message names them and how to install them."""


def installed(package: str) -> bool:
    """Whether the ROS package is in the ament index."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def of_controllers(file: Path, controllers: Iterable[str]) -> list[str]:
    """The packages of controllers, by their types in the parameter file."""
    content = yaml.safe_load(file.read_text())
    types = {key.split("/")[-1]: value["ros__parameters"].get("type", "") for key, value in content.items()}
    return sorted({types[name].split("/")[0] for name in controllers if types.get(name)})


def require(packages: Iterable[str], why: str) -> None:
    """Check that all packages are installed.

    Args:
        packages: their names.
        why: what needs them, as the start of the message.

    Raises:
        MissingPackages: some are not installed.
    """
    missing = sorted({package for package in packages if not installed(package)})
    if missing:
        raise MissingPackages(
            f"{why} needs ROS packages that are not installed: {', '.join(missing)}. {_remedy(missing)}"
        )


def _remedy(missing: list[str]) -> str:
    source = [package for package in missing if package.startswith(FROM_SOURCE)]
    names = [f"ros-$ROS_DISTRO-{package.replace('_', '-')}" for package in missing if package not in source]
    apt = [f"sudo apt install {' '.join(names)}"] if names else []
    built = [f"{', '.join(source)}: from source, see docs/how-to/bring_up.md"] if source else []
    return "; ".join([*apt, *built])
