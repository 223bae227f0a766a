# SPDX-License-Identifier: Apache-2.0
"""Every robot on the running graph: its simulator, its tasks and their recording. The policy is untrained."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from untrained import AHEAD, untrained_checkpoint

from embodiment_descriptions import Embodiment, load_robot
from qwen_vla.evaluation.options import EvaluateOptions
from qwen_vla.suites import load_suite
from qwen_vla_control.reasons import Reason
from qwen_vla_ros.drawing.chunk_geometry import BASE
from qwen_vla_ros.simulation.chaos.trial import relayed_topics, remappings
from qwen_vla_ros.simulation.demo.recording import Recorder, Recording
from qwen_vla_ros.simulation.demo.video import CELL, STRIP, film
from qwen_vla_ros.simulation.over_ros import episode_limits, evaluate
from qwen_vla_ros.simulation.stack import SimulatedWorld, simulated_stack
from qwen_vla_ros.simulation.task_client import Limits, TaskClient, TaskRow

SEED, SHIFT = 9000, "colour"
CHUNKS = 2  # executed in the test, each for half of its steps
METRICS = {"mobile_base": {"sr", "osr", "spl", "ne", "ndtw"}, "aloha": set()}


@dataclass(frozen=True)
class Seen:
    """One short episode and its recording."""

    robot: Embodiment
    row: TaskRow
    recording: Recording


@pytest.fixture(scope="module", params=["mobile_base", pytest.param("aloha", marks=pytest.mark.slow)])
def seen(request, tmp_path_factory) -> Seen:
    robot, folder = load_robot(request.param), tmp_path_factory.mktemp(request.param)
    checkpoint = untrained_checkpoint(folder / "checkpoint", robot)
    with simulated_stack(checkpoint, folder / "logs", world=SimulatedWorld(robot.name, robot.name, SHIFT)) as stack:
        tasks = TaskClient(stack)
        recorder = Recorder(stack, tasks, robot)
        while True:
            instruction = tasks.reset(SEED)
            recorder.begin()
            row = tasks.execute(Limits(timeout=60.0, steps=CHUNKS * robot.chunk_size // 2))
            recording = recorder.end()
            assert row.instruction == instruction
            if not any(Reason.STALE in report.reasons for report in row.reports):  # a busy machine may be late
                return Seen(robot, row, recording)


def test_the_scenes_are_those_of_the_shifted_suite(seen):
    expected, trained = (
        load_suite(seen.robot.name).make_env(cameras=False, shift=shift).reset(seed=SEED)[1] for shift in (SHIFT, None)
    )
    row = seen.row
    assert (row.instruction, row.task, row.target) == tuple(
        expected[name] for name in ("instruction", "task", "target")
    )
    assert row.instruction != trained["instruction"]


def test_a_task_runs_for_its_number_of_control_steps(seen):
    row, steps = seen.row, CHUNKS * seen.robot.chunk_size // 2
    assert (row.seed, row.success, row.ended) == (SEED, False, "step limit")
    assert (row.steps, row.chunks, row.refused) == (steps, CHUNKS, 0), row.reports
    assert row.seconds > steps * seen.robot.period  # plus the time for inference
    assert row.task and row.target and row.failure and METRICS[seen.robot.name] <= row.metrics.keys()
    assert row.distance > 0


def test_a_chunk_moves_the_robot_to_its_end(seen):
    start, end = (seen.recording.moments[i].pose for i in (0, -1))
    if seen.robot.base is None:
        away = max(abs(end.joints[name] - seen.robot.home[name]) for name in seen.robot.joint_names)
        assert away < 0.05  # it holds its home pose
    else:
        assert end.base[0, 3] - start.base[0, 3] == pytest.approx(seen.row.steps * AHEAD, rel=0.3)


def test_everything_to_be_shown_is_received(seen):
    recording, tags = seen.recording, [camera.tag for camera in seen.robot.cameras]
    last = recording.moments[-1]
    assert list(last.images) == tags and set(recording.infos) == set(tags)
    stamps = [(image.header.stamp.sec, image.header.stamp.nanosec) for image in last.images.values()]
    assert max(stamps)[0] - min(stamps)[0] <= 1
    assert set(last.paths) == ({BASE} if seen.robot.base else {arm.name for arm in seen.robot.arms})
    frame = next(film([(recording, seen.row)]))
    assert frame.shape == (CELL[1] + STRIP, 2 * CELL[0], 3) and frame[:-STRIP].std() > 10


# Without a graph ------------------------------------------------------------------------------------------------------


def test_an_executor_of_a_base_receives_its_odometry_through_the_relay():
    base, arms = (remappings(relayed_topics(load_robot(name)))["executor_node"] for name in ("mobile_base", "aloha"))
    assert base["odom"] == "chaos/odom" and "joint_states" not in base
    assert arms["joint_states"] == "chaos/joint_states" and "odom" not in arms


@pytest.mark.parametrize("name", ["widowx", "aloha", "mobile_base"])
def test_an_episode_lasts_as_long_as_in_process_plus_inference(name):
    suite = load_suite(name)
    limits = episode_limits(suite)
    assert limits.steps == suite.max_steps and limits.timeout > 2 * suite.max_steps * suite.embodiment.period


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["aloha", "mobile_base"])
def test_an_evaluation_over_ros_has_the_tasks_and_metrics_of_one_in_process(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = load_suite(name)
    checkpoint = untrained_checkpoint(tmp_path / "checkpoint", suite.embodiment)
    summary = evaluate(EvaluateOptions(name, str(checkpoint), 1, SEED))
    (row,) = summary["rows"]
    assert row["task"] == suite.task_of(SEED) and list(summary["tasks"]) == [row["task"]]
    assert row["ended"] in ("step limit", "success") and METRICS[name] <= summary.keys()
