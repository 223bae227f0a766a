# SPDX-License-Identifier: Apache-2.0
"""Chunks follow one another without a pause on the running graph: simulator, policy and executor as processes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from rosgraph_msgs.msg import Clock
from trajectory_msgs.msg import JointTrajectory

from embodiment_descriptions import resource_path
from qwen_vla_control.motion.blending import Blending
from qwen_vla_control.stamps import nanoseconds
from qwen_vla_msgs.msg import ChunkReport
from qwen_vla_rclpy.qos import reliable
from qwen_vla_ros.simulation.stack import simulated_stack
from qwen_vla_ros.simulation.task_client import Limits, TaskClient

TASK_SECONDS = 8.0  # simulated
SPEED = 0.3  # simulated seconds per real one, so that inference keeps up on a busy machine
CLOCK = 0.1  # [s] delay of the time that a busy machine shows this process
OVERLAPPING = [mode for mode in Blending if mode is not Blending.SYNCHRONOUS]


@pytest.mark.slow
@pytest.mark.parametrize("mode", OVERLAPPING)
def test_the_arm_does_not_stand_between_chunks(mode, tmp_path):
    now, arrivals, reports = [0], [], []
    given = {"blending": str(mode)}
    checkpoint = resource_path("checkpoints/tiny")
    with simulated_stack(checkpoint, tmp_path, given, speed=SPEED, executor_parameters=given) as stack:
        hear = stack.client.hear
        hear(Clock, "/clock", lambda message: now.__setitem__(0, nanoseconds(message.clock)), 10)
        hear(
            JointTrajectory,
            "arm_controller/joint_trajectory",
            lambda message: arrivals.append((now[0], nanoseconds(message.points[-1].time_from_start))),
            reliable(50),
        )
        hear(ChunkReport, "executor_node/chunk_report", reports.append, reliable(50))
        tasks = TaskClient(stack)
        tasks.reset(7003)
        row = tasks.execute(Limits(timeout=TASK_SECONDS))
    chunks = arrivals[:-1]  # the last is the final hold
    assert row.chunks >= 2 and len(chunks) >= 2  # three may be enough to pick the cube up
    pauses = [(at - (before + lasts)) / 1e9 for (before, lasts), (at, _) in pairwise(chunks)]
    assert max(pauses) < CLOCK, pauses
    done = [report for report in reports if report.verdict == ChunkReport.COMPLETED]
    assert done and all("took over" in report.message and report.steps_accepted <= 16 for report in done)
    assert not any(ChunkReport.REPLACED in report.reason_codes for report in reports)  # nothing is aborted
