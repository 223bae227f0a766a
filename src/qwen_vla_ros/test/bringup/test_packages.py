# SPDX-License-Identifier: Apache-2.0
"""Missing ROS packages are named, all at once, with the command to install them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_vla_ros.bringup import packages

REPOSITORY = Path(__file__).resolve().parents[4]


def test_all_missing_packages_are_named_at_once_with_their_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed", lambda package: package == "rclpy")
    with pytest.raises(packages.MissingPackages) as raised:
        packages.require(["rclpy", "ros_gz_sim", "interbotix_xs_sdk", "ros_gz_bridge"], "widowx with hardware:=gazebo")
    assert str(raised.value) == (
        "widowx with hardware:=gazebo needs ROS packages that are not installed: interbotix_xs_sdk, ros_gz_bridge, "
        "ros_gz_sim. sudo apt install ros-$ROS_DISTRO-ros-gz-bridge ros-$ROS_DISTRO-ros-gz-sim; "
        "interbotix_xs_sdk: from source, see docs/how-to/bring_up.md"
    )


def test_installed_packages_are_found_in_the_ament_index() -> None:
    assert packages.installed("rclpy") and not packages.installed("no_such_package")
    packages.require(["rclpy"], "this test")


@pytest.mark.parametrize("robot, controller, package", [
    ("widowx", "arm_controller", "joint_trajectory_controller"),
    ("mobile_base", "diff_drive_controller", "diff_drive_controller"),
])  # fmt: skip
def test_controllers_come_from_the_packages_of_their_types(robot: str, controller: str, package: str) -> None:
    file = REPOSITORY / "config" / "controllers" / f"{robot}.yaml"
    assert packages.of_controllers(file, [controller]) == [package]
