# SPDX-License-Identifier: Apache-2.0
"""The simulated stack starts, executes, reports what is wrong, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from embodiment_descriptions import resource_path
from qwen_vla.evaluation.in_process import evaluate as evaluate_in_process
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.evaluation.partial_results import PartialResults, Played, part_of
from qwen_vla.evaluation.summary import EpisodeRow, rows_of, summarize
from qwen_vla.suites import load_suite
from qwen_vla_control.reasons import Reason
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_ros.ros.environment import own_environment
from qwen_vla_ros.simulation.child_processes import ChildEnded
from qwen_vla_ros.simulation.over_ros import evaluate
from qwen_vla_ros.simulation.stack import (
    SIMULATORS,
    SimulatedWorld,
    StackError,
    node_command,
    node_parameters,
    simulated_stack,
    stack_environment,
    stack_host,
)
from qwen_vla_ros.simulation.task_client import Limits, Report, TaskClient, TaskRow, as_episode_row

DEADLINE = 120.0  # [s] generous: the machine may be busy
CHECKPOINT = resource_path("checkpoints/tiny")
NODES = {"widowx_sim", "policy_node", "executor_node", "trajectory_visualizer"}
PARENT = """
import sys
from pathlib import Path
from qwen_vla_ros.simulation.stack import simulated_stack
with simulated_stack(Path(sys.argv[1]), Path(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.read()  # forever
"""


def wait_until(condition, what: str) -> None:
    limit = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < limit, f"not within {DEADLINE} s: {what}"
        threading.Event().wait(0.02)


def nodes_of_this_process() -> list[psutil.Process]:
    """Children that are nodes; other tests of this process may have left multiprocessing's resource tracker."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any(node in " ".join(child.cmdline()) for node in NODES)]


@pytest.fixture(scope="class")
def running(tmp_path_factory):
    """A stack shared by several tests, and its processes, which must be gone afterwards."""
    with simulated_stack(CHECKPOINT, tmp_path_factory.mktemp("logs")) as stack:
        print(f"ready after {stack.start_seconds:.1f} s; peak RSS [MB]: {stack.processes.peak_rss_mb()}")
        children = nodes_of_this_process()
        yield stack
    psutil.wait_procs(children, DEADLINE)
    assert not [child for child in children if child.is_running()]


@pytest.fixture(scope="class")
def tasks(running):
    return TaskClient(running)


class TestWhileItRuns:
    def test_every_node_runs_in_a_process_of_its_own(self, running):
        assert NODES <= set(running.client.node.get_node_names())
        assert set(running.processes.peak_rss_mb()) == NODES
        running.processes.check()
        assert running.domain == int(os.environ["ROS_DOMAIN_ID"])
        assert running.processes.peak_rss_mb()["executor_node"] < 230

    def test_a_task_ends_at_its_step_limit(self, tasks):
        instruction = tasks.reset(7000)
        row = tasks.execute(Limits(timeout=60.0, steps=8))
        assert (row.seed, row.instruction, row.success, row.ended) == (7000, instruction, False, "step limit")
        assert row.target.split()[0] in instruction
        assert row.steps >= 8 and row.chunks + row.refused >= 1
        assert 0.3 < row.seconds < 30 and 0 < row.distance < 0.6
        assert 0 < row.latency_ms_p50 <= row.latency_ms_p99
        assert {report.chunk_id for report in row.reports} and all(report.verdict for report in row.reports)

    def test_a_task_ends_at_its_timeout(self, tasks):
        tasks.reset(7001)
        row = tasks.execute(Limits(timeout=1.0))
        assert (row.success, row.ended) == (False, "timeout") and row.seconds < 10

    def test_the_noise_is_reproducible(self, tasks):
        tasks.draw_from(7_000_000)
        tasks.draw_from(7_000_000 + 2**31)

    def test_an_impossible_scene_is_refused_with_its_seed(self, tasks):
        with pytest.raises(RuntimeError, match="seed -3"):
            tasks.reset(-3)

    def test_there_is_one_robot_in_a_domain(self, running, tmp_path):
        with stack_host(tmp_path) as other:
            assert other.domain != running.domain

    def test_a_node_that_dies_is_named(self, running, tasks):
        """Last of the tests that share the stack: it is incomplete afterwards."""
        pid = next(p.pid for p in psutil.Process().children() if "trajectory_visualizer" in " ".join(p.cmdline()))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildEnded, match="trajectory_visualizer was killed by SIGKILL"):
            tasks.wait_until(3600.0)


# One policy, several robots -------------------------------------------------------------------------------------------


def test_one_policy_node_serves_one_robot_after_another(tmp_path):
    policies = []
    with stack_host(tmp_path) as host:
        for world in (SimulatedWorld(), SimulatedWorld("mobile_base", "mobile_base")):
            with simulated_stack(CHECKPOINT, host, world=world) as stack:
                tasks = TaskClient(stack)
                instruction = tasks.reset(7000)
                assert instruction == load_suite(world.suite).make_env(cameras=False).reset(seed=7000)[1]["instruction"]
                row = tasks.execute(Limits(timeout=60.0, steps=8))
                assert row.ended == "step limit" and row.chunks + row.refused >= 1
                policies.append(host.processes.pids()["policy_node"])
            assert set(host.processes.pids()) == {"policy_node"}
    assert policies[0] == policies[1] and not nodes_of_this_process()


# Starting -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_simulator_that_cannot_render_is_reported_with_its_log(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setenv("DISPLAY", "")
    with pytest.raises(ChildEnded, match="(?s)widowx_sim ended with exit code 1; .*widowx_sim.log.*libegl1"):
        with simulated_stack(CHECKPOINT, tmp_path):
            pass
    assert not nodes_of_this_process()


@pytest.mark.slow
def test_a_policy_that_cannot_be_loaded_is_reported_with_its_log(tmp_path):
    with pytest.raises(StackError, match="(?s)policy_node cannot be configured.*policy_node.log.*config.json"):
        with simulated_stack(tmp_path, tmp_path / "logs"):
            pass
    assert not nodes_of_this_process()


def test_a_program_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(StackError, match=f"executor_node is not installed; searched {tmp_path}.*make setup"):
        node_command("executor_node", {}, {"AMENT_PREFIX_PATH": str(tmp_path)})


def test_nodes_get_the_parameters_of_the_launch_file(tmp_path):
    (tmp_path / "1e3").mkdir()  # a number to YAML, but a folder
    parameters = node_parameters(tmp_path / "1e3", {"euler_steps": 10})
    assert set(parameters) == NODES
    assert all(values["use_sim_time"] is True for values in parameters.values())
    command = node_command("policy_node", parameters["policy_node"], os.environ)
    assert command[1:] == [
        *("--ros-args", "-p", "use_sim_time:=true", "-p", "autostart:=true"),
        *("-p", f'policy:="{tmp_path}/1e3"', "-p", "euler_steps:=10"),
    ]
    environment = stack_environment(57, tmp_path)
    assert environment["ROS_DOMAIN_ID"] == "57" and environment.items() >= own_environment().items()


# Ending ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def parent(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(CHECKPOINT), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def end(parent: subprocess.Popen, number: signal.Signals) -> None:
    """Send a signal; all of the parent's children must be gone with it."""
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) == len(NODES)
    parent.send_signal(number)
    parent.wait(DEADLINE)
    psutil.wait_procs(children, DEADLINE)
    assert not [child for child in children if child.is_running()]


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="SIGINT"), pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.slow)],
)
def test_when_ended_during_startup_it_leaves_nothing(parent, number):
    def started():
        return len(psutil.Process(parent.pid).children(recursive=True)) == len(NODES)

    wait_until(started, "four children")
    end(parent, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_ended_while_running_it_leaves_nothing(parent, number):
    assert parent.stdout.readline() == "ready\n"
    end(parent, number)


# Evaluation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"blind": True}, "--blind"),
        ({"shuffle_instructions": True}, "--shuffle-instructions"),
        ({"prompt_of": "aloha"}, "--prompt-of"),
        ({"sheet": Path("sheet.png")}, "--sheet"),
        ({"shift": "dynamic"}, "widowx_pick.*dynamic"),
    ],
)
def test_what_ros_cannot_do_is_refused(changes, why):
    options = {"suite": "widowx_pick", "policy": "tiny", "episodes": 1, "seed": 7000, **changes}
    with pytest.raises(ValueError, match=why):
        evaluate(EvaluateOptions(**options))


def test_an_unknown_suite_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match="'mars'.*widowx_pick"):
        evaluate(EvaluateOptions("mars", "tiny", 1, 7000))


def test_every_robot_has_its_simulator(tmp_path):
    """Its own node with the requested scenes; without Nav2, the executor itself drives the base."""
    for robot in SIMULATORS:
        world = SimulatedWorld(robot, f"{robot}_suite", "colour", "a_task")
        parameters = node_parameters(tmp_path, {}, 0.5, world)[f"{robot}_sim"]
        assert parameters["suite"] == f"{robot}_suite" and parameters["shift"] == "colour"
        assert parameters["task"] == "a_task"
        assert parameters["realtime_factor"] == 0.5
        assert node_command(f"{robot}_sim", parameters, os.environ)[0].endswith(f"{robot}_sim")
    assert SIMULATORS["mobile_base"].remappings == {"executor_node": {"cmd_vel_nav": "cmd_vel"}}
    with pytest.raises(ValueError, match="'mars'.*mobile_base"):
        node_parameters(tmp_path, {}, 1.0, SimulatedWorld("mars"))


def test_trained_scenes_are_refused(tmp_path: Path):
    for file in CHECKPOINT.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "training.json").unlink()
    (tmp_path / "training.json").write_text('{"data": [{"seeds": [7000, 7100]}]}')
    with pytest.raises(ValueError, match="7000"):
        evaluate(EvaluateOptions("widowx_pick", str(tmp_path), 1, 7050))


def test_a_row_is_the_same_as_in_process():
    said = {"seed": 7, "instruction": "lift the red cube", "target": "red cube", "success": False}
    said |= {"refused": 1, "seconds": 8.2, "distance": 0.01, "ended": "step limit", "latency_ms_p50": 61.0}
    said |= {"task": "pick_cube", "failure": "not touched", "metrics": {"lift": 0.0}}
    reports = (
        Report(1, ChunkReport.HELD, (Reason.STOPPED,), "stopped"),
        Report(2, ChunkReport.REFUSED, (Reason.START_JUMP, Reason.SELF_COLLISION), "too far, and touching"),
    )
    row = TaskRow(chunks=4, steps=40, latency_ms_p99=75.0, reports=reports, **said)
    refusals = {"START_JUMP": 1, "SELF_COLLISION": 1}
    assert as_episode_row(row) == EpisodeRow(chunks=5, refusals=refusals, **said)


def test_an_evaluation_over_ros_runs_only_missing_episodes(tmp_path):
    """None is missing: no stack is started."""
    options = EvaluateOptions("widowx", "tiny", 2, 9000, json=tmp_path / "e.json")
    rows = [
        EpisodeRow(s, "lift", "red", True, 3, 0, 4.8, 0.02, "success", 50.0, "pick")
        for s in options.seeds(load_suite(options.suite))
    ]
    with PartialResults(options.json, options.suite, CHECKPOINT, options.conditions(over_ros=True)) as kept:
        for row in rows:
            kept.add(Played(row))
    summary = evaluate(options)
    assert rows_of(summary) == rows and summary["over_ros"] and part_of(options.json).is_file()
    with pytest.raises(ValueError, match="another over_ros"):
        evaluate_in_process(options)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_evaluation_over_ros_continues_where_it_was_interrupted(tmp_path):
    result = tmp_path / "e.json"
    command = [sys.executable, "-m", "qwen_vla.cli", "evaluate", "widowx", "--over-ros", "--episodes", "3"]
    command += ["--seed", "9000", "--policy", str(CHECKPOINT), "--json", str(result)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as first:
        wait_until(lambda: part_of(result).exists() and part_of(result).read_text().count("\n") == 2, "an episode")
        first.send_signal(signal.SIGINT)
        assert f"interrupted; {part_of(result)} keeps" in first.communicate(timeout=DEADLINE)[1]
        assert first.returncode == 130
    before = [json.loads(line)["row"] for line in part_of(result).read_text().splitlines()[1:]]
    subprocess.run(command, cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
    rows = json.loads(result.read_text())["rows"]
    assert rows[: len(before)] == before and [row["seed"] for row in rows] == [9000, 9001, 9002]
    assert not part_of(result).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_evaluation_over_ros_has_the_summary_of_one_in_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = evaluate(EvaluateOptions("widowx", "tiny", 2, 9000))
    options = EvaluateOptions("widowx", "tiny", 2, 9000)
    assert summary.keys() >= summarize("widowx", 9000, [], **options.conditions()).keys()
    assert [row["seed"] for row in summary["rows"]] == [9000, 9001] and summary["over_ros"] is True
    assert all(0 < row["chunks"] <= 13 or row["refused"] for row in summary["rows"])
