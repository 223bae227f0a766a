"""The launch files say what they offer, start only what exists, and leave nothing behind.

They need the real `launch` and `launch_ros`, which a ROS installation has and the wheels have not.
"""

import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("launch_ros")

import rclpy
from catkin_pkg.package import parse_package
from launch import LaunchContext
from launch.utilities import perform_substitutions
from launch_ros.actions import Node
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor

REPOSITORY = Path(__file__).resolve().parents[3]
LAUNCH_FILE = REPOSITORY / "launch" / "widowx.launch.py"
OWN_PACKAGES = ("qwen_vla_ros", "qwen_vla_sim")
# Not in the ROS package index; the user of the real arm has them, installed by Interbotix' script.
VENDOR_PACKAGES = ("interbotix_xs_sdk",)


@pytest.fixture(scope="module")
def launch_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("widowx_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started_nodes(module: ModuleType, hardware: str) -> list[Node]:
    """All Node actions for one value of `hardware`; a condition counts as true."""
    context = LaunchContext()
    context.launch_configurations["hardware"] = hardware
    return [*module.robot(context), *module.policy_and_executor(), module.rviz()]


def name_of(substitutions: object) -> str:
    return substitutions if isinstance(substitutions, str) else perform_substitutions(LaunchContext(), substitutions)


def test_arguments(launch_module: ModuleType) -> None:
    arguments = {a.name: a for a in launch_module.generate_launch_description().get_launch_arguments()}
    assert set(arguments) == {
        "hardware", "policy", "namespace", "use_sim_time", "autostart", "rviz", "log_level", "seed"
    }  # fmt: skip
    assert arguments["hardware"].choices == ["mujoco", "mock", "real"]
    for argument in arguments.values():
        assert argument.description
        assert argument.default_value is not None
        default = perform_substitutions(LaunchContext(), argument.default_value)
        assert argument.choices is None or default in argument.choices


@pytest.mark.parametrize("hardware", ["mujoco", "mock", "real"])
def test_everything_that_is_started_exists(launch_module: ModuleType, hardware: str) -> None:
    declared = {d.name for d in parse_package(REPOSITORY / "src" / "qwen_vla_ros").exec_depends}
    scripts = {
        package: {e.name for e in importlib.metadata.distribution(package).entry_points if e.group == "console_scripts"}
        for package in OWN_PACKAGES
    }
    started = [(name_of(n.node_package), name_of(n.node_executable)) for n in started_nodes(launch_module, hardware)]
    for package, executable in started:
        if package in OWN_PACKAGES:
            assert executable in scripts[package]
        else:
            assert package in declared or package in VENDOR_PACKAGES, f"qwen_vla_ros/package.xml lacks {package}"
    assert {executable for package, executable in started if package == "qwen_vla_ros"} == scripts["qwen_vla_ros"]
    assert ("widowx_sim" in {executable for _, executable in started}) == (hardware == "mujoco")


@pytest.mark.parametrize("use_sim_time, hardware, expected", [
    ("auto", "mujoco", "true"), ("auto", "mock", "false"), ("auto", "real", "false"),
    ("true", "real", "true"), ("false", "mujoco", "false"),
])  # fmt: skip
def test_time_follows_the_simulator(launch_module: ModuleType, use_sim_time: str, hardware: str, expected: str) -> None:
    context = LaunchContext()
    context.launch_configurations.update(use_sim_time=use_sim_time, hardware=hardware)
    assert launch_module.USE_SIM_TIME.perform(context) == expected


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """The launch file, run by launch's own service in a process group of its own."""
    program = (
        "import sys, launch\n"
        "from launch.actions import IncludeLaunchDescription\n"
        "from launch.launch_description_sources import AnyLaunchDescriptionSource\n"
        "service = launch.LaunchService(noninteractive=True)\n"
        "source = AnyLaunchDescriptionSource(sys.argv[1])\n"
        "service.include_launch_description(launch.LaunchDescription([IncludeLaunchDescription(source)]))\n"
        "sys.exit(service.run())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, LAUNCH_FILE],
        env=os.environ | {"ROS_LOG_DIR": str(tmp_path)},
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], bool], executor: SingleThreadedExecutor, what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        executor.spin_once(timeout_sec=0.1)


def test_all_nodes_become_active_and_ctrl_c_ends_them_all(launched: subprocess.Popen) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    node = rclpy.create_node("watcher", context=context)
    executor.add_node(node)
    try:
        clients = [node.create_client(GetState, f"{name}/get_state") for name in ("policy_node", "executor_node")]

        def active() -> bool:
            assert launched.poll() is None, "launch ended by itself"
            for client in clients:
                if not client.service_is_ready():
                    return False
                future = client.call_async(GetState.Request())
                executor.spin_until_future_complete(future, timeout_sec=1.0)
                if not future.done() or future.result().current_state.id != State.PRIMARY_STATE_ACTIVE:
                    return False
            return True

        wait_until(active, executor, "policy_node and executor_node are active", 90.0)
        assert {"widowx_sim", "trajectory_visualizer"} <= set(node.get_node_names())
        launched.send_signal(signal.SIGINT)
        assert launched.wait(timeout=30) == 0
    finally:
        rclpy.shutdown(context=context)
    with pytest.raises(ProcessLookupError):  # nobody is left in its session
        os.killpg(launched.pid, 0)
