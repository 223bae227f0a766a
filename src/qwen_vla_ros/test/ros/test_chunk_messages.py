# SPDX-License-Identifier: Apache-2.0
"""Conversion between the prediction of a policy, the message, and the chunk that the gate checks."""

from dataclasses import replace

import numpy as np
import pytest
from rclpy.serialization import serialize_message

from embodiment_descriptions import load_robot
from qwen_vla.policies import ActionChunk as PredictedChunk
from qwen_vla_control.gate.base_gate import BaseGate
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.base_path import accumulated
from qwen_vla_control.reasons import Reason, Violation
from qwen_vla_msgs.msg import ActionChunk
from qwen_vla_ros.ros.chunk_messages import (
    LARGEST_CHUNK,
    ChunkReporter,
    checked_instruction,
    chunk_from_message,
    message_from_prediction,
)

NOW = 10**18  # [ns] of the decisions


def test_predicted_waypoints_become_poses():
    """Forward, a rotation to the left on the spot, forward: all waypoints are relative to the observation."""
    robot = load_robot("mobile_base")
    steps = np.array([[0.1, 0, 0], [0, 0, 0.5], [0, 0, 0.5], [0, 0, 0.5], [0.1, 0, 0]])
    poses = accumulated(np.zeros(3), steps).astype(np.float32)
    predicted = PredictedChunk(
        poses, tuple(robot.channel_names), robot.period, robot.control_mode, robot.name, "go", 10**18, {"total": 1.0}, 5
    )
    chunk = chunk_from_message(message_from_prediction(predicted, 1, robot.base_frame, 0))
    path = BaseGate(robot).decide(chunk, RobotState(NOW, np.zeros(3), np.zeros(3), frame="odom")).path
    end = [0.1 + 0.1 * np.cos(1.5), 0.1 * np.sin(1.5), 1.5]
    np.testing.assert_allclose(path.positions[-1], end, atol=1e-6)


def test_the_largest_chunk_that_the_message_allows_is_accepted():
    largest = ActionChunk(
        embodiment="e" * 64,
        control_mode="c" * 32,
        channel_names=["n" * 64] * 128,
        instruction="i" * 2048,
        data=[1.0] * 16384,
    )
    largest.header.frame_id = "base_link" * 10
    assert len(serialize_message(largest)) < LARGEST_CHUNK


def test_a_report_fits_its_message_and_is_printable_whatever_the_chunk_contains():
    chunk = chunk_from_message(ActionChunk(embodiment="widowx", instruction="go"))
    hostile = replace(chunk, instruction="\x1b[2J" * 100_000)
    violations = (Violation(Reason.WRONG_EMBODIMENT, "for '\x1b[31m\n" + "大" * 100_000),)
    report = ChunkReporter("base_link").refuse(hostile, violations, 10**9, 1.0)
    assert report.message.isprintable() and len(report.message.encode()) <= 4096
    assert report.instruction.isprintable() and len(report.instruction.encode()) <= 2048


@pytest.mark.parametrize("text", ["", "  ", "x" * 501, "pick\x1b[31m", "pick\nplace"])
def test_invalid_instructions_are_refused(text):
    with pytest.raises(ValueError, match="instruction"):
        checked_instruction(text)
