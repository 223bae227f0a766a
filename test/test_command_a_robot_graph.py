# SPDX-License-Identifier: Apache-2.0
"""examples/command_a_robot.py as it stands, with a simulated robot and the shipped model."""

import subprocess
import sys
from pathlib import Path

from embodiment_descriptions import resource_path
from qwen_vla_ros.simulation.stack import simulated_stack
from qwen_vla_ros.simulation.task_client import TaskClient

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/command_a_robot.py"


def example(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, timeout=150)


def test_a_robot_is_commanded_and_its_joints_are_read(tmp_path: Path) -> None:
    with simulated_stack(resource_path("checkpoints/tiny"), tmp_path / "logs", speed=0.3) as stack:
        instruction = TaskClient(stack).reset(9009)
        done = example(instruction, "--timeout", "3", "--domain", str(stack.domain))
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    head, *joints = done.stdout.splitlines()
    assert head.startswith(f"{instruction}: timeout (chunks: ")
    moved = {name: values.split(" → ") for name, _, values in (line.strip().partition(": ") for line in joints[:8])}
    assert any(before != after for before, after in moved.values()) and "waist" in moved


def test_no_robot_is_said_with_what_to_do() -> None:
    done = example("wave", "--namespace", "nowhere", "--patience", "1")
    assert done.returncode == 1 and done.stdout == ""
    assert "no /nowhere/executor_node is running in ROS domain" in done.stderr and "Traceback" not in done.stderr
