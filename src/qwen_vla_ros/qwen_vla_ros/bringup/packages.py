"""The ROS packages that a start needs, looked up before the first process: what is missing then leaves nobody behind.

Free of `launch`. test_launch_files.py compares the tables with what is started.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix

CONTROL = ("controller_manager", "joint_state_broadcaster", "robot_state_publisher")
# What a kind of hardware needs, whatever the robot; `real` is said by each robot.
HARDWARE = {
    "mujoco": ("qwen_vla_sim",),
    "mock": CONTROL,
    "gazebo": (*CONTROL, "gz_ros2_control", "ros_gz_bridge", "ros_gz_sim"),
    "isaac": (*CONTROL, "joint_state_topic_hardware_interface"),
    "real": ("robot_state_publisher",),
}
FROM_SOURCE = ("interbotix_", "aloha")  # beginnings of the names of packages that apt does not have


class MissingPackages(RuntimeError):
    """ROS packages are not installed; the message names them and says how they are installed."""


def installed(package: str) -> bool:
    """True when the ROS package is in the ament index."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def of_controllers(file: Path, controllers: Iterable[str]) -> list[str]:
    """The packages of controllers, by the types that the parameter file gives them."""
    content = yaml.safe_load(file.read_text())
    types = {key.split("/")[-1]: value["ros__parameters"].get("type", "") for key, value in content.items()}
    return sorted({types[name].split("/")[0] for name in controllers if types.get(name)})


def require(packages: Iterable[str], why: str) -> None:
    """Look all packages up.

    Args:
        packages: their names.
        why: what needs them, the beginning of a sentence.

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
