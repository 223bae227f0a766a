# SPDX-License-Identifier: Apache-2.0
"""`qwen-vla sim` and `qwen-vla say`, as a newcomer calls them: from a folder with a space, without a `ros2` command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from qwen_vla_ros.simulation.running_simulations import RunningSimulation, announced, running_simulations

COMMAND = str(Path(sys.executable).with_name("qwen-vla"))
DEADLINE = 150.0  # [s] generous: the machine may be busy
SLOWLY = ("--speed", "0.3")  # for the same reason


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("a place")


@pytest.fixture(scope="module")
def shell(place) -> dict[str, str]:
    """The environment of a shell in which nothing of ROS was sourced."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROS_", "RMW_", "FASTDDS_"))}
    return {**kept, "XDG_RUNTIME_DIR": str(place), "PYTHONUNBUFFERED": "1"}


def say(place: Path, shell: dict[str, str], *words: str) -> subprocess.CompletedProcess:
    command = [COMMAND, "say", *words]
    return subprocess.run(command, cwd=place, env=shell, capture_output=True, text=True, timeout=DEADLINE)


def interrupted(place: Path, shell: dict[str, str], instruction: str) -> int:
    """Exit code of a `say` that gets Ctrl-C as soon as its policy infers."""
    how = {"cwd": place, "env": shell, "text": True}
    command = [COMMAND, "say", instruction]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **how)
    for line in process.stderr:
        if line == "inferring\n":
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    return process.returncode


@contextmanager
def simulated(place: Path, shell: dict[str, str], *words: str):
    """A running `qwen-vla sim`; yields what it prints first."""
    command = [COMMAND, "sim", *words]
    process = subprocess.Popen(
        command, cwd=place, env=shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        told = ""
        for line in process.stdout:
            told += line
            if "Ctrl-C ends it" in line:
                break
        yield told
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, told + rest
    assert rest.endswith("the simulated robot has ended\n")


@pytest.mark.timeout(600)
def test_a_simulated_robot_is_told_what_to_do(place, shell) -> None:
    with simulated(place, shell, "widowx", "--seed", "9009", *SLOWLY) as told:
        assert 'next, in another shell:  qwen-vla say "' in told
        done = say(place, shell, "pick up the blue cube", "--timeout", "3")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("to the simulated widowx in ROS domain ")
        assert "“pick up the blue cube”: timeout (" in done.stderr and "(chunks: " in done.stderr
        assert interrupted(place, shell, "pick up the blue cube") == 130
        again = say(place, shell, "pick up the blue cube", "--timeout", "1")
        assert again.returncode in (0, 1), "the canceled instruction does not block the next"
        refused = say(place, shell, "pick up the blue cube", "--policy", "mock://hold")
        assert refused.returncode == 3 and "a /policy_node is already running" in refused.stdout
        empty = say(place, shell, "  ")
        assert empty.returncode == 1 and "instruction" in empty.stderr


@pytest.mark.timeout(600)
def test_a_policy_is_started_for_one_instruction(place, shell) -> None:
    with simulated(place, shell, "widowx", "--no-policy", "--logs", "sim logs", *SLOWLY):
        nobody = say(place, shell, "stand still")
        assert nobody.returncode == 3 and "start a policy with --policy" in nobody.stdout
        done = say(place, shell, "stand still", "--policy", "mock://hold", "--timeout", "2")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "(chunks: " in done.stderr and (place / "out/say/policy_node.log").is_file()
        assert "no heartbeat" not in (place / "sim logs/executor_node.log").read_text()
        wrong = say(place, shell, "stand still", "--policy", "chess://e4")
        assert wrong.returncode == 1 and "no package provides the policy" in wrong.stderr


def test_nobody_there_is_said_with_what_to_do(place, shell) -> None:
    done = say(place, shell, "wave", "--domain", "99")
    assert done.returncode == 3
    assert "no /policy_node is running in ROS domain 99; start a robot (qwen-vla sim widowx" in done.stdout


@pytest.mark.parametrize("words", [("spot",), ("widowx", "--seed", "30000"), ("widowx", "--policy", "nowhere")])
def test_what_cannot_be_simulated_is_refused_before_anything_starts(place, shell, words) -> None:
    command = [COMMAND, "sim", *words]
    done = subprocess.run(command, cwd=place, env=shell, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1 and done.stderr.startswith("qwen-vla: ") and done.stderr.count("\n") == 1


# Running simulations --------------------------------------------------------------------------------------------------


def test_a_simulation_is_found_while_its_process_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with announced("widowx", 7):
        (found,) = running_simulations()
        assert (found.robot, found.domain, found.process) == ("widowx", 7, os.getpid())
    assert running_simulations() == []


def test_the_file_of_a_process_that_was_killed_is_no_simulation(tmp_path, monkeypatch) -> None:
    """Even if another process has its ID now."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    left = RunningSimulation(robot="aloha", domain=3, process=os.getpid(), started=0.0)
    file = tmp_path / "qwen_vla/simulations/1.json"
    file.parent.mkdir(parents=True)
    file.write_text(left.model_dump_json())
    assert running_simulations() == [] and not file.exists()
