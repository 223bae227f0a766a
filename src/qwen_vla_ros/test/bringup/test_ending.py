# SPDX-License-Identifier: Apache-2.0
"""However a launch ends: no process is left, a process that died gives a code other than 0, controllers end last.

With the real `launch` and processes that stand in for the robot's; skipped if only the wheels of ROS are installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("launch_ros")

# A part writes its process ID, then which signal ended it and when; it takes `linger` seconds to come to rest.
PART = """
import os, pathlib, signal, sys, time
name, linger, code = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
folder = pathlib.Path(sys.argv[4])

def end(number, frame):
    time.sleep(linger)
    (folder / f"{name}.ended").write_text(f"{number} {time.monotonic()}")
    os._exit(code)

signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
(folder / f"{name}.tmp").write_text(str(os.getpid()))
(folder / f"{name}.tmp").rename(folder / f"{name}.pid")
while True:
    signal.pause()
"""

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import ExecuteProcess
from qwen_vla_ros.bringup.ending import end_with, exit_code, last, with_launch

part, folder, kind = sys.argv[1:]

def process(name, linger=0.0, code=0, own_group=False, **options):
    command = [sys.executable, "-c", part, name, str(linger), str(code), folder]
    return ExecuteProcess(cmd=command, prefix=with_launch(own_group), sigterm_timeout="20", name=name, **options)

executor = process("executor", linger=1.0)
controllers = process("controllers", own_group=True)
simulator = process("simulator", code=3, on_exit=end_with("the simulator"))
service = LaunchService(noninteractive=kind == "script")
service.include_launch_description(
    LaunchDescription([exit_code(), executor, controllers, simulator, *last([controllers], executor)])
)
sys.exit(service.run())
"""
PARTS = ("executor", "controllers", "simulator")


class Launched:
    """A launch of three parts, in a session of its own as in a terminal."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, PART, str(folder), kind],
            env=os.environ | {"ROS_LOG_DIR": str(folder / "log")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.pids = {name: int(self._wait_for(f"{name}.pid")) for name in PARTS}

    def _wait_for(self, name: str) -> str:
        file = self.folder / name
        wait_until(file.exists, f"{name} of the launch", lambda: self.process.poll() is None)
        return file.read_text()

    def ended(self, name: str) -> tuple[int, float]:
        """The signal that ended a part, and when [s]."""
        number, moment = (self.folder / f"{name}.ended").read_text().split()
        return int(number), float(moment)

    def nobody_left(self) -> None:
        """Wait until all parts are gone."""
        wait_until(lambda: not any(map(alive, self.pids.values())), f"the end of {self.pids}")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], what: str, still: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert still() and time.monotonic() < deadline, f"not within 30 s: {what}"
        time.sleep(0.02)


@pytest.fixture(params=["terminal", "script"])
def launched(request: pytest.FixtureRequest, tmp_path: Path):
    """A running launch, from a terminal or from a script."""
    one = Launched(tmp_path, request.param)
    yield one
    for pid in [one.process.pid, *one.pids.values()]:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    one.process.communicate()


def test_a_part_that_died_ends_the_launch_with_a_code_and_a_reason(launched: Launched) -> None:
    os.kill(launched.pids["simulator"], signal.SIGINT)  # it exits on its own, with code 3
    output, _ = launched.process.communicate(timeout=30)
    assert launched.process.returncode == 1
    assert "simulator-" in output and "exited with code 3" in output
    launched.nobody_left()


@pytest.mark.parametrize("launched", ["terminal"], indirect=True)
def test_ctrl_c_in_a_terminal_reaches_the_controllers_when_the_robot_is_at_rest(launched: Launched) -> None:
    os.killpg(launched.process.pid, signal.SIGINT)  # like the terminal: everything in the foreground group
    launched.process.communicate(timeout=30)
    assert launched.process.returncode == 0
    launched.nobody_left()
    (_, at_rest), (number, gone) = launched.ended("executor"), launched.ended("controllers")
    assert number == signal.SIGINT and gone > at_rest


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
@pytest.mark.parametrize("launched", ["terminal"], indirect=True)
@pytest.mark.skipif(sys.platform != "linux", reason="uses a feature of the Linux kernel")
def test_a_launch_that_is_killed_leaves_no_process(launched: Launched, number: signal.Signals) -> None:
    os.kill(launched.process.pid, number)
    launched.process.communicate(timeout=30)
    assert launched.process.returncode != 0
    launched.nobody_left()
    assert launched.ended("executor")[0] == signal.SIGTERM  # it was able to stop the robot
    assert launched.ended("controllers")[0] == signal.SIGINT
