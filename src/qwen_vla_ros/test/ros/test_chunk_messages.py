"""Between what a policy predicts, the message, and what the gate decides about."""

import numpy as np

from embodiment_descriptions import load_robot
from qwen_vla.policies import ActionChunk as PredictedChunk
from qwen_vla_control.gate.base_gate import BaseGate
from qwen_vla_control.gate.robot_state import RobotState
from qwen_vla_control.motion.base_path import accumulated
from qwen_vla_ros.ros.chunk_messages import chunk_from_message, message_from_prediction

NOW = 10**18  # [ns] of the decisions


def test_what_a_policy_predicts_is_driven_so():
    """Ahead, a turn to the left on the spot, ahead: all waypoints are seen from the base at the observation."""
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
