# SPDX-License-Identifier: Apache-2.0
"""The program that checks a real controller_manager: its messages, what it leaves alone, and its scenes here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from embodiment_descriptions import load_robot
from qwen_vla_ros.ros.environment import ros_environment
from qwen_vla_ros.simulation.child_processes import ChildProcesses

SCRIPT = Path(__file__).resolve().parent.parent / "scripts/real_controllers.py"
S = 10**9
ACCEPTED = {
    *("good", "two points", "without velocities", "other order", "stamp in the future", "stamp that runs"),
    *("with accelerations", "velocity on the way", "first point at zero", "beyond a limit", "too fast"),
}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("real_controllers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(("name", "controller"), [("widowx", "arm_controller"), ("aloha", "follower_left_controller")])
def test_the_simulated_controller_judges_the_messages_as_the_page_says(script, name, controller):
    robot = load_robot(name)
    names = list(script.controlled(name, controller))
    home = [robot.home[name] for name in names]
    sent = script.messages(names, home, 10 * S)
    verdicts = {name: script.simulated_verdict(one.message, names, home, 10 * S) for name, one in sent.items()}
    assert len(sent) == 30
    assert {name for name, verdict in verdicts.items() if verdict == "accepted"} == ACCEPTED
    stricter = {name for name, one in sent.items() if one.stricter}
    assert stricter == {"joint named twice", "NaN position", "infinite position", "NaN velocity"}


def test_a_point_keeps_its_time_and_its_fields(script):
    message = script.trajectory(["waist"], (1.25, [0.5], [0.1], [], [2.0]), stamp_ns=3 * S + 5)
    (point,) = message.points
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (1, 250_000_000)
    assert (list(point.positions), list(point.velocities), list(point.effort)) == ([0.5], [0.1], [2.0])
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (3, 5)


def test_a_robot_is_checked_by_controllers_that_share_no_joint_and_leave_none_out(script):
    for name, controllers in script.CONTROLLERS.items():
        joints = [joint for controller in controllers for joint in script.controlled(name, controller)]
        assert sorted(joints) == sorted(load_robot(name).joint_names)


def test_a_joint_that_is_nowhere_went_infinitely_far(script):
    assert script.longest({"waist": 0.25, "elbow": 1.0}, {"waist": 0.75, "elbow": 1.0}) == 0.5
    assert script.longest({"waist": 0.25}, {"waist": float("nan")}) == float("inf")
    assert script.longest({}, {"waist": 0.25}) == 0.0


def run(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, env=ros_environment(), capture_output=True, text=True, timeout=timeout)


def test_without_a_controller_manager_it_says_so_in_one_line_and_ends_well():
    done = run()
    assert done.returncode == 0 and done.stdout.startswith("skipped: ") and len(done.stdout.splitlines()) == 1


@pytest.mark.timeout(600)
def test_the_scenes_go_as_they_must_in_front_of_the_simulated_controllers(tmp_path):
    pytest.importorskip("controller_manager_msgs", reason="apt install ros-jazzy-controller-manager-msgs")
    pytest.importorskip("control_msgs", reason="apt install ros-jazzy-control-msgs")
    simulator = [Path(sys.executable).parent / "widowx_sim", "--ros-args", "-p", "image_rate:=0.0"]
    with ChildProcesses(tmp_path) as processes:
        processes.start("widowx_sim", list(map(str, simulator)), ros_environment())
        done = run("--use-sim-time", "--only", "scenes", timeout=500.0)
    assert done.returncode == 0, done.stdout
    assert "everything as it must be" in done.stdout
