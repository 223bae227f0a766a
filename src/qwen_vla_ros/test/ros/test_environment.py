# SPDX-License-Identifier: Apache-2.0
"""Processes join the user's graph as configured, or a graph of our own, whatever shell started them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_vla_ros.ros.distributions import PROFILE_VARIABLES, distribution
from qwen_vla_ros.ros.environment import (
    RosEnvironmentError,
    adopted,
    find_workspace,
    ignored_settings,
    own_environment,
    ros_environment,
    without_shared_memory,
)
from qwen_vla_ros.ros.ros_domain import AVOIDED

WORKSPACE = find_workspace()
IMPORTS = """
import os, rclpy
from ament_index_python.packages import get_package_share_directory
from qwen_vla_msgs.msg import ActionChunk
from rclpy.serialization import serialize_message
serialize_message(ActionChunk())
print(get_package_share_directory("qwen_vla_msgs"), get_package_share_directory("std_msgs"), sep="\\n")
"""
# What a .bashrc may set.
SETTINGS = {
    "RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp",
    "CYCLONEDDS_URI": "file:///mine.xml",
    "FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml",
    "RMW_FASTRTPS_PUBLICATION_MODE": "SYNCHRONOUS",
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
    "ROS_DISCOVERY_SERVER": "10.0.0.1:11811",
    "ROS_DISTRO": "humble",
    "ROS_DOMAIN_ID": "7",
    "ROS_LOCALHOST_ONLY": "1",
    "ROS_SECURITY_ENABLE": "true",
    "ROS_STATIC_PEERS": "10.0.0.1",
    "ZENOH_ROUTER_CHECK_ATTEMPTS": "-1",
}
OWN_GRAPH = """
import os, sys
from qwen_vla_ros.ros.environment import in_own_environment
print("began", os.getpid(), flush=True)
with in_own_environment():
    import rclpy
    from qwen_vla_msgs.msg import ActionChunk
    context = rclpy.Context()
    context.init(domain_id=int(sys.argv[1]))
    rclpy.create_node("one_of_ours", context=context).destroy_node()
    context.shutdown()
    print(rclpy.__file__, os.environ["LD_LIBRARY_PATH"], sep="\\n")
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
    assert Path(ros_environment(base={})[distribution().profile_variable]).is_file()


def test_another_ros_installation_that_hides_ours_is_named(tmp_path: Path) -> None:
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


# A graph of our own --------------------------------------------------------------------------------------------------


def test_no_setting_of_the_shell_reaches_a_graph_of_our_own() -> None:
    own = own_environment(base=SETTINGS | {"HOME": "/home/me", "ROS_LOG_DIR": "/logs"})
    assert own.pop(AVOIDED) == "7"  # a robot may be using it
    assert own == own_environment(base={"HOME": "/home/me", "ROS_LOG_DIR": "/logs"})
    assert own["RMW_IMPLEMENTATION"] == "rmw_fastrtps_cpp" and "ROS_DOMAIN_ID" not in own
    assert Path(own[distribution().profile_variable]).is_file()


def test_each_setting_that_is_ignored_is_named_and_no_other() -> None:
    harmless = {"HOME": "/home/me", "ROS_LOG_DIR": "/logs", "ROS_VERSION": "", "LD_LIBRARY_PATH": "/opt/cuda/lib"}
    assert ignored_settings(harmless | SETTINGS) == sorted(SETTINGS)
    assert ignored_settings(harmless) == []
    own = own_environment(base={})
    assert ignored_settings(own) == []  # a command started by one of ours ignores nothing


def test_search_paths_of_another_installation_are_left_out() -> None:
    theirs = {
        "AMENT_PREFIX_PATH": "/home/me/ws/install/mine:/opt/ros/jazzy",
        "CMAKE_PREFIX_PATH": "/opt/ros/jazzy",
        "COLCON_PREFIX_PATH": "/home/me/ws/install",
        "PYTHONPATH": "/home/me/ws/install/mine/lib/site-packages:/opt/ros/jazzy/lib/python3.12/site-packages",
        "LD_LIBRARY_PATH": "/opt/cuda/lib:/home/me/ws/install/mine/lib:/opt/ros/jazzy/lib",
    }
    own = own_environment(base=theirs)
    clean = own_environment(base={"LD_LIBRARY_PATH": "/opt/cuda/lib"})
    assert {name: value for name, value in own.items() if value} == clean
    assert own["LD_LIBRARY_PATH"].endswith(":/opt/cuda/lib")
    assert ignored_settings(theirs) == list(theirs)


def test_our_own_workspace_may_be_sourced() -> None:
    folder = WORKSPACE / "install" / "qwen_vla_msgs"
    base = own_environment(base={}) | {
        "COLCON_PREFIX_PATH": str(folder.parent),
        "PYTHONPATH": str(folder / "lib/python3.11/site-packages"),
    }
    assert ignored_settings(base) == []


def test_an_environment_is_adopted_and_restored(monkeypatch) -> None:
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    before = dict(os.environ)
    with adopted(own_environment() | {"ROS_DOMAIN_ID": "5"}):
        assert "ROS_LOCALHOST_ONLY" not in os.environ and os.environ["ROS_DOMAIN_ID"] == "5"
    assert os.environ == before


def own_graph(base: dict[str, str], home: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", OWN_GRAPH, os.environ["ROS_DOMAIN_ID"]]
    return subprocess.run(command, env=base | {"HOME": str(home)}, capture_output=True, text=True, timeout=60)


def test_a_command_with_a_graph_of_its_own_runs_in_a_shell_with_settings(tmp_path: Path) -> None:
    done = own_graph(SETTINGS, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ROS settings of this shell are ignored: {', '.join(sorted(SETTINGS))} (")
    assert done.stdout.count("began") == 1


def test_it_starts_again_without_another_installation(tmp_path: Path) -> None:
    """The other one is first on every search path; its rclpy and its libraries must not be loaded."""
    modules, libraries = tmp_path / "lib/python3.11/site-packages", tmp_path / "lib"
    (modules / "rclpy").mkdir(parents=True)
    (modules / "rclpy" / "__init__.py").write_text("raise ImportError('of another ROS installation')")
    (libraries / "librcl.so").write_bytes(b"no library")
    theirs = {"PYTHONPATH": str(modules), "AMENT_PREFIX_PATH": str(tmp_path), "LD_LIBRARY_PATH": str(libraries)}
    done = own_graph(theirs | {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "RMW_IMPLEMENTATION, AMENT_PREFIX_PATH, PYTHONPATH, LD_LIBRARY_PATH (" in line
    first, second, rclpy, paths = done.stdout.splitlines()
    assert first == second  # the same process, from its beginning
    assert Path(rclpy).is_relative_to(sys.prefix) and str(tmp_path) not in paths


# What may hold up a process ------------------------------------------------------------------------------------------

MAPPED = """
import rclpy
rclpy.init()
node = rclpy.create_node("one_of_ours")
print(sum("/dev/shm/fast" in line for line in open("/proc/self/maps")))
"""


def shared_segments(environment: dict[str, str]) -> int:
    """The segments of shared memory that the middleware of a process with one node has mapped."""
    domain = {"ROS_DOMAIN_ID": os.environ["ROS_DOMAIN_ID"]}
    command = [sys.executable, "-c", MAPPED]
    return int(subprocess.run(command, env=environment | domain, capture_output=True, text=True, check=True).stdout)


def test_a_graph_of_our_own_has_no_shared_memory() -> None:
    """Of a killed process a lock may stay behind in it, for which others wait for seconds."""
    assert shared_segments(own_environment(base={"HOME": "/"})) == 0


@pytest.mark.parametrize("name", ["ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST", "ROS_LOCALHOST_ONLY=1", "HOME=/"])
def test_a_node_without_images_has_none_in_the_users_graph_either(name: str) -> None:
    user = {"HOME": "/"} | dict([name.split("=")])
    with_images = ros_environment(base=user)
    assert shared_segments(with_images) > 0
    assert shared_segments(without_shared_memory(with_images)) == 0
    plain = {variable: value for variable, value in with_images.items() if variable not in PROFILE_VARIABLES}
    assert shared_segments(without_shared_memory(plain)) == 0  # started without a launch file of ours


@pytest.mark.parametrize("user", [{"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}, {"ROS_STATIC_PEERS": "10.0.0.1"}])
def test_the_users_profile_and_peers_are_kept(user: dict[str, str]) -> None:
    before = ros_environment(base=user | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"})
    assert without_shared_memory(before) == before
