"""Between what a policy predicts, the message, and what the gate decides about."""

import numpy as np

from embodiment_descriptions import load_robot
from qwen_vla.policies.policy import ActionChunk as PredictedChunk
from qwen_vla_control.gate.base_gate import BaseGate
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_ros.ros.chunk_messages import chunk_from_message, message_from_prediction

NOW = 10**18  # [ns] of the decisions


def test_what_a_policy_predicts_step_by_step_is_driven_so():
    """Ahead, a turn to the left on the spot, ahead: each waypoint is seen from the one before."""
    robot = load_robot("mobile_base")
    gate = BaseGate(robot)
    steps = np.array([[0.1, 0, 0], [0, 0, 0.5], [0, 0, 0.5], [0, 0, 0.5], [0.1, 0, 0]], np.float32)
    predicted = PredictedChunk(
        steps, tuple(robot.channel_names), robot.period, robot.control_mode, robot.name, "go", 10**18, {"total": 1.0}, 5
    )
    chunk = chunk_from_message(message_from_prediction(predicted, 1, robot.base_frame, 0))
    path = gate.decide(chunk, RobotState(NOW, np.zeros(3), np.zeros(3), frame="odom")).path
    end = [0.1 + 0.1 * np.cos(1.5), 0.1 * np.sin(1.5), 1.5]
    np.testing.assert_allclose(path.positions[-1], end, atol=1e-6)
