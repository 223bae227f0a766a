# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla view` beside a running robot: a process that listens, ends on a signal, and leaves complete files."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_vla_msgs.msg import ActionChunk, ChunkReport
from qwen_vla_ros.ros.environment import ros_environment

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def view(tmp_path):
    """Start the command with options; it is killed at the end if still running."""
    started = []

    def start(*options: object) -> subprocess.Popen:
        command = [PROGRAMS / "qwen-vla", "view", *map(str, options)]
        log = (tmp_path / "view.log").open("wb")
        started.append(subprocess.Popen(command, env=ros_environment(), stdout=log, stderr=subprocess.STDOUT))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
    if started:
        print((tmp_path / "view.log").read_text())


def ended(peer, process, accepted, reports) -> bool:
    """Act as policy and executor until the process has ended."""
    chunk = peer.chunk()
    peer.send(chunk)
    accepted.publish(chunk)
    reports.publish(ChunkReport(chunk_id=chunk.chunk_id, verdict=ChunkReport.ACCEPTED))
    return process.poll() is not None


@pytest.fixture(scope="module")
def executor(peer):
    """The publishers of an executor."""
    return (
        peer.node.create_publisher(ActionChunk, "executor_node/accepted_chunk", 10),
        peer.node.create_publisher(ChunkReport, "executor_node/chunk_report", 10),
    )


def test_an_image_of_the_running_robot(peer, executor, view, tmp_path):
    process = view("--png", tmp_path / "chunk.png", "--seconds", 2)
    peer.wait(lambda: ended(peer, process, *executor), "the end of the view")
    assert process.returncode == 0
    assert (tmp_path / "chunk.png").stat().st_size > 20_000
    assert "widowx: live" in (tmp_path / "view.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_ends_a_recording_that_can_be_read(peer, executor, view, tmp_path, number):
    pytest.importorskip("rerun", reason="the viewer is optional")
    file = tmp_path / "run.rrd"
    process = view("--save", file)

    def recorded() -> bool:
        assert not ended(peer, process, *executor), (tmp_path / "view.log").read_text()
        return file.is_file() and file.stat().st_size > 1_000_000  # more than the robot's shapes: it receives images

    peer.wait(recorded, "a recording")
    process.send_signal(number)
    assert process.wait(timeout=30) == (0 if number == signal.SIGINT else 128 + signal.SIGTERM)
    verified = subprocess.run(
        [PROGRAMS / "rerun", "rrd", "print", "-v", file], capture_output=True, text=True, timeout=60
    )
    assert verified.returncode == 0, verified.stderr
    for entity in ("/cameras/ego", "/world/robot/gripper_link", "/world/chunks/arm/accepted/line"):
        assert entity in verified.stdout


def test_without_a_robot_the_command_says_so(view, tmp_path):
    process = view("--png", tmp_path / "chunk.png", "--namespace", "elsewhere", "--wait", 0.5)
    assert process.wait(timeout=60) == 1
    said = (tmp_path / "view.log").read_text()
    assert process.returncode == 1, said
    assert "no robot_description on /elsewhere/robot_description" in said and "ROS_DOMAIN_ID" in said
    assert "Traceback" not in said
