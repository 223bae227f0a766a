# SPDX-License-Identifier: Apache-2.0
"""Every node's program says what it is and what it offers, and ends, without a ROS graph, a robot or torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

PACKAGES = ("qwen_vla_ros", "qwen_vla_sim")
PROGRAMS = [entry for entry in entry_points(group="console_scripts") if entry.dist.name in PACKAGES]


def say(program: str, *words: str) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).with_name(program), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_there_are_seven() -> None:
    assert len(PROGRAMS) == 7


@pytest.mark.parametrize("entry", PROGRAMS, ids=lambda entry: entry.name)
def test_help_says_what_it_is_and_ends(entry) -> None:
    done = say(entry.name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {entry.name} ")
    assert f"ros2 run {entry.dist.name} {entry.name} --ros-args" in done.stdout
    for title in ("parameters:", "publishes:", "subscribes to:", "offers "):
        assert f"\n{title}" in done.stdout


@pytest.mark.parametrize("entry", PROGRAMS, ids=lambda entry: entry.name)
def test_version_and_wrong_words(entry) -> None:
    assert say(entry.name, "--version").stdout == f"{entry.name} {version(entry.dist.name)}\n"
    wrong = say(entry.name, "--frequency", "5")
    assert wrong.returncode == 2 and "unknown argument '--frequency'" in wrong.stderr


@pytest.mark.parametrize("entry", PROGRAMS, ids=lambda entry: entry.name)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-p", "autostart"), "'-p autostart'"),
        (("--params-file", "nowhere.yaml"), "'--params-file nowhere.yaml'"),
        (("-p", "use_sim_time:=yess"), "'use_sim_time' to 'yess'"),
    ],
)
def test_what_ros_refuses_of_the_command_line_is_said_in_one_line(entry, words: tuple[str, ...], said: str) -> None:
    done = say(entry.name, "--ros-args", *words)
    *from_rcl, own = done.stderr.splitlines()
    assert done.returncode == 2 and len(from_rcl) <= 1, done.stderr
    assert own.startswith(f"{entry.name}: ") and said in own and own.endswith(f"; see {entry.name} --help")


def test_the_executor_and_its_help_do_without_torch() -> None:
    program = (
        "import sys; from qwen_vla_ros.executor.executor_node import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
