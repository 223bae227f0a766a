# SPDX-License-Identifier: Apache-2.0
"""For programs that use a running robot: instructions to its policy_node, services of its executor_node."""

from qwen_vla_ros.commander.instruction_client import InstructionResult, Lost, Rejected
from qwen_vla_ros.commander.robot_commander import CommandRefused, RobotCommander
from qwen_vla_ros.ros.reports import Ending, Report, Verdict
from qwen_vla_ros.ros.spinning_node import NoAnswer

__all__ = [
    "CommandRefused",
    "Ending",
    "InstructionResult",
    "Lost",
    "NoAnswer",
    "Rejected",
    "Report",
    "RobotCommander",
    "Verdict",
]
