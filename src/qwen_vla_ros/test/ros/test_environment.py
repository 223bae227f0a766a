"""A process started with `ros_environment()` takes part in the graph, whatever shell started us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_vla_ros.ros.environment import RosEnvironmentError, find_workspace, ros_environment

WORKSPACE = find_workspace()
IMPORTS = """
import os, rclpy
from ament_index_python.packages import get_package_share_directory
from qwen_vla_msgs.msg import ActionChunk
from rclpy.serialization import serialize_message
serialize_message(ActionChunk())
print(get_package_share_directory("qwen_vla_msgs"), get_package_share_directory("std_msgs"), sep="\\n")
"""


@pytest.fixture(autouse=True)
def wheels() -> None:
    if not Path(sys.prefix, "share", "ament_index", "resource_index", "packages", "rclpy").is_file():
        pytest.skip("ROS 2 is not from wheels here")


def test_messages_and_packages_are_found_from_an_empty_environment() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=ros_environment(base={}), capture_output=True, text=True, check=True
    )
    ours, theirs = map(Path, result.stdout.splitlines())
    assert ours.is_relative_to(WORKSPACE / "install")
    assert theirs.is_relative_to(sys.prefix)


def test_the_users_settings_win() -> None:
    base = {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp", "FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml", "ROS_DOMAIN_ID": "7"}
    environment = ros_environment(base=base)
    assert base.items() <= environment.items()
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in environment


def test_search_paths_are_extended_once() -> None:
    once = ros_environment(base={"AMENT_PREFIX_PATH": "/opt/mine", "LD_LIBRARY_PATH": "/opt/mine/lib"})
    assert ros_environment(base=once) == once
    assert once["AMENT_PREFIX_PATH"].endswith(":/opt/mine")
    assert once["LD_LIBRARY_PATH"].endswith(":/opt/mine/lib")


def test_the_profile_is_a_file() -> None:
    assert Path(ros_environment(base={})["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_another_ros_installation_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").touch()
    program = "from qwen_vla_ros.ros.environment import ros_environment\nros_environment()"
    result = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert RosEnvironmentError.__name__ in result.stderr
    assert str(tmp_path / "rclpy") in result.stderr
    assert "unset PYTHONPATH" in result.stderr
